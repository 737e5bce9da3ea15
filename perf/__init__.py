"""Microbenchmarks and studies: each asks one question, is runnable alone, and writes JSON and a picture.

``python -m perf`` runs the short form of all of them in turn; ``python -m perf.NAME [--full] [--out perf/out]`` runs
one. A bench is a module with a docstring that states its question and a function ``measure(settings) -> Report``;
:mod:`perf.harness` does the rest. Ratios of interleaved repetitions are what a bench argues with: seconds are the
machine's.
"""

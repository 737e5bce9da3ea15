"""Microbenchmarks and studies: each asks one question, is runnable alone, and writes JSON and a picture.

``python -m perf`` (``make bench``) runs the short form of all of them in turn and makes ``perf/REPORT.md``;
``python -m perf.NAME [--full] [--out perf/out]`` runs one. A bench is a module with a docstring that states its
question in its first paragraph and a function ``measure(settings) -> Report``; :mod:`perf.harness` does the rest.
Ratios of interleaved repetitions are what a bench argues with: seconds are the machine's.

How a bench gets into the report:

1. it is named in ``BENCHES`` of :mod:`perf.__main__`, in a few words; all short forms together must stay below 15
   minutes on two cores, so aim at half a minute;
2. ``python -m perf.NAME`` writes ``perf/out/NAME.json`` (question, machine, versions, seed, tables with every
   repetition, how noisy) and ``NAME.png`` (its charts, else its tables' figures), which git ignores;
3. ``python -m perf.collect`` takes these into ``perf/results``, which git keeps, and makes the report from all files
   there: each bench's tables (``Report.sections``), notes and picture, under the command that makes them again. Keep
   ``Report.facts`` small: a file of more than 256 KiB is refused;
4. figures that stand against something else are named in ``COMPARISONS`` of :mod:`perf.answers`: by bench, beginning
   of the table's title, column, and rows. They make up the five lines of the first page, with what ``DIFFERENCES``
   names, and those on the wrong side of 1 are listed under "Where others are better". Figures of README.md are named in
   ``MEASURED`` there, and put into it by ``python -m perf.collect --readme``.

So titles (up to the first number in them) and columns are names: whoever changes one changes :mod:`perf.answers`, and
``perf.collect`` says what it did not find. Rows with one peer each (``way``, conditions, a ratio in a column of its
own) are the easiest to name.
"""

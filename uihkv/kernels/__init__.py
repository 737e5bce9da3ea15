"""Compiled inner loops over whole arrays: numba, without the GIL, cached on disk.

Kernels take arrays, addresses and scalars, return status codes and never raise. Whoever calls one checks
before and raises after. Nothing here knows of LMDB, schemas or users' types.
"""

"""Benchmarks: keras_mpseq beside its peers, in one run on one machine, as one table.

`python -m tests.bench` from the root of the repository. No test asserts a time.
"""

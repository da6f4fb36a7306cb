"""The fault matrix: everything that can go wrong, wherever it can, through every entry point and launcher.

`python -m tests.faults --write` runs it and writes what came of each cell into docs/reference/faults.md; the tests run
it as well, and compare.
"""

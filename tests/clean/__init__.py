"""Sequences of the kinds that people write, each without a fault: `lint` and `check` must say nothing about them.

`tests/test_mutations.py` then puts every hazard of the catalogue into each. A module has one sequence and a function
`make` that writes what it needs into a folder and returns a tiny instance.
"""

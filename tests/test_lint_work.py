"""The static engine does its work once: how often functions are followed is counted, not timed."""

from __future__ import annotations

import functools
import itertools
from collections import Counter

import pytest

from keras_mpseq.lint import lint_source
from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.values import NOTHING, Root, Taint, Value, join, join_all

HEAD = """
import keras

class Batches(keras.utils.PyDataset):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.seen = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.seen += 1
        return self.step_0(index)
"""
METHODS = 20
"""Fewer than calls are followed into each other."""


@pytest.fixture
def followed(monkeypatch):
    """Names of the functions that are followed, with how often."""
    counted: Counter[str] = Counter()
    follow = Analysis._follow

    def counting(self, context):
        counted[context[0].name] += 1
        return follow(self, context)

    monkeypatch.setattr(Analysis, "_follow", counting)
    return counted


def test_methods_that_call_each_other_are_followed_once(followed):
    """Of a circle the one that begins it is followed twice; a new member of the class is no reason to begin anew."""
    steps = "".join(
        f"    def step_{n}(self, rows):\n        return self.step_{(n + 1) % METHODS}(rows[: self.size])\n\n"
        for n in range(METHODS)
    )
    lint_source(HEAD + steps)
    assert max(followed[f"step_{n}"] for n in range(METHODS)) == 2
    assert sum(followed.values()) < 1.5 * METHODS, followed


def test_what_rests_on_a_member_that_was_not_known_is_followed_again(followed):
    """`__getitem__` is followed before `z_build` makes the model, by way of a method that does not read it itself."""
    found = lint_source(
        HEAD
        + """
    def step_0(self, index):
        return self.step_1(index)

    def step_1(self, index):
        return self.net.predict(index)

    def z_build(self):
        self.net = keras.Model()
"""
    )
    assert "SEQ304" in {finding.code for finding in found.findings}
    assert followed["step_0"] == followed["step_1"] == 2


def test_join_all_is_join_one_by_one():
    """What is joined at once is what is joined in turn."""
    values = [_value(number) for number in (0, 1, 2, 3, 5, 6, 7, 9)]
    for count in range(5):
        for some in itertools.product(values, repeat=count):
            one_by_one = functools.reduce(join, some) if some else NOTHING
            assert join_all(*some) == one_by_one, some


def _value(number: int) -> Value:
    if number % 4 == 0:
        return NOTHING
    inner = (Value(const=("int", number % 3)), NOTHING) if number % 3 else None
    return Value(
        roots=frozenset({Root("param", "x")} if number % 5 < 3 else ()),
        refs=frozenset({f"a{number % 3}"}),
        kinds=frozenset({("weak", "list", "fresh")[number % 3]}),
        taints=frozenset({Taint("loop")} if number % 2 else ()),
        const=("int", number % 2),
        items=inner,
    )

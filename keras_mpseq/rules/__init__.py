"""The catalogue: every rule by its code."""

from __future__ import annotations

from types import ModuleType

from keras_mpseq.rules import (
    calls,
    contract,
    effects,
    handles,
    memory,
    notices,
    ordering,
    randomness,
    serialization,
    sharing,
    transport,
    writes,
)
from keras_mpseq.rules.base import SECTIONS, Rule

__all__ = ["RULES", "SECTIONS", "Rule", "rule_of"]

_FAMILIES: tuple[ModuleType, ...] = (
    notices,
    serialization,
    writes,
    sharing,
    handles,
    effects,
    randomness,
    ordering,
    contract,
    calls,
    memory,
    transport,
)


def _collected() -> dict[str, type[Rule]]:
    rules = [
        value
        for family in _FAMILIES
        for value in vars(family).values()
        if isinstance(value, type) and issubclass(value, Rule) and value is not Rule
    ]
    return {rule.code: rule for rule in sorted(rules, key=lambda rule: rule.code)}


RULES: dict[str, type[Rule]] = _collected()
"""Every rule, ordered by code."""


def rule_of(code: str) -> type[Rule]:
    """Return the rule of *code*.

    Raises:
        KeyError: There is no such rule.
    """
    return RULES[code]

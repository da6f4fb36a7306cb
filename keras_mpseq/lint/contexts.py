"""What of a call's arguments makes a difference for how its function is followed."""

from __future__ import annotations

from keras_mpseq.lint.values import NOTHING, Bound, Root, Value

SHORT = 24
"""Length of texts that are told apart: a mode is, a path is not."""


def reduced(name: str, value: Value, detailed: bool) -> Value:
    """Return of an argument what makes a difference for how its function is followed."""
    const = value.const if detailed and value.const is not None and _is_short(value.const[1]) else None
    if not (value.instances or value.funcs or value.refs or value.classes or const):
        return NOTHING
    funcs = frozenset(_passed(name, bound) for bound in value.funcs) if detailed else frozenset()
    refs = value.refs if detailed else frozenset()
    return Value(refs=refs, funcs=funcs, classes=value.classes, instances=value.instances, const=const)


def _passed(name: str, bound: Bound) -> Bound:
    if bound.receiver is None:
        return Bound(bound.function)
    receiver = Value(roots=frozenset({Root("receiver", name)}), instances=bound.receiver.instances)
    return Bound(bound.function, receiver)


def _is_short(value: object) -> bool:
    return value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= SHORT)

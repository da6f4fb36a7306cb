"""Which line changes a piece of state, and which rule that breaks; from the code, without running it again."""

from __future__ import annotations

import types
from typing import Any

from keras_mpseq.state.digests import is_generator, is_iterator
from keras_mpseq.state.reach import Place, Reach, UserCode, codes, steps_of

_MUTATORS = {
    *("append", "appendleft", "extend", "insert", "add", "update", "setdefault", "put", "put_nowait", "__setitem__"),
    *("remove", "discard", "pop", "popitem", "popleft", "clear", "get_nowait", "__next__", "next"),
    *("sort", "reverse", "shuffle", "fill", "resize", "itemset", "partition"),
}
"""Methods and functions that change what they are given."""
_BINDS = ("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF")
_USES, _CHANGES, _ASSIGNS = 1, 2, 3


def line_that_changes(key: str, reach: Reach) -> Place | None:
    """Return the line that changes what *key* names: that assigns it, else changes its contents, else uses it first.

    Lines of helpers that get the value under another name are not found; then it is the line that hands it on.
    """
    name = key.rpartition(".")[2].strip("<>")
    best: tuple[int, Place | None] = (0, None)
    for function in reach.functions:
        for code in codes(function.__code__):
            for line, rank in _ranks(code, name).items():
                if rank > best[0]:
                    best = rank, Place(code.co_filename, line, function.__qualname__)
    return best[1]


def _ranks(code: types.CodeType, name: str) -> dict[int, int]:
    """Return what each line does with *name*."""
    found: dict[int, int] = {}
    for line, step in steps_of(code):
        if step.argval == name and step.opname in _BINDS:
            found[line] = _ASSIGNS
        elif step.argval == name and step.opname.startswith("LOAD"):
            found.setdefault(line, _USES)
        elif found.get(line) == _USES and _mutates(step.opname, step.argval, step.argrepr):
            found[line] = _CHANGES
    # `next(self.it)` names the function before the value.
    for line, step in steps_of(code):
        if found.get(line) == _USES and step.argval in _MUTATORS:
            found[line] = _CHANGES
    return found


def _mutates(opname: str, argument: Any, shown: str) -> bool:
    in_place = opname.startswith("INPLACE") or (opname == "BINARY_OP" and shown.endswith("="))
    return in_place or opname in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE") or argument in _MUTATORS


def rule_broken(key: str, value: Any, *, rebound: bool, grown: int) -> str:
    """Return the code of the rule that a change of *key* breaks.

    Args:
        key: See `values_of`.
        value: What it names now.
        rebound: It names another object than before.
        grown: Entries that were added to it, negative when some were taken away.
    """
    kind, _, _ = key.partition(" ")
    if kind == "class":
        return "SEQ203"
    if kind == "free":
        return "SEQ204"
    if is_generator(value):
        return "SEQ403"
    if is_iterator(value) or (not rebound and grown < 0):
        return "SEQ206"
    if kind == "global":
        return "SEQ201" if rebound else "SEQ202"
    return "SEQ210" if isinstance(value, (dict, set)) and not rebound and grown > 0 else "SEQ205"


def last_of_user(trace: types.TracebackType | None) -> Place | None:
    """Return the innermost line of the user's in a traceback."""
    code, place = UserCode(), None
    while trace is not None:
        at = trace.tb_frame.f_code
        if code.owns(at.co_filename):
            place = Place(at.co_filename, trace.tb_lineno, at.co_name)
        trace = trace.tb_next
    return place


def where(code: str, place: Place | None) -> str:
    """Return the code of a rule, and the place where it is broken, if that is known."""
    return code if place is None else f"{code}, {place.path}:{place.line}"

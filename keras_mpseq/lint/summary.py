"""What a function does, seen from outside: effects on what outlives the call, what it returns, what it reads.

Everything is said in terms of its parameters and free variables, so that each caller can put in its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.lint.model import Function
from keras_mpseq.lint.values import NOTHING, Root, Site, Value


class Hop(NamedTuple):
    """A call on the way to an effect: the function that calls, and where."""

    function: str
    path: str
    line: int


class Effect(NamedTuple):
    """One thing that a function does.

    Kinds: `write` to a root; `draw` and `seed` of a generator of the process; `method` of an object whose class
    decides what it means; `consume` of an iterator; `open`, `file-write`, `framework`, `accelerator`, `parallel`,
    `output` and `cached` by full name in *detail*; `overlap` of a slice by a bare parameter; `lock-use`; `listing`.
    """

    kind: str
    detail: str
    site: Site
    root: Root | None = None
    value: Value = NOTHING
    flags: frozenset[str] = frozenset()
    """`rebind`, `item`, `del`, `cell`: how it writes; `shuffle` if by that. `aug`, `alias`, `view`: through what.
    `maybe`: only if the argument is an array. `memo`: only where the value was missing. `scratch`: to what this very
    call has made. `loop`, `finally`: where it stands. `kind:rng` and the like: what its object is. `likely`: told by
    how a call looks."""
    chain: tuple[Hop, ...] = ()


@dataclass(eq=False, slots=True)
class Summary:
    """All of it."""

    effects: list[Effect] = field(default_factory=list)
    returns: Value = NOTHING
    exits: list[tuple[Site, Value]] = field(default_factory=list)
    """Each return statement of the function itself."""
    reads: frozenset[Root] = frozenset()
    exposed: frozenset[Root] = frozenset()
    """What it may read before it wrote it: this is what an earlier call leaves behind."""
    defined: dict[Root, Value] = field(default_factory=dict)
    """What it has certainly assigned when it returns."""
    escapes: frozenset[Root] = frozenset()
    """What is handed to code that is not followed."""
    unresolved: list[tuple[Site, str]] = field(default_factory=list)
    reached: dict[Function, tuple[Hop, ...]] = field(default_factory=dict)
    """Functions of the project that it gets to, itself first, with one way there."""


class Fault(NamedTuple):
    """What is wrong with the code of a function, whoever calls it: a rule, where, and what is said."""

    code: str
    site: Site
    message: str
    confidence: str = "certain"


def through(site: Site) -> Hop:
    """Return the hop of a call that stands at *site*."""
    return Hop(site.function, site.path, site.line)

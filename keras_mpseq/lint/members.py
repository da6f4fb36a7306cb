"""What instances of a class hold, and which summaries were made before all of that was known.

Members are collected by following the methods that store them, and these read members themselves. A summary that is
made meanwhile remembers what it took members for, and which other summaries it rests on. Once all members are known,
those that took one for something else go, with all that rest on them; the others need not be made again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.lint.model import Class, Function
from keras_mpseq.lint.nodes import CLOSED, by_kind, walk
from keras_mpseq.lint.values import Value

Context = tuple[Function, frozenset[tuple[str, Value]]]


class Found(NamedTuple):
    """What an attribute of an instance is; a member is data, kept on the instance."""

    value: Value
    is_member: bool


class Seen(NamedTuple):
    """A member as it is known at some time."""

    value: Value | None
    """None if no method was seen to store it."""
    is_sole: bool
    """One statement stores it, in `__init__`."""


@dataclass(eq=False, slots=True)
class Members:
    """What the methods of a class were seen to store on `self`."""

    values: dict[str, Value] = field(default_factory=dict)
    stores: dict[str, int] = field(default_factory=dict)
    """How many statements store each."""
    in_init: set[str] = field(default_factory=set)

    def seen(self, attr: str) -> Seen:
        """Return what is known of one of them by now."""
        return Seen(self.values.get(attr), self.stores.get(attr) == 1 and attr in self.in_init)


@dataclass(eq=False, slots=True)
class Making:
    """What a summary rests on that is not certain yet."""

    taken: dict[tuple[Class, str], Seen] = field(default_factory=dict)
    """What it took members for, of classes that are being collected."""
    below: set[Context] = field(default_factory=set)
    is_cut: bool = False
    """A call was not followed, because of what was being followed around the collection."""


class Tentative:
    """The summaries that are made while members of some class are being collected."""

    def __init__(self) -> None:
        """Begin with none."""
        self._making = [Making()]
        """Those being made, the innermost last; the first stands for who is no summary."""
        self._made: list[tuple[Context, Making]] = []
        self._collected: dict[Class, tuple[int, int]] = {}
        """How many were made, and being made, when the collection began."""

    def take(self, cls: Class, attr: str, seen: Seen) -> None:
        """Remember what a member was taken for."""
        if cls in self._collected:
            self._making[-1].taken.setdefault((cls, attr), seen)

    def rest_on(self, context: Context, depth: int) -> None:
        """Remember that another summary was used; *depth* is how many were being made around it, if it still is."""
        if self._collected:
            self._making[-1].below.add(context)
            if depth < next(reversed(self._collected.values()))[1]:
                self.cut()

    def cut(self) -> None:
        """Remember that a call was followed in part, or not at all."""
        self._making[-1].is_cut = True

    def begin(self) -> None:
        """Begin to make a summary."""
        self._making.append(Making())

    def end(self, context: Context) -> None:
        """End what was begun last."""
        making = self._making.pop()
        if self._collected:
            self._made.append((context, making))

    def collect(self, cls: Class) -> None:
        """Begin to collect the members of a class."""
        self._collected[cls] = len(self._made), len(self._making) - 1

    def collected(self, cls: Class, members: Members) -> Iterator[Context]:
        """Yield the summaries that do not hold, now that all members of a class are known."""
        start, _ = self._collected.pop(cls)
        made = self._made[start:]
        above: dict[Context, list[Context]] = {}
        for context, making in made:
            for below in making.below:
                above.setdefault(below, []).append(context)
        waiting = [context for context, making in made if making.is_cut or _is_wrong(making, cls, members)]
        dropped = set(waiting)
        while waiting:
            context = waiting.pop()
            yield context
            fresh = [other for other in above.get(context, ()) if other not in dropped]
            dropped.update(fresh)
            waiting += fresh
        self._made[start:] = [(c, m) for c, m in made if c not in dropped] if self._collected else []


def _is_wrong(making: Making, cls: Class, members: Members) -> bool:
    return any(owner is cls and members.seen(attr) != seen for (owner, attr), seen in making.taken.items())


def may_store(method: Function) -> bool:
    """Tell whether a method may assign to an attribute of its receiver, as far as that can be told at a glance."""
    receiver = method.params[0]
    attributes, calls = list(method.of(ast.Attribute)), list(method.of(ast.Call))
    for inside in [inside for kind in CLOSED for inside in method.of(kind)]:
        below = by_kind(walk(inside))
        attributes += below.get(ast.Attribute, [])
        calls += below.get(ast.Call, [])
    if any(isinstance(node.ctx, ast.Store) and _is_name(node.value, receiver) for node in attributes):
        return True
    # Whoever is given the instance may store on it.
    given = [value for call in calls for value in (*call.args, *(keyword.value for keyword in call.keywords))]
    return any(_is_name(value, receiver) for value in given)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name

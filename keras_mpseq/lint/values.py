"""What the engine knows of a value: where it lives, what it may be, and what it depends on.

Values are joined, never refined: a set holds everything that is possible. Roots say which long-lived object a write
would reach; a value without roots was built in the call at hand, and what happens to it concerns nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keras_mpseq.lint.model import Class, Function

OPENED = frozenset({"array-file", "database", "file", "session", "memmap"})
CONTAINERS = frozenset({"list", "tuple", "dict", "set"})
ALIASING = frozenset({"view", "weak", "element", "fresh", "scratch"})
"""How a value was reached, which is no property of it: dropped when it is stored."""


CERTAIN = frozenset({"weak", "element", "fresh", "scratch"})
"""Ways that make a write harmless, and so must be the only ones."""


class Site(NamedTuple):
    """Where a piece of code stands; columns from 1, the end exclusive."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    function: str


class Root(NamedTuple):
    """An object that outlives the call: a parameter, a global, a class, a free variable, or an attribute of one."""

    kind: str
    name: str
    attr: str = ""


class Taint(NamedTuple):
    """What a value depends on: a parameter, chance, the machine, the order of a directory, a loop's variable."""

    kind: str
    name: str = ""
    site: Site | None = None


class Bound(NamedTuple):
    """A function of the project, with the receiver and the leading arguments it is bound to."""

    function: Function
    receiver: Value | None = None
    args: tuple[Value, ...] = ()


class Value(NamedTuple):
    """Everything an expression may stand for."""

    roots: frozenset[Root] = frozenset()
    refs: frozenset[str] = frozenset()
    """Full names outside the project, as `numpy.random.shuffle`."""
    funcs: frozenset[Bound] = frozenset()
    classes: frozenset[Class] = frozenset()
    """The value is one of these classes."""
    instances: frozenset[Class] = frozenset()
    """The value is an instance of one of these classes."""
    kinds: frozenset[str] = frozenset()
    taints: frozenset[Taint] = frozenset()
    const: tuple[str, object] | None = None
    """The name of its type and itself, when it can be one literal only."""
    items: tuple[Value, ...] | None = None
    """Of a tuple or list that was written out."""


NOTHING = Value()
NONE = Value(const=("NoneType", None))


def constant(value: object) -> Value:
    """Return the value of a literal."""
    return Value(const=(type(value).__name__, value), kinds=frozenset({"scalar"}))


def of_kind(*kinds: str, taints: frozenset[Taint] = frozenset()) -> Value:
    """Return a value that was built just now."""
    return Value(kinds=frozenset(kinds), taints=taints)


def join(first: Value, second: Value) -> Value:
    """Return what may be either."""
    if first is second or second is NOTHING or first == second:
        return first
    if first is NOTHING:
        return second if second.const is None else second._replace(const=None)
    return Value(
        first.roots | second.roots,
        first.refs | second.refs,
        first.funcs | second.funcs,
        first.classes | second.classes,
        first.instances | second.instances,
        _join_kinds(first.kinds, bool(first.roots), second.kinds, bool(second.roots)),
        first.taints | second.taints,
        first.const if first.const == second.const else None,
        _join_items(first.items, second.items),
    )


def _join_kinds(first: frozenset[str], first_held: bool, second: frozenset[str], second_held: bool) -> frozenset[str]:
    """Return the kinds of either; each is held if it has roots."""
    kinds = first | second
    odd = (first ^ second) & CERTAIN
    if not odd:
        return kinds
    # Weak only if both are: the other way to the object is as good as its own.
    return kinds - {kind for kind in odd if (second_held if kind in first else first_held)}


def _join_items(first: tuple[Value, ...] | None, second: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(join(a, b) for a, b in zip(first, second, strict=True))


def join_all(*values: Value) -> Value:
    """Return what may be any of them."""
    some = [value for value in values if value is not NOTHING]
    if len(some) < 2:
        return join(values[0], some[0]) if some else NOTHING
    # All at once, for a literal may hold many: one by one, each would copy what was joined before.
    first, *others = some
    kinds, held = first.kinds, bool(first.roots)
    for other in others:
        if other.kinds != kinds:
            kinds = _join_kinds(kinds, held, other.kinds, bool(other.roots))
        held = held or bool(other.roots)
    is_known = values[0] is first and all(other.const == first.const for other in others)
    columns = [value.items for value in some if value.items is not None]
    same = len(columns) == len(some) and all(len(column) == len(columns[0]) for column in columns)
    return Value(
        frozenset().union(*[value.roots for value in some]),
        frozenset().union(*[value.refs for value in some]),
        frozenset().union(*[value.funcs for value in some]),
        frozenset().union(*[value.classes for value in some]),
        frozenset().union(*[value.instances for value in some]),
        kinds,
        frozenset().union(*[value.taints for value in some]),
        first.const if is_known else None,
        tuple(join_all(*column) for column in zip(*columns, strict=True)) if same else None,
    )


def derived(*values: Value) -> Value:
    """Return what is computed from others: new, but dependent on what they depend on."""
    taints = [value.taints for value in values if value.taints]
    return Value(taints=frozenset().union(*taints)) if taints else NOTHING


def stored(value: Value) -> Value:
    """Return the value as the holder of an attribute or a name sees it."""
    return value._replace(kinds=value.kinds - ALIASING) if value.kinds & ALIASING else value


def truth(value: Value) -> bool | None:
    """Return whether it is true, or None when that is not known."""
    return None if value.const is None else bool(value.const[1])


def deeper(root: Root, attr: str) -> Root:
    """Return the root of an attribute; attributes of attributes belong to the first."""
    return root if root.attr else Root(root.kind, root.name, attr)


def _seen_by_caller(root: Root, arguments: dict[str, Value]) -> frozenset[Root] | set[Root]:
    """Return the roots that a root of a callee is for its caller."""
    if root.kind == "param":
        argument: Value | None = arguments.get(root.name, NOTHING)
    elif root.kind == "free":
        argument = arguments.get(root.name)
    elif root.kind == "receiver":
        found = [bound.receiver for bound in arguments.get(root.name, NOTHING).funcs if bound.receiver is not None]
        argument = join_all(*found)
    else:
        argument = None
    if argument is None:
        return {root}
    if not root.attr:
        return argument.roots
    if len(argument.roots) == 1 and root[:2] in [r[:2] for r in argument.roots if not r.attr]:
        # The receiver of a method that calls another.
        return {root}
    return {deeper(r, root.attr) for r in argument.roots}


def is_handle(value: Value) -> bool:
    """Tell whether a value is a handle itself, not a container of some.

    What its `get` gives is none: the number of frames in a video, a setting of a connection.
    """
    return bool(value.kinds & OPENED) and not value.kinds & CONTAINERS


def substitute(value: Value, arguments: dict[str, Value]) -> Value:
    """Return a value of a callee as the caller sees it: its parameters are the caller's arguments."""
    if not value.roots and not value.taints and value.items is None:
        return value
    extra = NOTHING
    for root in value.roots:
        if root.kind in ("param", "free") and not root.attr:
            given = arguments.get(root.name, NOTHING)
            if "asked" in value.kinds and is_handle(given):
                return value._replace(roots=frozenset(), taints=taints_of(value.taints, arguments))
            extra = join(extra, given)
    roots = frozenset(roots_of(value.roots, arguments)) if value.roots else value.roots
    taints = taints_of(value.taints, arguments) if value.taints else value.taints
    items = None if value.items is None else tuple(substitute(item, arguments) for item in value.items)
    if extra is NOTHING and items is None and roots == value.roots and taints == value.taints:
        return value
    result = value._replace(roots=roots, taints=taints, items=items)
    if extra is NOTHING:
        return result
    const = extra.const if value.const is None else value.const
    merged = join(result, extra._replace(roots=roots))
    const = const if len(value.roots) == 1 else None
    return merged._replace(items=extra.items if items is None else items, const=const)


def taints_of(taints: frozenset[Taint], arguments: dict[str, Value]) -> frozenset[Taint]:
    """Return a callee's taints as the caller sees them."""
    result: set[Taint] = set()
    for taint in taints:
        if taint.kind == "param" or (taint.kind == "free" and taint.name in arguments):
            result.update(arguments.get(taint.name, NOTHING).taints)
        else:
            result.add(taint)
    return frozenset(result)


def roots_of(roots: frozenset[Root] | set[Root], arguments: dict[str, Value]) -> set[Root]:
    """Return a callee's roots as the caller sees them."""
    result: set[Root] = set()
    for root in roots:
        result.update(_seen_by_caller(root, arguments))
    return result

"""Calls of functions outside the project: the tables say what they do, and no entry means nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from keras_mpseq.lint.values import (
    CONTAINERS,
    NOTHING,
    OPENED,
    Bound,
    Root,
    Taint,
    Value,
    deeper,
    derived,
    join,
    join_all,
)

if TYPE_CHECKING:
    from keras_mpseq.lint.calls import Calls

HELD_BY_DICT = OPENED | {"lock", "lambda", "local-function", "array-dataset", "rng"}
LEAVES_ITEMS = frozenset({"len", "isinstance", "type", "id", "hasattr", "callable", "repr", "str", "iter", "print"})
"""Builtins that take nothing out of an iterator that they are given."""


class Call(NamedTuple):
    """A call whose arguments have been followed."""

    node: ast.Call
    args: tuple[Value, ...]
    kwargs: dict[str, Value]
    spread: bool
    """It has `*args` or `**kwargs`."""
    statement: bool
    """Nobody uses its result."""

    @property
    def values(self) -> tuple[Value, ...]:
        """All arguments."""
        return (*self.args, *self.kwargs.values())

    def argument(self, position: int, *names: str) -> Value:
        """Return an argument by position or name."""
        for name in names:
            if name in self.kwargs:
                return self.kwargs[name]
        return self.args[position] if 0 <= position < len(self.args) else NOTHING


def outside(frame: Calls, ref: str, call: Call) -> Value:
    """Follow a call of a full name outside the project, and return what it gives."""
    if ref in SPECIAL:
        return SPECIAL[ref](frame, call)
    effects = (_random(frame, ref, call), _resource(frame, ref, call), _ambient(frame, ref, call))
    _framework(frame, ref, call)
    _side(frame, ref, call)
    _inplace(frame, ref, call)
    _take_items(frame, ref, call)
    frame.hand_over(call, followed=frame.tables.is_pure(ref), text=ref)
    value = join_all(*(effect for effect in effects if effect is not NOTHING))._replace(const=None)
    taints = value.taints | derived(*_ordered(frame, ref, call)).taints
    roots: frozenset[Root] = frozenset()
    kinds = value.kinds | frame.tables.kinds(ref)
    if frame.tables.has("effects.aliasing", ref) and call.args:
        roots = frozenset(root for arg in call.args for root in arg.roots)
        kinds |= {"view"} | (call.args[0].kinds - {"scalar"})
    if "out" in call.kwargs:
        roots |= call.kwargs["out"].roots
    if frame.tables.has("random.steady", ref):
        kinds |= {"steady"}
    elif "augmenter" in kinds and call.args and call.args[0].items:
        # A pipeline of resizing and the like gives the same for the same image.
        kinds -= {"augmenter"} if all("steady" in item.kinds for item in call.args[0].items) else set()
    if "set" in kinds and call.args and call.args[0].kinds & {"int", "range"}:
        kinds |= {"int"}
    if "dict" in kinds:
        # Made of keywords, or of a function for what is missing: it holds them.
        kinds |= frozenset().union(*(v.kinds for v in call.values)) & HELD_BY_DICT
        return value._replace(roots=roots, kinds=kinds, taints=taints)
    if frame.tables.has("effects.orderless", ref):
        taints = frozenset(taint for taint in taints if taint.kind != "unordered")
    elif ref == "numpy.array" and call.args:
        taints |= frame.iterated(call.args[0], call.node).taints
    return value._replace(roots=roots, kinds=kinds - {"local-function"}, taints=taints)


def _ordered(frame: Calls, ref: str, call: Call) -> tuple[Value, ...]:
    """Return the arguments, those whose order makes no difference without what makes it uncertain."""
    position = frame.tables.maps["effects.orderless_arguments"].get(ref, len(call.args))
    if position >= len(call.args):
        return call.values
    argument = call.args[position]
    certain = argument._replace(taints=frozenset(taint for taint in argument.taints if taint.kind != "unordered"))
    return (*call.args[:position], certain, *call.args[position + 1 :], *call.kwargs.values())


def _random(frame: Calls, ref: str, call: Call) -> Value:
    tables = frame.tables
    head, _, name = ref.rpartition(".")
    if tables.has("random.seeds", ref):
        frame.record("seed", ref, call.node, value=join_all(*call.values), flags=() if call.values else ("argless",))
        return NOTHING
    drawn = ""
    if head in ("numpy.random", "numpy.random.mtrand") and name in tables.sets["random.numpy"]:
        drawn = "numpy"
    elif head == "random" and name in tables.sets["random.python"]:
        drawn = "python"
    elif tables.has("random.tensorflow", ref):
        drawn = "tensorflow"
    elif tables.has("random.torch", ref) and "generator" not in call.kwargs:
        drawn = "torch"
    elif ref in tables.maps["random.numpy_users"] and tables.maps["random.numpy_users"][ref] not in call.kwargs:
        drawn = "numpy"
    elif tables.decls.get(ref) == "rng":
        drawn = "python"
    if drawn:
        frame.record("draw", ref, call.node, flags=(drawn,))
        return Value(taints=frozenset({Taint("random", ref)}))
    if tables.has("random.entropy", ref) and unseeded(call):
        return Value(kinds=frozenset({"unseeded"}), taints=frozenset({Taint("ambient", ref, frame.site(call.node))}))
    return NOTHING


def unseeded(call: Call) -> bool:
    """Tell whether a generator is made from nothing."""
    return not call.spread and all(value.const == ("NoneType", None) for value in call.values)


def _resource(frame: Calls, ref: str, call: Call) -> Value:
    kinds = frame.tables.kinds(ref)
    if ref == "numpy.load" and (len(call.args) > 1 or "mmap_mode" in call.kwargs):
        mapped = call.argument(1, "mmap_mode").const != ("NoneType", None)
        kinds = frozenset({"memmap"}) if mapped else kinds
    if kinds & OPENED or frame.tables.has("resources.containers", ref):
        frame.record("open", ref, call.node, value=call.argument(0, "name", "filename", "path", "file"))
    return Value(kinds=kinds)


def _ambient(frame: Calls, ref: str, call: Call) -> Value:
    tables = frame.tables
    if tables.has("effects.ambient", ref):
        if ref == "builtins.hash" and call.args and call.args[0].const and call.args[0].const[0] == "int":
            return NOTHING
        return Value(taints=frozenset({Taint("ambient", ref, frame.site(call.node))}))
    if tables.has("effects.listing", ref):
        return Value(kinds=frozenset({"list"}), taints=frozenset({Taint("unordered", ref, frame.site(call.node))}))
    return NOTHING


def _framework(frame: Calls, ref: str, call: Call) -> None:
    tables = frame.tables
    if tables.has("framework.accelerator", ref):
        frame.record("accelerator", ref, call.node)
    elif tables.decls.get(ref) == "framework" or (
        tables.has("framework.prefixes", ref)
        and not tables.has("framework.readers", ref)
        and ".__" not in ref
        and not ref.endswith(tuple(tables.sets["framework.reader_endings"]))
        and not tables.has("random.seeds", ref)
        and not tables.kinds(ref) & {"rng", "image-generator"}
        and tables.decls.get(ref) != "pure"
    ):
        frame.record("framework", ref, call.node)


def _side(frame: Calls, ref: str, call: Call) -> None:
    tables = frame.tables
    if tables.has("effects.parallel", ref):
        frame.record("parallel", ref, call.node)
    if tables.has("effects.output", ref) and call.kwargs.get("disable", NOTHING).const != ("bool", True):
        frame.record("output", ref, call.node)
    if ref in tables.maps["effects.writers"]:
        frame.record("file-write", ref, call.node, value=call.argument(tables.maps["effects.writers"][ref], "file"))
    if tables.has("effects.open_functions", ref):
        mode = call.argument(1, "mode").const
        if mode is not None and isinstance(mode[1], str) and set(mode[1]) & set("wax+"):
            frame.record("file-write", ref, call.node, value=call.argument(0, "file", "name", "filename"))


def _inplace(frame: Calls, ref: str, call: Call) -> None:
    positions = frame.tables.maps["effects.inplace"]
    if ref in positions and positions[ref] < len(call.args):
        target, node = call.args[positions[ref]], call.node.args[positions[ref]]
        frame.change(target, node, call.node, ref, join_all(*call.values))
        if ref.endswith(".shuffle"):
            frame.touch(node, frozenset({Taint("random", ref)}))
    if "out" in call.kwargs:
        node = next(k.value for k in call.node.keywords if k.arg == "out")
        frame.change(call.kwargs["out"], node, call.node, "out=", NOTHING)


def _take_items(frame: Calls, ref: str, call: Call) -> None:
    """What is given an iterator takes items out of it."""
    if ref.removeprefix("builtins.") in LEAVES_ITEMS or ref.startswith("copy."):
        return
    for value in call.args:
        if value.roots and value.kinds & {"generator", "iterator"}:
            frame.consume(value, "for", call.node)


def _next(frame: Calls, call: Call) -> Value:
    if not call.args:
        return NOTHING
    frame.consume(call.args[0], "next", call.node)
    item = frame.iterated(call.args[0], call.node)
    # A generator makes its items anew; only those of a new iterator over a container are parts of it.
    return item if "fresh" in call.args[0].kinds else item._replace(roots=frozenset())


def _iter(_frame: Calls, call: Call) -> Value:
    if not call.args:
        return NOTHING
    first = call.args[0]
    # An iterator is its own; of anything else it is a new one, whose position nobody else has.
    more = (
        {"generator"} if first.kinds & {"generator", "dataset"} else set() if "iterator" in first.kinds else {"fresh"}
    )
    return first._replace(kinds=(first.kinds - CONTAINERS) | {"iterator"} | more, const=None)


def _zip(frame: Calls, call: Call) -> Value:
    items = tuple(frame.iterated(value, call.node) for value in call.args)
    return Value(
        kinds=frozenset({"iterator", "zip", "fresh"}),
        taints=derived(*items).taints,
        roots=frozenset(root for value in call.args for root in value.roots),
        items=items if not call.spread else None,
    )


def _enumerate(frame: Calls, call: Call) -> Value:
    if not call.args:
        return NOTHING
    return _zip(frame, call._replace(args=(NOTHING, call.args[0])))


def _collect(frame: Calls, call: Call) -> Value:
    """Make a list or tuple of what something gives."""
    if not call.args:
        return Value(kinds=frozenset({"list"}))
    first = call.args[0]
    _take_items(frame, "builtins.list", call)
    kinds = first.kinds - CONTAINERS - {"generator", "iterator", "zip", "fresh", "view", "weak", "array", "scalar"}
    if "large" in kinds and "range" in kinds:
        kinds |= {"large-literal"}
    if not first.kinds & CONTAINERS:
        # The lines of a file are no file.
        kinds -= OPENED
    kind = "list" if len(call.args) == 1 else "bad-tuple"
    taints = frame.iterated(first, call.node).taints
    items = first.items if first.kinds & {"list", "tuple"} else None
    return first._replace(roots=frozenset(), kinds=kinds | {kind, "tuple"}, taints=taints, const=None, items=items)


def _getattr(frame: Calls, call: Call) -> Value:
    if len(call.args) < 2:
        return NOTHING
    name = call.args[1].const
    if name is None or not isinstance(name[1], str):
        return derived(*call.args)
    value = frame.read(call.args[0], name[1])
    return join(value, call.args[2]) if len(call.args) > 2 else value


def _setattr(frame: Calls, call: Call) -> Value:
    if len(call.args) != 3:
        return NOTHING
    name = call.args[1].const
    attr = name[1] if name is not None and isinstance(name[1], str) else "*"
    roots = [deeper(root, attr) for root in call.args[0].roots]
    frame.write(roots, "setattr", call.node, call.args[2], "rebind")
    return NOTHING


def _type(_frame: Calls, call: Call) -> Value:
    if len(call.args) == 1:
        return Value(classes=call.args[0].instances)
    return NOTHING


def _partial(_frame: Calls, call: Call) -> Value:
    if not call.args:
        return NOTHING
    first = call.args[0]
    funcs = frozenset(Bound(b.function, b.receiver, (*b.args, *call.args[1:])) for b in first.funcs)
    return first._replace(funcs=funcs, roots=frozenset(), kinds=first.kinds & {"lambda", "local-function"})


def _vars(_frame: Calls, call: Call) -> Value:
    roots = frozenset(deeper(root, "__dict__") for root in call.args[0].roots) if call.args else frozenset()
    return Value(roots=roots, kinds=frozenset({"dict"}))


def _sorted(frame: Calls, call: Call) -> Value:
    frame.hand_over(call, followed=True, text="sorted")
    taints = frozenset(taint for taint in derived(*call.values).taints if taint.kind != "unordered")
    first = call.args[0] if call.args else NOTHING
    return first._replace(kinds=frozenset({"list"}), taints=taints, roots=frozenset(), const=None, items=None)


def _map(frame: Calls, call: Call) -> Value:
    values = tuple(frame.iterated(value, call.node) for value in call.args[1:])
    frame.loops += 1
    result = frame.apply_value(call.args[0], call._replace(args=values, kwargs={})) if call.args else NOTHING
    frame.loops -= 1
    return Value(
        kinds=frozenset({"iterator", "generator"}) | result.kinds, taints=result.taints | derived(*values).taints
    )


def _map_structure(frame: Calls, call: Call) -> Value:
    """Call a function with the leaves of structures, which it gives back as one."""
    if not call.args:
        return NOTHING
    leaves = tuple(frame.iterated(value, call.node) for value in call.args[1:])
    result = frame.apply_value(call.args[0], call._replace(args=leaves, kwargs={}))
    return derived(result, *leaves)


def _range(frame: Calls, call: Call) -> Value:
    if len(call.node.args) == 2:
        lower, upper = call.node.args
        frame.window(lower, upper, call.node)
    bounds = [value.const[1] for value in call.args if value.const]
    large = any(isinstance(bound, int) and bound >= 1_000_000 for bound in bounds)
    taints = derived(*call.args).taints
    return Value(kinds=frozenset({"range", "large"} if large else {"range"}), taints=taints)


def _context(_frame: Calls, _call: Call) -> Value:
    return Value(refs=frozenset({"multiprocessing"}))


def _globals(frame: Calls, _call: Call) -> Value:
    return Value(roots=frozenset({Root("global", f"{frame.module.name}.globals()")}), kinds=frozenset({"globals"}))


def _cast(_frame: Calls, call: Call) -> Value:
    return call.args[1] if len(call.args) > 1 else NOTHING


def _same(_frame: Calls, call: Call) -> Value:
    return call.args[0] if call.args else NOTHING


SPECIAL: dict[str, Callable[[Calls, Call], Value]] = {
    "builtins.next": _next,
    "builtins.iter": _iter,
    "builtins.zip": _zip,
    "builtins.enumerate": _enumerate,
    "builtins.list": _collect,
    "builtins.tuple": _collect,
    "builtins.getattr": _getattr,
    "builtins.setattr": _setattr,
    "builtins.type": _type,
    "builtins.vars": _vars,
    "builtins.globals": _globals,
    "builtins.sorted": _sorted,
    "builtins.map": _map,
    "builtins.filter": _map,
    "builtins.range": _range,
    "keras.tree.map_structure": _map_structure,
    "tensorflow.nest.map_structure": _map_structure,
    "tree.map_structure": _map_structure,
    "optree.tree_map": _map_structure,
    "jax.tree.map": _map_structure,
    "jax.tree_util.tree_map": _map_structure,
    "functools.partial": _partial,
    "functools.partialmethod": _partial,
    "multiprocessing.get_context": _context,
    "contextlib.closing": _same,
    "contextlib.nullcontext": _same,
    "typing.cast": _cast,
}
"""Functions that need more than a row in a table."""

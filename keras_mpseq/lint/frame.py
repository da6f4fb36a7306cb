"""One function being followed: its variables, and what it was seen to do."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keras_mpseq.lint.model import Class, Function, Module
from keras_mpseq.lint.summary import Effect, Hop, Summary, through
from keras_mpseq.lint.values import (
    NONE,
    NOTHING,
    Bound,
    Root,
    Site,
    Taint,
    Value,
    deeper,
    join,
    join_all,
    roots_of,
    substitute,
)

if TYPE_CHECKING:
    from keras_mpseq.lint.analysis import Analysis, Locals
    from keras_mpseq.lint.tables import Tables

Key = str | Root
MOST_EFFECTS = 500
"""Of one function; more say nothing new, and grow with every caller."""
MOST_HOPS = 12


class Frame:
    """State of the function that is followed; the classes above it follow expressions, calls and statements."""

    def __init__(self, analysis: Analysis, function: Function, binding: dict[str, Value]) -> None:
        """Begin with parameters, of which the caller may know something."""
        self.analysis = analysis
        self.function = function
        self.module: Module = function.module
        self.tables: Tables = analysis.project.tables
        self.locals: Locals = analysis.locals_of(function)
        self.free: dict[str, str] = analysis.free_of(function)
        self.env: dict[Key, Value] = {}
        self.effects: dict[tuple[object, ...], Effect] = {}
        self.memo: list[frozenset[Root] | None] = []
        """Roots that are known to be missing here; None stands for all."""
        self.stores: dict[int, dict[frozenset[str], int]] = {}
        """Attributes that each block was seen to store; see guards."""
        self.loops = 0
        self.in_finally = 0
        self.orders: list[frozenset[Taint]] = []
        """What the order of each loop around depends on."""
        self.reads: set[Root] = set()
        self.exposed: set[Root] = set()
        self.escapes: set[Root] = set()
        self.unresolved: dict[Site, str] = {}
        self.reached: dict[Function, tuple[Hop, ...]] = {function: ()} if function.name != "<module>" else {}
        self.exits: list[tuple[Site, Value]] = []
        self.falls_off = False
        """Its end is reached, which returns None."""
        self.yields = NOTHING
        self.jumps: list[list[dict[Key, Value]]] = []
        """Variables at each break and continue, for each loop around."""
        self.ends: list[dict[Key, Value]] = []
        """Variables at each return."""
        self.binding = binding
        for name in analysis.parameters_of(function):
            known = binding.get(name)
            value = _parameter(name)
            if known is not None:
                value = known._replace(roots=value.roots, taints=frozenset() if known.instances else value.taints)
            self.env[name] = value

    def eval(self, node: ast.expr) -> Value:
        """Follow an expression."""
        raise NotImplementedError

    def site(self, node: ast.AST) -> Site:
        """Return where a node of this function stands."""
        return self.module.site(node, self.function.qualname)

    def record(
        self,
        kind: str,
        detail: str,
        node: ast.AST,
        root: Root | None = None,
        value: Value = NOTHING,
        flags: Iterable[str] = (),
    ) -> None:
        """Remember an effect of this function itself."""
        self._enter(Effect(kind, detail, self.site(node), root, value, frozenset(flags)))

    def _enter(self, effect: Effect) -> None:
        flags = set(effect.flags)
        if self.loops:
            flags.add("loop")
        if self.in_finally:
            flags.add("finally")
        # What takes something away fills no gap.
        if effect.root is not None and "del" not in flags and self.is_memo(effect.root):
            flags.add("memo")
        key = (effect.kind, effect.detail, effect.site, effect.root, "memo" in flags)
        if key not in self.effects and len(self.effects) < MOST_EFFECTS:
            self.effects[key] = effect._replace(flags=frozenset(flags))

    def is_memo(self, root: Root) -> bool:
        """Tell whether a write to the root happens only where nothing was yet."""
        return any(guard is None or root in guard for guard in self.memo)

    def write(self, roots: Iterable[Root], detail: str, node: ast.AST, value: Value, *flags: str) -> None:
        """Remember a write to each of the roots."""
        for root in roots:
            mine = {"scratch"} if root in self.env and "rebind" not in flags else set()
            self.record("write", detail, node, root, value, {*flags, *mine})

    def call_summary(self, summary: Summary, arguments: dict[str, Value], node: ast.AST) -> Value:
        """Take over what a callee does, said in terms of this function, and return what it returns."""
        hop = through(self.site(node))
        for effect in summary.effects:
            if len(effect.chain) < MOST_HOPS:
                self._take_over(effect, arguments, (hop, *effect.chain))
        self.reads |= roots_of(summary.reads, arguments)
        self.exposed |= {root for root in roots_of(summary.exposed, arguments) if root not in self.env}
        self.escapes |= roots_of(summary.escapes, arguments)
        for root, value in summary.defined.items():
            for own in roots_of({root}, arguments):
                self.env[own] = substitute(value, arguments)
        for site, text in summary.unresolved:
            self.unresolved.setdefault(site, text)
        for reached, chain in summary.reached.items():
            if reached not in self.reached and len(chain) < MOST_HOPS:
                self.reached[reached] = (hop, *chain)
        return substitute(summary.returns, arguments)

    def _take_over(self, effect: Effect, arguments: dict[str, Value], chain: tuple[Hop, ...]) -> None:
        taken = effect._replace(value=substitute(effect.value, arguments), chain=chain)
        if effect.root is None:
            self._enter(taken)
            return
        if effect.root.kind == "cell":
            # Rebinding a variable of this very call concerns nobody else.
            if not effect.root.name.startswith(self.analysis.key_of(self.function)):
                self._enter(taken)
            return
        if effect.kind == "write" and effect.root.kind == "param" and not effect.root.attr:
            flags = self._flags_of(effect, arguments.get(effect.root.name, NOTHING))
            if flags is None:
                return
            taken = taken._replace(flags=flags)
        for root in roots_of({effect.root}, arguments):
            scratch = {"scratch"} if root in self.env and "rebind" not in taken.flags else set()
            self._enter(taken._replace(root=root, flags=taken.flags | scratch))

    def _flags_of(self, effect: Effect, argument: Value) -> frozenset[str] | None:
        """Return how a write to a parameter reaches what was passed; None if it does not, as with a copy."""
        flags = effect.flags
        if "weak" in argument.kinds and effect.detail not in self.tables.sets["effects.mutators"]:
            return None
        if "maybe" in flags and argument.kinds & {"view", "array", "list", "set"}:
            flags -= {"maybe"}
        if "maybe" in flags and not any(root.kind == "param" for root in argument.roots):
            return None
        return flags | {"alias", "view"} if "view" in argument.kinds else flags

    def load(self, name: str) -> Value:
        """Return what a name stands for here."""
        if name in self.env:
            return self.env[name]
        if name in self.locals.names:
            return NOTHING
        if name in self.free:
            key = self.free[name]
            known = self.binding.get(key, NOTHING)
            taints = frozenset() if known.instances else frozenset({Taint("free", key)})
            return known._replace(roots=frozenset({Root("free", key)}), taints=taints)
        return self.analysis.project.name_in(self.function.inner, name)

    def read(self, base: Value, attr: str, *, quiet: bool = False) -> Value:
        """Return what an attribute stands for, without running properties; *quiet* if it is no use of its value."""
        values = [self.analysis.project.attribute(base, attr)] if base.refs else []
        values += [self._of_class(cls, attr, base) for cls in base.classes]
        plain = not base.instances
        for cls in base.instances:
            found = self.analysis.of_instance(cls, attr, base)
            plain = plain or found.is_member
            values.append(found.value)
        result = join_all(*values)
        if not plain:
            return result
        for root in base.roots:
            inner = deeper(root, attr)
            if inner in self.env and not root.attr:
                # Assigned in this very call: what it holds is ours, and no earlier call shows through.
                self.reads.add(inner)
                mine = self.env[inner]
                result = mine._replace(roots=mine.roots | {inner}, kinds=mine.kinds | {"scratch"})
                continue
            if not quiet:
                self.reads.add(inner)
                self.exposed.add(inner)
            result = result._replace(roots=result.roots | {inner})
        if base.instances or not base.taints:
            return result
        return result._replace(taints=result.taints | base.taints)

    def _of_class(self, cls: Class, attr: str, base: Value) -> Value:
        if attr in ("__name__", "__qualname__", "__module__", "__doc__"):
            return NOTHING
        method = self.analysis.hierarchy.method(cls, attr)
        if method is not None:
            receiver = base if method.is_classmethod else None
            return Value(funcs=frozenset({Bound(method, receiver)}))
        found = self.analysis.hierarchy.body(cls, attr)
        owner = found[0] if found else cls
        value = self.analysis.class_value(owner, attr) if found else NOTHING
        return value._replace(roots=value.roots | {Root("class", owner.qualname, attr)}, const=None)

    def summary(self) -> Summary:
        """Return what was seen."""
        returns = NONE if self.falls_off else NOTHING
        for position, (_, value) in enumerate(self.exits):
            returns = value if position == 0 and not self.falls_off else join(returns, value)
        if self.function.generator:
            returns = self.yields._replace(kinds=self.yields.kinds | {"generator"}, const=None, items=None)
        return Summary(
            effects=list(self.effects.values()),
            returns=returns,
            exits=self.exits,
            reads=frozenset(self.reads),
            exposed=frozenset(self.exposed),
            defined={} if self.function.generator else self._defined(),
            escapes=frozenset(self.escapes),
            unresolved=list(self.unresolved.items()),
            reached=dict(self.reached),
        )

    def _defined(self) -> dict[Root, Value]:
        ends = self.ends or [self.env]
        result = {key: value for key, value in ends[0].items() if isinstance(key, Root)}
        for env in ends[1:]:
            result = {key: join(value, env[key]) for key, value in result.items() if key in env}
        return result


@functools.lru_cache(maxsize=4096)
def _parameter(name: str) -> Value:
    """Return a parameter of which nothing is known."""
    return Value(roots=frozenset({Root("param", name)}), taints=frozenset({Taint("param", name)}))


def join_env(first: dict[Key, Value], second: dict[Key, Value]) -> dict[Key, Value]:
    """Return the variables after two branches: names of either, assigned attributes of both only."""
    if first is second:
        return first
    result: dict[Key, Value] = {}
    for key, value in first.items():
        other = second.get(key)
        if other is not None:
            result[key] = value if other is value else join(value, other)
        elif isinstance(key, str):
            result[key] = value
    for key, value in second.items():
        if key not in first and isinstance(key, str):
            result[key] = value
    return result

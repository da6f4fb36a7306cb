"""A sequence class seen whole: what runs in workers, what runs in the training process, and what each does.

The worker zone is what `__getitem__` gets to, and `__iter__` where it is overridden. The parent zone is `__init__`,
the epoch hooks and every other method that no batch needs. What `on_worker_start` and `__setstate__` do belongs to
the worker it is done in, and is no hazard.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.members import Members
from keras_mpseq.lint.model import Class, Function
from keras_mpseq.lint.summary import Effect, Hop, Summary
from keras_mpseq.lint.tables import Tables
from keras_mpseq.lint.values import Root, Site, Taint, Value

WORKER_ENTRIES = ("__getitem__", "__iter__", "_get_batches_of_transformed_samples")
"""The last is what `__getitem__` of Keras's image iterators calls."""


class View:
    """One sequence class and its zones."""

    def __init__(self, analysis: Analysis, cls: Class) -> None:
        """Follow everything that the class does."""
        self.analysis = analysis
        self.cls = cls
        self.tables: Tables = analysis.project.tables
        self.members: Members = analysis.members(cls)
        self.getitem: Function | None = analysis.hierarchy.method(cls, "__getitem__")
        self.length: Function | None = analysis.hierarchy.method(cls, "__len__")
        self.worker: list[Effect] = []
        self.reached: dict[Function, tuple[Hop, ...]] = {}
        self.worker_reads: set[str] = set()
        self.exposed: set[str] = set()
        self.escapes: bool = False
        self.unresolved: list[tuple[Site, str]] = []
        self.batches: list[tuple[Site, Value, tuple[Hop, ...]]] = []
        """What `__getitem__` returns, and where."""
        for name in WORKER_ENTRIES:
            method = analysis.hierarchy.method(cls, name)
            if method is not None:
                self._enter_worker(method)
        self.hooks: set[str] = self._hook_attributes()
        self.parent: list[tuple[Function, Effect]] = []
        self.parent_reads: dict[str, set[str]] = {}
        for method in self._parent_methods():
            self._enter_parent(method)
        self.dropped: frozenset[str]
        self.only: frozenset[str] | None
        self.dropped, self.only = dropped_by_getstate(analysis.hierarchy.method(cls, "__getstate__"))

    def summary(self, method: Function) -> tuple[Summary, str]:
        """Return what a method does for an instance of this class, and the name of its receiver."""
        receiver = method.params[0] if method.params and not method.is_static else ""
        mine = frozenset({self.cls})
        known = Value(classes=mine) if method.is_classmethod else Value(instances=mine)
        found = self.analysis.summarize(method, {receiver: known} if receiver else {})
        return found or Summary(), receiver

    def _enter_worker(self, method: Function) -> None:
        summary, receiver = self.summary(method)
        seen = {(e.kind, e.detail, e.site, e.root) for e in self.worker}
        for effect in own_effects(summary, receiver):
            if (effect.kind, effect.detail, effect.site, effect.root) not in seen:
                self.worker.append(effect)
        for reached, chain in summary.reached.items():
            self.reached.setdefault(reached, chain)
        self.worker_reads |= attributes(summary.reads, receiver)
        self.exposed |= attributes(summary.exposed, receiver)
        self.escapes |= any(root.name == receiver and not root.attr for root in summary.escapes)
        self.unresolved += summary.unresolved
        if method is self.getitem:
            self.batches = [(site, value, ()) for site, value in summary.exits]

    def _hook_attributes(self) -> set[str]:
        """Return what belongs to the worker, because a hook that runs there sets it."""
        names: set[str] = set()
        for hook in self.tables.sets["sequence.worker_hooks"]:
            method = self.analysis.hierarchy.method(self.cls, hook)
            if method is not None and hook != "__del__":
                names |= {e.root.attr for e in own_effects(*self.summary(method)) if e.kind == "write" and e.root}
        return names

    def _parent_methods(self) -> Iterator[Function]:
        hierarchy = self.analysis.hierarchy
        methods = sorted(hierarchy.methods(self.cls).items())
        skipped = {"__getstate__", "__reduce__", "__next__", *WORKER_ENTRIES}
        skipped |= self.tables.sets["sequence.worker_hooks"]
        for first in (True, False):
            # What construction does is told first, so that its chain is the one that is shown.
            for name, method in methods:
                early = name == "__init__"
                if early is not first or name in skipped or method.is_per_worker:
                    continue
                if method not in self.reached or name == "__len__":
                    yield method

    def _enter_parent(self, method: Function) -> None:
        summary, receiver = self.summary(method)
        self.parent += [(method, effect) for effect in own_effects(summary, receiver)]
        for attr in attributes(summary.reads, receiver):
            self.parent_reads.setdefault(attr, set()).add(method.name)

    @property
    def is_safe(self) -> bool:
        """Whether our workers, which seed the global generators for each batch, are the only ones to build it."""
        return self.analysis.hierarchy.is_own(self.cls)

    @property
    def index(self) -> str:
        """The name of the index that `__getitem__` takes."""
        return self.analysis.index_name(self.getitem) if self.getitem else ""

    def depends_on_index(self, value: Value) -> bool:
        """Tell whether a value of the worker zone depends on the index."""
        return Taint("param", self.index) in value.taints

    def is_dropped(self, attr: str) -> bool:
        """Tell whether pickling leaves an attribute behind."""
        return attr in self.dropped if self.only is None else attr not in self.only

    def kinds(self, attr: str) -> frozenset[str]:
        """Return what a member may be."""
        value = self.members.values.get(attr)
        return value.kinds if value is not None else frozenset()

    def in_class_body(self, attr: str) -> Class | None:
        """Return the class whose body holds an attribute that no method ever binds on the instance."""
        if attr in self.members.values and any(
            "rebind" in e.flags for _, e in self.parent if e.kind == "write" and e.root and e.root.attr == attr
        ):
            return None
        found = self.analysis.hierarchy.body(self.cls, attr)
        return found[0] if found else None


def own_effects(summary: Summary, receiver: str) -> Iterator[Effect]:
    """Yield the effects with the receiver as root kind `self`."""
    for effect in summary.effects:
        root = effect.root
        if root is not None and root.kind == "param" and root.name == receiver:
            yield effect._replace(root=Root("self", "", root.attr))
        else:
            yield effect


def attributes(roots: frozenset[Root], receiver: str) -> set[str]:
    """Return the attributes of the receiver among some roots."""
    return {root.attr for root in roots if root.kind == "param" and root.name == receiver and root.attr}


def dropped_by_getstate(method: Function | None) -> tuple[frozenset[str], frozenset[str] | None]:
    """Return which attributes `__getstate__` leaves out, or the only ones that it keeps.

    Returns:
        Names that it removes or sets to None; and None, or the keys of the dictionary that it writes out.
    """
    if method is None:
        return frozenset(), None
    dropped: set[str] = set()
    only: set[str] | None = None
    for node in ast.walk(method.node):
        match node:
            case ast.Call(func=ast.Attribute(attr="pop"), args=[ast.Constant(value=str(name)), *_]):
                dropped.add(name)
            case ast.Delete(targets=targets):
                dropped.update(name for target in targets for name in _key(target))
            case ast.Assign(targets=[ast.Subscript() as target]):
                dropped.update(_key(target))
            case ast.Compare(comparators=[ast.Tuple() | ast.List() | ast.Set() as names]):
                dropped.update(str(part.value) for part in names.elts if isinstance(part, ast.Constant))
            case ast.Return(value=ast.Dict(keys=[_, *_] as keys)) if None not in keys:
                only = {str(key.value) for key in keys if isinstance(key, ast.Constant)}
            case ast.Dict(keys=keys):
                dropped.update(str(key.value) for key in keys if isinstance(key, ast.Constant))
    # `for name in ("a", "b"): state.pop(name)` names them in the loop.
    for node in ast.walk(method.node):
        if isinstance(node, ast.For) and isinstance(node.iter, (ast.Tuple, ast.List)):
            dropped.update(str(part.value) for part in node.iter.elts if isinstance(part, ast.Constant))
    return frozenset(dropped), None if only is None else frozenset(only)


def _key(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        yield str(target.slice.value)

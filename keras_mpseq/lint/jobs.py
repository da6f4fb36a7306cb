"""Functions that our workers run and that no sequence has: of `process_map`, `generator_dataset` and `transform=`.

Each is followed like a `__getitem__`, with what it is given in the place of the index. Of an object with `__call__`, or
of a bound method, what it writes to its receiver counts as what a sequence writes to itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.members import Members
from keras_mpseq.lint.model import Class, Function, Module, Scope, dotted_of
from keras_mpseq.lint.statements import Statements
from keras_mpseq.lint.summary import Effect, Hop, Summary
from keras_mpseq.lint.tables import Tables
from keras_mpseq.lint.values import NOTHING, Bound, Site, Value
from keras_mpseq.lint.zones import View

_PLACES = {
    "process_map": (1, "fn"),
    "mapping.process_map": (1, "fn"),
    "generator_dataset": (0, "fn"),
    "interleaving.generator_dataset": (0, "fn"),
    "BatchedSequence": (None, "transform"),
    "batched.BatchedSequence": (None, "transform"),
}
"""Where they take the function: its position, if it has one, and its name."""
_OURS = {f"keras_mpseq.{name}": place for name, place in _PLACES.items()}
_MARKS = ("process_map", "generator_dataset", "transform")


class JobView(View):
    """One such function, and what it does."""

    def __init__(self, analysis: Analysis, bound: Bound) -> None:
        """Follow everything that the function does."""
        function, receiver = bound.function, bound.receiver
        owner = next(iter(sorted(receiver.instances, key=lambda c: c.qualname)), None) if receiver else None
        self.analysis = analysis
        self.tables: Tables = analysis.project.tables
        self.cls: Class = owner or Class(function.qualname, _statement(function), function.scope)
        self.members: Members = analysis.members(owner) if owner else Members()
        self.getitem: Function | None = None
        self.length: Function | None = None
        self.worker: list[Effect] = []
        self.reached: dict[Function, tuple[Hop, ...]] = {}
        self.worker_reads: set[str] = set()
        self.exposed: set[str] = set()
        self.hooks: set[str] = set()
        self.escapes: bool = False
        self.unresolved: list[tuple[Site, str]] = []
        self.batches: list[tuple[Site, Value, tuple[Hop, ...]]] = []
        self.parent: list[tuple[Function, Effect]] = []
        self.parent_reads: dict[str, set[str]] = {}
        self.dropped: frozenset[str] = frozenset()
        self.only: frozenset[str] | None = None
        self.job = function
        self._enter_worker(function)

    @property
    def is_safe(self) -> bool:
        """Our workers seed the global generators before each call."""
        return True

    def summary(self, method: Function) -> tuple[Summary, str]:
        """Return what the function does, and the name of its receiver."""
        if method.owner is None:
            return self.analysis.summarize(method, {}) or Summary(), ""
        return super().summary(method)

    def depends_on_index(self, value: Value) -> bool:
        """Tell whether a value depends on what the function is given."""
        return any(taint.kind == "param" for taint in value.taints)


def jobs(module: Module, analysis: Analysis) -> Iterator[JobView]:
    """Yield the functions that a module gives to our workers, each once."""
    if "keras_mpseq" not in module.source or not any(mark in module.source for mark in _MARKS):
        return
    seen: set[tuple[Function, frozenset[Class]]] = set()
    for scope, node in _calls(module):
        for argument in _given(node, scope, analysis):
            for bound in sorted(_functions(argument, scope, analysis).funcs, key=lambda b: b.function.qualname):
                key = bound.function, bound.receiver.instances if bound.receiver else frozenset()
                if key not in seen:
                    seen.add(key)
                    yield JobView(analysis, bound)


def _calls(module: Module) -> Iterator[tuple[Scope, ast.Call]]:
    """Yield each call with the scope it stands in."""
    waiting: list[tuple[Scope, ast.AST, Class | None]] = [(module.scope, module.tree, None)]
    while waiting:
        scope, node, owner = waiting.pop()
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    known = owner.methods if owner else scope.functions
                    function = known.get(child.name)
                    inner = function.inner if function is not None and function.node is child else scope
                    waiting.append((inner, child, None))
                case ast.ClassDef():
                    waiting.append((scope, child, scope.classes.get(child.name)))
                case _:
                    if isinstance(child, ast.Call):
                        yield scope, child
                    waiting.append((scope, child, owner))


def _given(node: ast.Call, scope: Scope, analysis: Analysis) -> Iterator[ast.expr]:
    """Yield the expression of the function that a call of ours is given."""
    for position, keyword in _places(node, scope, analysis):
        found = [given.value for given in node.keywords if given.arg == keyword]
        if not found and position is not None and len(node.args) > position:
            found = [node.args[position]]
        yield from found


def _places(node: ast.Call, scope: Scope, analysis: Analysis) -> Iterator[tuple[int | None, str]]:
    owner = scope.function.owner if scope.function is not None else None
    if isinstance(node.func, ast.Attribute) and node.func.attr == "__init__" and owner is not None:
        called = Value(classes=frozenset({owner}))
    else:
        head, _, rest = dotted_of(node).partition(".")
        called = analysis.project.name_in(scope, head) if head else NOTHING
        called = called._replace(refs=frozenset(f"{ref}.{rest}" if rest else ref for ref in called.refs))
    outside = {ref for cls in called.classes for ref in analysis.hierarchy.outside(cls)}
    yield from {_OURS[name] for name in (called.refs | outside) & _OURS.keys()}


def _functions(node: ast.expr, scope: Scope, analysis: Analysis) -> Value:
    """Return what functions of the project an expression stands for; an object stands for its `__call__`."""
    around = scope.function
    if isinstance(node, ast.Name) and around is not None and not isinstance(around.node, ast.Lambda):
        node = around.sole_value(node.id) or node
    frame = Statements(analysis, around or analysis.module_function(scope.module, node), _receiver(around))
    try:
        value = frame.eval(node)
    except RecursionError:
        return NOTHING
    called = [analysis.hierarchy.method(cls, "__call__") for cls in value.instances]
    bound = {Bound(method, Value(instances=value.instances)) for method in called if method is not None}
    return Value(funcs=value.funcs | bound)


def _receiver(function: Function | None) -> dict[str, Value]:
    if function is None or function.owner is None or not function.params or function.is_static:
        return {}
    return {function.params[0]: Value(instances=frozenset({function.owner}))}


def _statement(function: Function) -> ast.ClassDef:
    """Return the statement of a class that has nothing but this function."""
    node = ast.ClassDef(name=function.name, bases=[], keywords=[], body=[], decorator_list=[])
    return ast.copy_location(node, function.node)

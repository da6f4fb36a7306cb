"""Modules, scopes, classes and functions as they are written, before anything is worked out about them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keras_mpseq.lint.nodes import by_kind, own_nodes
from keras_mpseq.lint.values import Site

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
Node = TypeVar("Node", bound=ast.AST)


@dataclass(eq=False, slots=True)
class Scope:
    """The names that a module or a function binds by statements that need no evaluation."""

    module: Module
    parent: Scope | None = None
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    imports: dict[str, list[str]] = field(default_factory=dict)
    """Full names, more than one after try/except; of a relative import already absolute."""
    stars: list[str] = field(default_factory=list)
    assigned: dict[str, list[ast.expr]] = field(default_factory=dict)
    function: Function | None = None


@dataclass(eq=False, slots=True)
class Module:
    """A parsed file."""

    path: str
    """As findings show it."""
    name: str
    is_package: bool
    tree: ast.Module
    source: str
    scope: Scope = field(init=False)
    all_classes: list[Class] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Collect the names of all scopes."""
        self.scope = Scope(self)
        Collector(self).collect(self.tree.body, self.scope, None)

    def site(self, node: ast.AST, function: str = "") -> Site:
        """Return where a node stands."""
        line = getattr(node, "lineno", 1)
        column = getattr(node, "col_offset", 0) + 1
        return Site(
            self.path,
            line,
            column,
            getattr(node, "end_lineno", None) or line,
            (getattr(node, "end_col_offset", None) or column) + 1,
            function,
        )


@dataclass(eq=False, slots=True)
class Class:
    """A class statement."""

    name: str
    node: ast.ClassDef
    scope: Scope
    """Where it is defined."""
    methods: dict[str, Function] = field(default_factory=dict)
    setters: dict[str, Function] = field(default_factory=dict)
    body: dict[str, ast.expr] = field(default_factory=dict)
    """Attributes that the class body assigns."""

    @property
    def module(self) -> Module:
        """The module that defines it."""
        return self.scope.module

    @property
    def qualname(self) -> str:
        """Its full name, unique in the project."""
        return f"{self.module.name}.{self.name}"


@dataclass(eq=False, slots=True)
class Function:
    """A function, method or lambda."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    """Where it is defined."""
    owner: Class | None = None
    decorators: tuple[str, ...] = ()
    inner: Scope = field(init=False)
    params: list[str] = field(init=False)
    _nodes: list[ast.AST] | None = None
    _by_kind: dict[type[ast.AST], list[Any]] | None = None
    _bound: dict[str, list[ast.expr | None]] | None = None

    def __post_init__(self) -> None:
        """List its parameters by position, then those by keyword only."""
        arguments = self.node.args
        self.params = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        self.inner = Scope(self.scope.module, self.scope, function=self)

    @property
    def module(self) -> Module:
        """The module that defines it."""
        return self.scope.module

    @property
    def qualname(self) -> str:
        """Its name with that of its class, as chains show it."""
        return f"{self.owner.name}.{self.name}" if self.owner else self.name

    @property
    def generator(self) -> bool:
        """Whether calling it gives a generator."""
        return bool(self.of(ast.Yield) or self.of(ast.YieldFrom))

    @property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its body, without those of functions and classes inside; listed once, for many look at them."""
        if self._nodes is None:
            self._nodes = own_nodes(self.node)
        return self._nodes

    def of(self, kind: type[Node]) -> list[Node]:
        """Return the nodes of its body that are of one kind; sorted once, so that nobody looks at all of them."""
        if self._by_kind is None:
            self._by_kind = by_kind(self.nodes)
        return self._by_kind.get(kind, [])

    @property
    def is_static(self) -> bool:
        """Whether it has no receiver."""
        return "staticmethod" in self.decorators

    @property
    def is_classmethod(self) -> bool:
        """Whether its receiver is the class."""
        return "classmethod" in self.decorators

    @property
    def is_property(self) -> bool:
        """Whether reading the attribute calls it."""
        return any(
            name.rpartition(".")[2] in ("property", "cached_property", "abstractproperty", "lazy_property")
            for name in self.decorators
        )

    @property
    def is_per_worker(self) -> bool:
        """Whether it builds a resource that belongs to the process."""
        return any(name.rpartition(".")[2] == "per_worker" for name in self.decorators)

    @property
    def is_context_manager(self) -> bool:
        """Whether what it yields is what a `with` statement binds."""
        return any(name.rpartition(".")[2] in ("contextmanager", "asynccontextmanager") for name in self.decorators)

    def sole_value(self, name: str) -> ast.expr | None:
        """Return what a variable stands for that is bound once; None if that is not written out."""
        if self._bound is None:
            self._bound = self._bindings()
        values = self._bound.get(name, [])
        return values[0] if len(values) == 1 and name not in self.params else None

    def _bindings(self) -> dict[str, list[ast.expr | None]]:
        """Return for each variable what it is bound to, once for each time; None where that is not written out."""
        written: dict[ast.expr, ast.expr] = {}
        for node in self.of(ast.Assign):
            match node:
                case ast.Assign(targets=[ast.Name() as target], value=value):
                    written[target] = value
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                    written.update(zip(names, values, strict=False) if len(names) == len(values) else ())
        bound: dict[str, list[ast.expr | None]] = {}
        for name in self.of(ast.Name):
            if isinstance(name.ctx, ast.Store):
                bound.setdefault(name.id, []).append(written.get(name))
        return bound

    def keyword_names(self) -> list[str]:
        """Return all parameters that an argument may name."""
        return [*self.params, *(a.arg for a in self.node.args.kwonlyargs)]

    def defaults(self) -> dict[str, ast.expr]:
        """Return the default of each parameter that has one."""
        arguments = self.node.args
        found = dict(zip(reversed(self.params), reversed(arguments.defaults), strict=False))
        for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if default is not None:
                found[name.arg] = default
        return found

    @property
    def body(self) -> Sequence[ast.stmt]:
        """Its statements; of a lambda the return of its expression."""
        if isinstance(self.node, ast.Lambda):
            return [ast.copy_location(ast.Return(self.node.body), self.node.body)]
        return self.node.body


class Collector:
    """Fills the scopes of a module, statement by statement."""

    def __init__(self, module: Module) -> None:
        """Collect for one module."""
        self.module = module

    def collect(self, body: Sequence[ast.stmt], scope: Scope, owner: Class | None) -> None:
        """Enter what the statements of a block bind, and the blocks inside."""
        for statement in body:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._function(statement, scope, owner)
                case ast.ClassDef():
                    self._class(statement, scope)
                case ast.Import():
                    for alias in statement.names:
                        name = alias.asname or alias.name.partition(".")[0]
                        scope.imports.setdefault(name, []).append(alias.name if alias.asname else name)
                case ast.ImportFrom():
                    self._import_from(statement, scope)
                case ast.Assign():
                    for target in statement.targets:
                        self._assigned(target, statement.value, scope, owner)
                case ast.AnnAssign() if statement.value is not None:
                    self._assigned(statement.target, statement.value, scope, owner)
                case _:
                    for name in BLOCKS:
                        for part in getattr(statement, name, ()):
                            inside = [part] if isinstance(part, ast.stmt) else part.body
                            self.collect(inside, scope, owner)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, owner: Class | None) -> None:
        decorators = tuple(filter(None, map(dotted_of, node.decorator_list)))
        function = Function(node.name, node, scope, owner, decorators)
        if owner is None:
            scope.functions[node.name] = function
        elif any(name.endswith((".setter", ".deleter")) for name in decorators):
            if any(name.endswith(".setter") for name in decorators):
                owner.setters[node.name] = function
        else:
            owner.methods[node.name] = function
        self.collect(node.body, function.inner, None)

    def _class(self, node: ast.ClassDef, scope: Scope) -> None:
        found = Class(node.name, node, scope)
        scope.classes[node.name] = found
        self.module.all_classes.append(found)
        # A class body is no scope for the functions in it: their names are looked up around the class.
        self.collect(node.body, Scope(self.module, scope, function=scope.function), found)

    def _import_from(self, node: ast.ImportFrom, scope: Scope) -> None:
        base = node.module or ""
        if node.level:
            parts = self.module.name.split(".")
            keep = len(parts) - node.level + (1 if self.module.is_package else 0)
            base = ".".join([*parts[: max(keep, 0)], *([base] if base else [])])
        for alias in node.names:
            if alias.name == "*":
                scope.stars.append(base)
            else:
                scope.imports.setdefault(alias.asname or alias.name, []).append(f"{base}.{alias.name}")

    def _assigned(self, target: ast.expr, value: ast.expr, scope: Scope, owner: Class | None) -> None:
        match target:
            case ast.Name() if owner is not None:
                owner.body[target.id] = value
                self._alias(target.id, value, owner)
            case ast.Name():
                scope.assigned.setdefault(target.id, []).append(value)
            case ast.Tuple() | ast.List():
                values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
                for position, element in enumerate(target.elts):
                    same = len(values) == len(target.elts)
                    self._assigned(element, values[position] if same else value, scope, owner)

    @staticmethod
    def _alias(name: str, value: ast.expr, owner: Class) -> None:
        # `next = __next__` and `__call__ = forward` are methods under another name.
        if isinstance(value, ast.Name) and value.id in owner.methods:
            owner.methods[name] = owner.methods[value.id]


def dotted_of(node: ast.expr) -> str:
    """Return `a.b.c` as it is written, without a call around it; empty when it is no plain name."""
    if isinstance(node, ast.Call):
        node = node.func
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def is_empty(function: Function) -> bool:
    """Tell whether a function only stands for those that others write: a docstring, `pass`, `...`, or an error."""
    body = [s for s in function.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    until = next((position for position, s in enumerate(body) if isinstance(s, ast.Raise)), len(body))
    # What stands behind the error is never reached.
    return all(isinstance(statement, ast.Pass) for statement in body[:until])

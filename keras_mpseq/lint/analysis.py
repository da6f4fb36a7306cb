"""Summaries of functions, each worked out once for what its callers pass; bottom-up, since a call waits for its callee.

A function is followed anew for each class of its receiver, and for constants, functions and modules that it is
given, up to a limit. Recursion is followed twice: first as if the inner call did nothing, then with what was found.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.lint.contexts import reduced
from keras_mpseq.lint.hierarchy import Hierarchy
from keras_mpseq.lint.model import Class, Function, Module
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.statements import Statements
from keras_mpseq.lint.summary import Effect, Summary
from keras_mpseq.lint.values import NOTHING, Bound, Root, Value, join

DEEPEST = 24
"""Calls inside calls; what lies deeper is counted as not followed."""
MOST_CONTEXTS = 10
"""Ways in which one function of one class is followed before constants are no longer told apart."""
ARRAY_USES = frozenset({"shape", "ndim", "astype", "dtype", "reshape", "copy", "mean", "std", "max", "min", "sum", "T"})

Context = tuple[Function, frozenset[tuple[str, Value]]]


class Locals(NamedTuple):
    """The names that a function binds, and those it declares to be of others."""

    names: frozenset[str]
    globals: frozenset[str]
    nonlocals: frozenset[str]


class Found(NamedTuple):
    """What an attribute of an instance is; a member is data, kept on the instance."""

    value: Value
    is_member: bool


@dataclass(eq=False, slots=True)
class Members:
    """What the methods of a class were seen to store on `self`."""

    values: dict[str, Value] = field(default_factory=dict)
    stores: dict[str, int] = field(default_factory=dict)
    """How many statements store each."""
    in_init: set[str] = field(default_factory=set)


class Analysis:
    """Everything worked out about a project."""

    def __init__(self, project: Project, hierarchy: Hierarchy) -> None:
        """Begin with nothing worked out."""
        self.project = project
        self.hierarchy = hierarchy
        self.sequences: list[Class] = []
        """The sequence classes of the project."""
        self.too_deep: dict[Function, None] = {}
        """Functions whose statements are nested too deeply to be followed."""
        self.wrapped: dict[tuple[str, str], bool] = {}
        """Whether a class of the project has a method of that name with an argument of that name."""
        self._summaries: dict[Context, Summary] = {}
        self._made: list[Context] = []
        """The keys of the summaries, oldest first."""
        self._contexts: dict[tuple[Function, frozenset[Class]], int] = {}
        self._running: dict[Context, Summary] = {}
        self._recursive: set[Context] = set()
        self._members: dict[Class, Members] = {}
        self._locals: dict[Function, Locals] = {}
        self._free: dict[Function, dict[str, str]] = {}
        self._arrays: dict[Function, frozenset[str]] = {}
        self._lambdas: dict[ast.Lambda, Function] = {}
        self._globals: dict[tuple[str, str], Value] = {}
        project.global_value = self.global_value

    # Functions as they are written.

    def locals_of(self, function: Function) -> Locals:
        """Return the names that a function binds."""
        if function not in self._locals:
            names, outer, around = set(self.parameters_of(function)), set(), set()
            for node in function.nodes:
                match node:
                    case ast.Name(ctx=ast.Store()):
                        names.add(node.id)
                    case ast.Global():
                        outer.update(node.names)
                    case ast.Nonlocal():
                        around.update(node.names)
            self._locals[function] = Locals(frozenset(names - outer - around), frozenset(outer), frozenset(around))
        return self._locals[function]

    @staticmethod
    def parameters_of(function: Function) -> list[str]:
        """Return all parameters, also those that collect the rest."""
        arguments = function.node.args
        rest = [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
        return [*function.keyword_names(), *rest]

    @staticmethod
    def key_of(function: Function) -> str:
        """Return what the variables of a function are prefixed with, for functions inside it."""
        return f"{function.module.name}:{getattr(function.node, 'lineno', 0)}:{function.name}|"

    def free_of(self, function: Function) -> dict[str, str]:
        """Return the variables of functions around that a function uses: name to key."""
        if function not in self._free:
            self._free[function] = {}
            around = function.scope.function
            if around is not None:
                used = {node.id for node in ast.walk(function.node) if isinstance(node, ast.Name)}
                used |= self.locals_of(function).nonlocals
                used -= self.locals_of(function).names
                while around is not None:
                    own = used & self.locals_of(around).names
                    self._free[function].update({name: self.key_of(around) + name for name in own})
                    used -= own
                    around = around.scope.function
        return self._free[function]

    @staticmethod
    def is_receiver(key: str) -> bool:
        """Tell whether the key of a free variable is that of `self`."""
        return key.endswith(("|self", "|cls"))

    def arrays_of(self, function: Function) -> frozenset[str]:
        """Return the variables that a function treats as arrays: sliced, or asked for their shape."""
        if function not in self._arrays:
            names = set()
            for node in function.nodes:
                match node:
                    case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple() | ast.Slice()):
                        names.add(name)
                    case ast.Attribute(value=ast.Name(id=name), attr=attr) if attr in ARRAY_USES:
                        names.add(name)
            self._arrays[function] = frozenset(names)
        return self._arrays[function]

    def lambda_of(self, node: ast.Lambda, around: Function) -> Function:
        """Return the function of a lambda."""
        if node not in self._lambdas:
            self._lambdas[node] = Function("<lambda>", node, around.inner)
        return self._lambdas[node]

    @staticmethod
    def index_name(function: Function) -> str:
        """Return the name of the index in `__getitem__`; empty in other functions."""
        return function.params[1] if function.name == "__getitem__" and len(function.params) > 1 else ""

    # What functions do.

    def summarize(self, function: Function, arguments: dict[str, Value]) -> Summary | None:
        """Return what a function does when it is called like this; None when it is too far down."""
        context = self._context(function, arguments)
        known = self._summaries.get(context)
        if known is not None:
            return known
        if context in self._running:
            self._recursive.add(context)
            return self._running[context]
        if len(self._running) >= DEEPEST:
            return None
        family = self._family(function, arguments)
        self._contexts[family] = self._contexts.get(family, 0) + 1
        self._running[context] = Summary()
        try:
            summary = self._follow(context)
            if context in self._recursive:
                # Once more, with what was found standing for the inner calls.
                self._running[context] = summary
                summary = self._follow(context)
                self._recursive.discard(context)
        finally:
            del self._running[context]
        self._summaries[context] = summary
        self._made.append(context)
        return summary

    def _follow(self, context: Context) -> Summary:
        function, binding = context
        try:
            return Statements(self, function, dict(binding)).run()
        except RecursionError:
            self.too_deep[function] = None
            return Summary(reached={function: ()})

    @staticmethod
    def _family(function: Function, arguments: dict[str, Value]) -> tuple[Function, frozenset[Class]]:
        """Return the function and whose it is, so that many classes do not make constants unknown to each."""
        first = arguments.get(function.params[0], NOTHING) if function.params else NOTHING
        return function, first.instances

    def _context(self, function: Function, arguments: dict[str, Value]) -> Context:
        detailed = self._contexts.get(self._family(function, arguments), 0) < MOST_CONTEXTS
        found = []
        for name, value in arguments.items():
            known = reduced(name, value, detailed)
            if known is not NOTHING:
                found.append((name, known))
        return function, frozenset(found)

    # What instances and modules hold.

    def members(self, cls: Class) -> Members:
        """Return what the methods of a class store on `self`."""
        if cls not in self._members:
            self._members[cls] = Members()
            before = len(self._made)
            init = self.hierarchy.method(cls, "__init__")
            others = [method for method in self._storing(cls) if method is not init]
            changed = False
            for method in [*([init] if init else []), *others]:
                changed |= self._collect(cls, method, self._members[cls])
            if changed:
                # They were followed while members were not known yet.
                for context in self._made[before:]:
                    self._summaries.pop(context, None)
                del self._made[before:]
        return self._members[cls]

    def _storing(self, cls: Class) -> list[Function]:
        """Return the methods that may assign to an attribute, as far as that can be told at a glance."""
        found = []
        names = {name for c in self.hierarchy.mro(cls) for name in c.methods}
        for name in sorted(names):
            method = self.hierarchy.method(cls, name)
            if method is not None and method.params and not method.is_static and _stores(method):
                found.append(method)
        return found

    def _collect(self, cls: Class, method: Function, members: Members) -> bool:
        receiver = method.params[0] if method.params else "self"
        summary = self.summarize(method, {receiver: Value(instances=frozenset({cls}))})
        changed = False
        for effect in summary.effects if summary else ():
            root = effect.root
            if effect.kind != "write" or root is None or (root.kind, root.name) != ("param", receiver) or not root.attr:
                continue
            changed |= self._take(root.attr, effect, members, method.name == "__init__")
        return changed

    @staticmethod
    def _take(name: str, effect: Effect, members: Members, in_init: bool) -> bool:
        value = effect.value
        given = any(root.kind in ("param", "free") for root in value.roots)
        kinds = value.kinds | {"given"} if given and "rebind" in effect.flags else value.kinds
        roots = frozenset(root for root in value.roots if root.kind in ("global", "class"))
        if "rebind" not in effect.flags:
            kinds, roots = kinds - {"array", "list", "dict", "scalar"}, frozenset()
            value = value._replace(items=None, const=None)
        kept = value._replace(roots=roots, kinds=kinds, taints=frozenset())
        if in_init:
            members.in_init.add(name)
        members.stores[name] = members.stores.get(name, 0) + 1
        before = members.values.get(name)
        members.values[name] = kept if before is None else join(before, kept)
        return bool(kept.kinds or kept.funcs or kept.refs or kept.instances or kept.classes or kept.const)

    def of_instance(self, cls: Class, attr: str, base: Value) -> Found:
        """Return what an attribute of an instance of a class is."""
        method = self.hierarchy.method(cls, attr)
        if method is not None and attr not in self.members(cls).values:
            if method.is_property or method.is_per_worker:
                return Found(NOTHING, is_member=False)
            receiver = None if method.is_static else base
            return Found(Value(funcs=frozenset({Bound(method, receiver)})), is_member=False)
        members = self.members(cls)
        value = members.values.get(attr)
        if value is None:
            body = self.hierarchy.body(cls, attr)
            value = NOTHING if body is None else self.class_value(body[0], attr)._replace(const=None)
        elif members.stores.get(attr, 0) != 1 or attr not in members.in_init:
            value = value._replace(const=None)
        bound = frozenset(b if b.receiver is None else b._replace(receiver=base) for b in value.funcs)
        return Found(value._replace(funcs=bound), is_member=True)

    def has_property(self, base: Value, attr: str) -> bool:
        """Tell whether reading the attribute runs code."""
        methods = [self.hierarchy.method(cls, attr) for cls in base.instances]
        return any(method is not None for method in methods)

    def is_known_member(self, base: Value, attr: str) -> bool:
        """Tell whether some method stores the attribute."""
        return any(attr in self.members(cls).values for cls in base.instances)

    def class_value(self, cls: Class, attr: str) -> Value:
        """Return what the class body assigns to an attribute."""
        return self._expression(cls.module, f"{cls.name}.{attr}", [cls.body[attr]])

    def global_value(self, module: Module, name: str) -> Value:
        """Return what a module assigns to a global."""
        return self._expression(module, name, module.scope.assigned.get(name, [])[:6])

    def default_value(self, function: Function, name: str, node: ast.expr) -> Value:
        """Return the default of a parameter; a container there is shared by all calls, as a global is."""
        key = f"{function.qualname}({name})"
        value = self._expression(function.module, f"{key}:{getattr(function.node, 'lineno', 0)}", [node])
        if value.kinds & {"list", "dict", "set"}:
            return value._replace(roots=frozenset({Root("global", f"{function.module.name}.{key}")}), items=None)
        return value

    def _expression(self, module: Module, name: str, nodes: list[ast.expr]) -> Value:
        key = module.name, name
        if key not in self._globals:
            self._globals[key] = NOTHING
            value = NOTHING
            for position, node in enumerate(nodes):
                found = self._once(module, node)
                value = found if position == 0 else join(value, found)
            # The value of a global may change later; what it is made of does not.
            keep = value.const if value.const and value.const[0] in ("str", "int", "float") else None
            const = keep if len(nodes) == 1 else None
            self._globals[key] = value._replace(roots=frozenset(), taints=frozenset(), const=const)
        return self._globals[key]

    @staticmethod
    def module_function(module: Module, node: ast.expr) -> Function:
        """Return a function of a module that does nothing but return an expression."""
        around = ast.FunctionDef(
            name="<module>",
            args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]),
            body=[ast.copy_location(ast.Return(node), node)],
            decorator_list=[],
        )
        return Function("<module>", ast.copy_location(around, node), module.scope)

    def _once(self, module: Module, node: ast.expr) -> Value:
        try:
            return Statements(self, self.module_function(module, node), {}).run().returns
        except RecursionError:
            return NOTHING


def _stores(method: Function) -> bool:
    receiver = method.params[0]
    for node in ast.walk(method.node):
        match node:
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()) if name == receiver:
                return True
            case ast.Call(args=args, keywords=keywords):
                # Whoever is given the instance may store on it.
                given = [*args, *(keyword.value for keyword in keywords)]
                if any(isinstance(value, ast.Name) and value.id == receiver for value in given):
                    return True
    return False

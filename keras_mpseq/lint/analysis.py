"""Summaries of functions, each worked out once for what its callers pass; bottom-up, since a call waits for its callee.

A function is followed anew for each class of its receiver, and for constants, functions and modules that it is
given, up to a limit. Recursion is followed twice: first as if the inner call did nothing, then with what was found.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from keras_mpseq.lint.contexts import reduced
from keras_mpseq.lint.hierarchy import Hierarchy
from keras_mpseq.lint.members import Context, Found, Members, Seen, Tentative, may_store
from keras_mpseq.lint.model import Class, Function, Module
from keras_mpseq.lint.nodes import walk
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.statements import Statements
from keras_mpseq.lint.summary import Effect, Fault, Summary
from keras_mpseq.lint.values import NOTHING, Bound, Root, Value, join

DEEPEST = 24
"""Calls inside calls; what lies deeper is counted as not followed."""
MOST_CONTEXTS = 10
"""Ways in which one function of one class is followed before constants are no longer told apart."""
ARRAY_USES = frozenset({"shape", "ndim", "astype", "dtype", "reshape", "copy", "mean", "std", "max", "min", "sum", "T"})


class Locals(NamedTuple):
    """The names that a function binds, and those it declares to be of others."""

    names: frozenset[str]
    globals: frozenset[str]
    nonlocals: frozenset[str]


class Analysis:
    """Everything worked out about a project."""

    def __init__(self, project: Project, hierarchy: Hierarchy) -> None:
        """Begin with nothing worked out."""
        self.project = project
        self.hierarchy = hierarchy
        self.below: dict[Class, list[Class]] = {}
        """The sequence classes that derive from each class of the project."""
        self.too_deep: dict[Function, None] = {}
        """Functions whose statements are nested too deeply to be followed."""
        self.wrapped: dict[tuple[str, str], bool] = {}
        """Whether a class of the project has a method of that name with an argument of that name."""
        self.faults: dict[Function, list[Fault]] = {}
        """What is wrong with the code of each function, where somebody has looked."""
        self._summaries: dict[Context, Summary] = {}
        self._tentative = Tentative()
        self._contexts: dict[tuple[Function, frozenset[Class]], int] = {}
        self._running: dict[Context, Summary] = {}
        self._depths: dict[Context, int] = {}
        """How many ran when each of the running began."""
        self._recursive: set[Context] = set()
        self._members: dict[Class, Members] = {}
        self._storing: dict[Function, bool] = {}
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
            names = set(self.parameters_of(function))
            names.update(node.id for node in function.of(ast.Name) if isinstance(node.ctx, ast.Store))
            outer = {name for node in function.of(ast.Global) for name in node.names}
            around = {name for node in function.of(ast.Nonlocal) for name in node.names}
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
                used = {node.id for node in walk(function.node) if isinstance(node, ast.Name)}
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
            used = [node.value for node in function.of(ast.Subscript) if isinstance(node.slice, (ast.Tuple, ast.Slice))]
            used += [node.value for node in function.of(ast.Attribute) if node.attr in ARRAY_USES]
            self._arrays[function] = frozenset(node.id for node in used if isinstance(node, ast.Name))
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
        depth = self._depths.get(context, len(self._running))
        if known is not None:
            self._tentative.rest_on(context, depth)
            return known
        if context in self._running:
            self._tentative.rest_on(context, depth)
            self._recursive.add(context)
            return self._running[context]
        if depth >= DEEPEST:
            self._tentative.cut()
            return None
        family = self._family(function, arguments)
        self._contexts[family] = self._contexts.get(family, 0) + 1
        self._tentative.rest_on(context, depth)
        self._depths[context] = depth
        self._running[context] = Summary()
        self._tentative.begin()
        try:
            summary = self._follow(context)
            if context in self._recursive:
                # Once more, with what was found standing for the inner calls.
                self._running[context] = summary
                summary = self._follow(context)
                self._recursive.discard(context)
        finally:
            del self._running[context], self._depths[context]
            self._tentative.end(context)
        self._summaries[context] = summary
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
            self._tentative.collect(cls)
            init = self.hierarchy.method(cls, "__init__")
            others = [method for method in self._that_store(cls) if method is not init]
            try:
                for method in [*([init] if init else []), *others]:
                    self._collect(cls, method, self._members[cls])
            finally:
                for context in self._tentative.collected(cls, self._members[cls]):
                    self._summaries.pop(context, None)
        return self._members[cls]

    def _that_store(self, cls: Class) -> list[Function]:
        """Return the methods that may assign to an attribute, as far as that can be told at a glance."""
        found = []
        for _, method in sorted(self.hierarchy.methods(cls).items()):
            if method.params and not method.is_static:
                if method not in self._storing:
                    self._storing[method] = may_store(method)
                if self._storing[method]:
                    found.append(method)
        return found

    def _collect(self, cls: Class, method: Function, members: Members) -> None:
        receiver = method.params[0] if method.params else "self"
        summary = self.summarize(method, {receiver: Value(instances=frozenset({cls}))})
        for effect in summary.effects if summary else ():
            root = effect.root
            if effect.kind != "write" or root is None or (root.kind, root.name) != ("param", receiver) or not root.attr:
                continue
            self._take(root.attr, effect, members, method.name == "__init__")

    @staticmethod
    def _take(name: str, effect: Effect, members: Members, in_init: bool) -> None:
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

    def of_instance(self, cls: Class, attr: str, base: Value) -> Found:
        """Return what an attribute of an instance of a class is."""
        method = self.hierarchy.method(cls, attr)
        value, is_sole = self._seen(cls, attr)
        if method is not None and value is None:
            if method.is_property or method.is_per_worker:
                return Found(NOTHING, is_member=False)
            receiver = None if method.is_static else base
            return Found(Value(funcs=frozenset({Bound(method, receiver)})), is_member=False)
        if value is None:
            body = self.hierarchy.body(cls, attr)
            value = NOTHING if body is None else self.class_value(body[0], attr)._replace(const=None)
        elif not is_sole:
            value = value._replace(const=None)
        bound = frozenset(b if b.receiver is None else b._replace(receiver=base) for b in value.funcs)
        return Found(value._replace(funcs=bound), is_member=True)

    def has_property(self, base: Value, attr: str) -> bool:
        """Tell whether reading the attribute runs code."""
        methods = [self.hierarchy.method(cls, attr) for cls in base.instances]
        return any(method is not None for method in methods)

    def is_known_member(self, base: Value, attr: str) -> bool:
        """Tell whether some method stores the attribute."""
        return any(self._seen(cls, attr).value is not None for cls in base.instances)

    def _seen(self, cls: Class, attr: str) -> Seen:
        seen = self.members(cls).seen(attr)
        self._tentative.take(cls, attr, seen)
        return seen

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

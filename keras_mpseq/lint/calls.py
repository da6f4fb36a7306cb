"""Calls: who is called, what its parameters stand for, and what is taken over from it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from keras_mpseq.lint.frame import Frame
from keras_mpseq.lint.model import Class, Function, dotted_of
from keras_mpseq.lint.outside import Call, outside
from keras_mpseq.lint.values import CONTAINERS, NOTHING, OPENED, Bound, Root, Taint, Value, constant, derived, join_all

Item = TypeVar("Item")


class Calls(Frame):
    """A frame that can follow calls."""

    escapes: set[Root]

    def call(self, node: ast.Call, *, statement: bool = False) -> Value:
        """Follow a call expression."""
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return NOTHING
        if isinstance(node.func, ast.Attribute):
            method = node.func
            if isinstance(method.value, ast.Call) and _is_super(method.value):
                return self._super(method.attr, self._arguments(node, statement))
            base = self.quiet(method.value)
            return self._member(base, method, self._arguments(node, statement))
        callee = self.eval(node.func)
        return self.apply_value(callee, self._arguments(node, statement))

    def quiet(self, node: ast.expr) -> Value:
        """Follow the object that a method is called on or a part is stored in; reading it is no use of it yet."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base = self.load(node.value.id)
            if base.instances and len(base.roots) <= 1 and not self.analysis.has_property(base, node.attr):
                return self.read(base, node.attr, quiet=True)
        return self.eval(node)

    def _arguments(self, node: ast.Call, statement: bool) -> Call:
        args: list[Value] = []
        kwargs: dict[str, Value] = {}
        spread = False
        for arg in node.args:
            value = self.eval(arg)
            if isinstance(arg, ast.Starred):
                spread = True
                args.extend(value.items or ())
            else:
                args.append(value)
        for keyword in node.keywords:
            value = self.eval(keyword.value)
            if keyword.arg is None:
                spread = True
            else:
                kwargs[keyword.arg] = value
        return Call(node, tuple(args), kwargs, spread, statement)

    def _super(self, name: str, call: Call) -> Value:
        receiver = self.receiver()
        for cls in receiver.instances | receiver.classes:
            owner = self.function.owner
            found = self.analysis.hierarchy.after(cls, owner, name) if owner else None
            if found is not None:
                return self.apply(Bound(found, receiver), call)
        return NOTHING

    def receiver(self) -> Value:
        """Return what `self` stands for in this function, also in a function inside a method."""
        function: Function | None = self.function
        while function is not None:
            if function.owner is not None and function.params:
                return self.load(function.params[0])
            function = function.scope.function
        return NOTHING

    def _member(self, base: Value, method: ast.Attribute, call: Call) -> Value:
        """Follow `base.method(...)`."""
        callee = self.read(base, method.attr, quiet=True)
        if method.attr == "__class__":
            return Value(classes=base.instances)
        known = callee.funcs or callee.refs or callee.classes or callee.instances
        if known or callee.kinds & {"augmenter", "model"}:
            if base.instances and not callee.funcs:
                # A member that is called is used.
                callee = self.read(base, method.attr)
            return self.apply_value(callee, call, text=ast_text(method))
        if base.instances and not self.analysis.is_known_member(base, method.attr) and not base.kinds:
            own = self._own_member(base, method.attr)
            if own is not None:
                return own
        return self.on_object(base, method, call)

    def on_object(self, base: Value, method: ast.Attribute, call: Call) -> Value:
        """Follow a method of an object that no class of the project describes."""
        raise NotImplementedError

    def _own_member(self, base: Value, name: str) -> Value | None:
        if name not in self.tables.sets["sequence.own_members"]:
            return None
        if any(self.analysis.hierarchy.is_own(cls) for cls in base.instances):
            return Value(kinds=frozenset({"own"}))
        return None

    def apply_value(self, callee: Value, call: Call, text: str = "") -> Value:
        """Call everything that a value may stand for."""
        results = [self.apply(bound, call) for bound in in_order(callee.funcs, _order)[:6]]
        results += [outside_or_module(self, ref, call) for ref in in_order(callee.refs, str)]
        results += [self.construct(cls, call) for cls in in_order(callee.classes, _name_of)]
        for cls in in_order(callee.instances, _name_of):
            method = self.analysis.hierarchy.method(cls, "__call__")
            if method is not None:
                results.append(self.apply(Bound(method, callee), call))
        if "augmenter" in callee.kinds:
            self.record("draw", text or ast_text(call.node.func), call.node, flags=("augmenter",))
            results.append(Value(taints=frozenset({Taint("random", text)})))
        elif "model" in callee.kinds:
            self.record("framework", text or ast_text(call.node.func), call.node)
            results.append(NOTHING)
        if not results:
            drawn = self.augmented(call, text or ast_text(call.node.func))
            self.hand_over(call, followed=bool(drawn), text=text or ast_text(call.node.func))
            return derived(callee, Value(taints=drawn), *call.values)
        return join_all(*results)

    def augmented(self, call: Call, text: str) -> frozenset[Taint]:
        """Remember a call of something unknown that looks as pipelines of albumentations are called."""
        if not _looks_augmenting(call, text, self.tables.sets["random.augmented"]):
            return frozenset()
        self.record("draw", text, call.node, flags=("augmenter", "likely"))
        return frozenset({Taint("random", text)})

    def construct(self, cls: Class, call: Call) -> Value:
        """Make an instance: what `__init__` does to it concerns nobody else."""
        fresh = Value(instances=frozenset({cls}), taints=derived(*call.values).taints)
        for name in ("__init__", "__post_init__"):
            method = self.analysis.hierarchy.method(cls, name)
            if method is not None:
                self.apply(Bound(method, fresh), call if name == "__init__" else call._replace(args=(), kwargs={}))
        # A named tuple or dataclass holds its arguments, and unpacking gives them back.
        if self.analysis.hierarchy.method(cls, "__init__") is None:
            fresh = fresh._replace(items=tuple(call.values))
        return fresh

    def apply(self, bound: Bound, call: Call) -> Value:
        """Call a function of the project."""
        function = bound.function
        arguments = self._bind(bound, call)
        for key, value in self._captured(bound):
            arguments.setdefault(key, value)
        if any(name.startswith(tuple(self.tables.sets["effects.cached"])) for name in self._decorators(function)):
            self.record("cached", function.qualname, function.node)
        summary = self.analysis.summarize(function, arguments)
        if summary is None:
            self.unresolved.setdefault(self.site(call.node), function.qualname)
            return derived(*call.values)
        result = self.call_summary(summary, arguments, call.node)
        if function.is_per_worker:
            return result._replace(roots=frozenset(), taints=frozenset())
        if "generator" in result.kinds and function.generator and not function.is_context_manager:
            # What it yields may be an array, or a list that was handed to it; what it returns is neither.
            return result._replace(kinds=result.kinds - CONTAINERS - {"array", "scalar"}, const=None, items=None)
        return result

    def _decorators(self, function: Function) -> list[str]:
        names = []
        for name in function.decorators:
            head, _, rest = name.partition(".")
            for ref in self.analysis.project.name_in(function.scope, head).refs:
                names.append(f"{ref}.{rest}" if rest else ref)
        return names

    def _captured(self, bound: Bound) -> list[tuple[str, Value]]:
        """Return the variables around a nested function, as far as they can be known here."""
        function = bound.function
        if function.scope.function is None:
            return []
        found = []
        for name, key in self.analysis.free_of(function).items():
            if key == self.analysis.key_of(self.function) + name and name in self.env:
                found.append((key, self.env[name]))
            elif bound.receiver is not None and self.analysis.is_receiver(key):
                found.append((key, bound.receiver))
        return found

    def _bind(self, bound: Bound, call: Call) -> dict[str, Value]:
        function = bound.function
        positional = [*bound.args, *call.args]
        takes = function.owner is not None and not function.is_static and bound.receiver is not None
        if takes and bound.receiver is not None:
            first = bound.receiver
            if function.is_classmethod:
                first = Value(classes=first.classes | first.instances)
            positional.insert(0, first)
        names = function.params
        arguments = dict(zip(names, positional, strict=False))
        vararg = function.node.args.vararg
        if vararg is not None and len(positional) > len(names):
            rest = positional[len(names) :]
            arguments[vararg.arg] = join_all(*rest)._replace(items=tuple(rest), const=None)
        allowed = function.keyword_names()
        arguments.update({name: value for name, value in call.kwargs.items() if name in allowed})
        if not call.spread:
            for name, default in function.defaults().items():
                if name in arguments:
                    continue
                if isinstance(default, ast.Constant):
                    arguments[name] = constant(default.value)
                else:
                    arguments[name] = self.analysis.default_value(function, name, default)
        return arguments

    def hand_over(self, call: Call, *, followed: bool, text: str) -> None:
        """Account for arguments of a callee that is not read: functions among them are called by it, probably."""
        for value in call.values:
            for bound in in_order(value.funcs, _order)[:3]:
                # It gets something out of what is handed over with it.
                rest = tuple(self.iterated(v, call.node) for v in call.values if v is not value)
                self.apply(bound, call._replace(args=rest, kwargs={}))
            if not followed:
                self.escapes |= value.roots
        if not followed:
            self.unresolved.setdefault(self.site(call.node), text)

    def consume(self, value: Value, how: str, node: ast.AST) -> None:
        """Remember that something is taken out of a lasting object."""
        if "fresh" not in value.kinds:
            for root in value.roots:
                self.record("consume", how, node, root, value, {"scratch"} if root in self.env else ())

    def change(self, target: Value, node: ast.expr, where: ast.AST, how: str, value: Value) -> None:
        """Remember that an object is changed in place, unless it is one of this call."""
        flags = {"item"}
        if is_alias(node, self):
            if "weak" in target.kinds:
                return
            flags |= {"alias", "view"} if "view" in target.kinds or how == "out=" else {"alias"}
        if how.endswith("shuffle"):
            flags.add("shuffle")
        self.write(held_roots(target), how, where, value, *flags)

    def touch(self, node: ast.expr, taints: frozenset[Taint]) -> None:
        """Remember what a variable depends on, after its object was changed in place."""
        if isinstance(node, ast.Name) and node.id in self.env:
            before = self.env[node.id]
            self.env[node.id] = before._replace(taints=before.taints | taints)

    def window(self, lower: ast.expr, upper: ast.expr, node: ast.AST) -> None:
        """Rows `i` to `i + n`, of which each function knows only whether `i` is its bare parameter."""
        end = self.function.sole_value(upper.id) if isinstance(upper, ast.Name) else upper
        if not (isinstance(lower, ast.Name) and isinstance(end, ast.BinOp) and isinstance(end.op, ast.Add)):
            return
        for first, second in ((end.left, end.right), (end.right, end.left)):
            if isinstance(first, ast.Name) and not isinstance(second, ast.Constant):
                for root in self.load(lower.id).roots & self.load(first.id).roots:
                    if root.kind == "param" and not root.attr:
                        self.record("overlap", ast.unparse(second), node, root)

    def iterated(self, value: Value, node: ast.AST) -> Value:
        """Return an item of something that is looped over."""
        taints = value.taints
        if "set" in value.kinds and not value.kinds & {"dict", "int"}:
            # Whole numbers are their own hashes, and lie in the same order in every process.
            taints |= {Taint("unordered", "set", self.site(node))}
        if value.items is not None and "zip" in value.kinds:
            return Value(kinds=frozenset({"tuple"}), taints=taints, items=value.items)
        if value.items is not None:
            item = join_all(*value.items)
            return item._replace(roots=item.roots | value.roots, taints=item.taints | taints, const=None)
        for cls in value.instances:
            method = self.analysis.hierarchy.method(cls, "__iter__") or self.analysis.hierarchy.method(
                cls, "__getitem__"
            )
            if method is not None:
                return self.apply(Bound(method, value), call_at(node))
        # The lines of a file are no file; the files in a list are.
        handles = frozenset() if value.kinds & CONTAINERS else OPENED - {"memmap"}
        return value._replace(
            kinds=value.kinds - CONTAINERS - handles - {"array", "iterator", "generator", "range", "large", "scalar"},
            taints=taints,
            const=None,
            items=None,
        )


def outside_or_module(frame: Calls, ref: str, call: Call) -> Value:
    """Call a full name; a module of the project is none that can be called."""
    return NOTHING if ref.startswith("@") else outside(frame, ref, call)


def held_roots(value: Value) -> list[Root]:
    """Return the roots whose object is changed when the value is; sorted, so that runs are alike."""
    return sorted(value.roots)


def is_alias(node: ast.expr, frame: Frame) -> bool:
    """Tell whether an expression reaches its object by a local name for it."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    if not isinstance(node, ast.Name):
        return False
    value = frame.env.get(node.id)
    return value is not None and not value.instances and node.id not in frame.function.params


def call_at(node: ast.AST, *args: Value) -> Call:
    """Return a call that the source does not spell out, as of `__getitem__` by brackets."""
    spelled = ast.Call(func=ast.Name(id="", ctx=ast.Load()), args=[], keywords=[])
    return Call(ast.copy_location(spelled, node), args, {}, False, False)


def ast_text(node: ast.AST) -> str:
    """Return a short text of a node, for messages."""
    # Nearly all are plain names, which need no unparser.
    text = dotted_of(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
    text = text or ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _looks_augmenting(call: Call, text: str, names: frozenset[str]) -> bool:
    """Tell whether something is called as the pipelines of albumentations are: `self.augment(image=x)`."""
    called = text.rpartition(".")[2].lower()
    telling = "aug" in called or "transform" in called or "random" in called
    return telling and not call.args and "image" in call.kwargs and call.kwargs.keys() <= names


def _is_super(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "super"


def in_order(some: frozenset[Item], key: Callable[[Item], Any]) -> Sequence[Item]:
    """Return the items of a set, sorted, so that runs are alike; most sets hold one or none."""
    return sorted(some, key=key) if len(some) > 1 else tuple(some)


def _name_of(cls: Class) -> str:
    return cls.qualname


def _order(bound: Bound) -> tuple[str, int]:
    return bound.function.qualname, getattr(bound.function.node, "lineno", 0)

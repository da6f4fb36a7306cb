"""Expressions: every kind of node gives a value; one that is not known gives what depends on its parts."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence

from keras_mpseq.lint import guards
from keras_mpseq.lint.calls import call_at
from keras_mpseq.lint.frame import Key
from keras_mpseq.lint.model import Function
from keras_mpseq.lint.nodes import children
from keras_mpseq.lint.objects import Objects
from keras_mpseq.lint.values import (
    CONTAINERS,
    NOTHING,
    Bound,
    Root,
    Taint,
    Value,
    constant,
    derived,
    join,
    join_all,
    truth,
)

LARGEST = 1 << 62
ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
BIG = 1_000_000
"""Elements of a literal that is heavy to carry to every worker."""
METHODS = {kind: f"_{kind.__name__.lower()}" for kind in ast.expr.__subclasses__()}
"""What follows each kind of expression."""


class Expressions(Objects):
    """A frame that can follow expressions."""

    def eval(self, node: ast.expr) -> Value:
        """Follow an expression."""
        match node:
            case ast.Name():
                value = self.load(node.id)
                if value.roots and value.roots is not NOTHING.roots:
                    self._global_read(value)
                return value
            case ast.Constant():
                return constant(node.value)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self.call(node)
            case ast.Subscript():
                return self._subscript(node)
        method = getattr(self, METHODS.get(node.__class__, ""), None)
        if method is not None:
            value = method(node)
            assert isinstance(value, Value)
            return value
        return derived(*(self.eval(child) for child in children(node) if isinstance(child, ast.expr)))

    def _global_read(self, value: Value) -> None:
        for root in value.roots:
            if root.kind in ("global", "class"):
                self.reads.add(root)

    def _attribute(self, node: ast.Attribute) -> Value:
        base = self.eval(node.value)
        if node.attr == "__class__":
            return Value(classes=base.instances)
        value = self.read(base, node.attr)
        for cls in base.instances:
            method = self.analysis.hierarchy.method(cls, node.attr)
            if method is not None and (method.is_property or method.is_per_worker):
                got = self.apply(Bound(method, base), call_at(node))
                value = join(value._replace(funcs=frozenset()), got)
        if not base.instances and base.roots and not value.kinds:
            value = value._replace(kinds=base.kinds & {"frame", "weak", "view"})
        return value

    def _subscript(self, node: ast.Subscript) -> Value:
        base = self.eval(node.value)
        index = self.eval(node.slice)
        for cls in base.instances:
            method = self.analysis.hierarchy.method(cls, "__getitem__")
            if method is not None:
                return self.apply(Bound(method, base), call_at(node, index))
        taints = base.taints | index.taints
        ambient = [ref for ref in base.refs if self.tables.has("effects.ambient", ref)]
        if ambient:
            return Value(taints=taints | {Taint("ambient", ref, self.site(node)) for ref in ambient})
        if base.items is not None and index.const is not None and isinstance(index.const[1], int):
            position = index.const[1]
            if -len(base.items) <= position < len(base.items) and not base.kinds & {"dict"}:
                return base.items[position]
        if "array-dataset" in base.kinds or base.kinds & {"range"}:
            return Value(taints=taints)
        if "array-file" in base.kinds:
            kinds = (base.kinds - {"array-file"}) | {"array-dataset"}
            return base._replace(kinds=kinds, taints=taints, const=None, items=None)
        if isinstance(node.slice, ast.Slice):
            return self._sliced(base, taints)
        return self._element(base, node.slice, index, taints)

    @staticmethod
    def _sliced(base: Value, taints: frozenset[Taint]) -> Value:
        # A slice of a list or string is a new one, but its elements are the old ones.
        copied = base.kinds & {"list", "tuple", "scalar"} and "array" not in base.kinds
        roots: frozenset[Root] = frozenset() if copied else base.roots
        kinds = base.kinds if copied else base.kinds | {"view"}
        return base._replace(roots=roots, kinds=kinds, taints=taints, const=None, items=None)

    def _element(self, base: Value, node: ast.expr, index: Value, taints: frozenset[Taint]) -> Value:
        kinds = base.kinds - CONTAINERS - {"scalar", "large"}
        copies = index.kinds & {"array", "list", "set", "frame", "mask"} or "frame" in base.kinds
        if copies and not base.kinds & {"dict"}:
            return base._replace(roots=frozenset(), kinds=kinds, taints=taints, const=None, items=None)
        if isinstance(node, ast.Tuple):
            plain = all(isinstance(part, ast.Slice) or self._counts(part) for part in node.elts)
            kinds = (kinds - {"array"}) | {"view" if plain else "weak"}
        elif not self._counts(node):
            kinds |= {"weak"}
        else:
            kinds |= {"element"}
        return base._replace(kinds=kinds, taints=taints, const=None, items=None)

    def _counts(self, node: ast.expr) -> bool:
        """Tell whether an index surely names one element: a number, a text, or the variable of a loop."""
        match node:
            case ast.Constant():
                return True
            case ast.UnaryOp():
                return self._counts(node.operand)
            case ast.BinOp():
                return self._counts(node.left) and self._counts(node.right)
            case ast.Name():
                value = self.env.get(node.id, NOTHING)
                loop = any(taint.kind == "loop" for taint in value.taints)
                return (loop or node.id == self.analysis.index_name(self.function)) and "array" not in value.kinds
        return False

    def _boolop(self, node: ast.BoolOp) -> Value:
        values: list[Value] = []
        depth = len(self.memo)
        for part in node.values:
            value = self.eval(part)
            known = truth(value)
            values.append(value)
            stops = isinstance(node.op, ast.Or)
            if known is not None and known is stops:
                break
            if known is not None and len(values) < len(node.values):
                values.pop()
            self.memo.append(guards.missing(self, part, not stops))
        del self.memo[depth:]
        return join_all(*values)

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.eval(node.operand)
        known = truth(value)
        if isinstance(node.op, ast.Not):
            return derived(value) if known is None else constant(not known)
        if isinstance(node.op, ast.USub) and value.const is not None and isinstance(value.const[1], (int, float)):
            return constant(-value.const[1])
        return derived(value)._replace(kinds=value.kinds & {"array", "mask"})

    def _binop(self, node: ast.BinOp) -> Value:
        chain = [node]
        while isinstance(chain[-1].left, ast.BinOp):
            # A long sum leans to the left, and is not followed by recursion.
            chain.append(chain[-1].left)
        value = self.eval(chain[-1].left)
        for part in reversed(chain):
            value = self._combined(part, value, self.eval(part.right))
        return value

    @staticmethod
    def _combined(node: ast.BinOp, left: Value, right: Value) -> Value:
        result = derived(left, right)
        if left.const is not None and right.const is not None:
            return _folded(left.const[1], node.op, right.const[1], result)
        kinds = (left.kinds | right.kinds) & {"array", "list", "set", "mask", "path"}
        if isinstance(node.op, ast.Mult) and "list" in left.kinds and _large(right):
            kinds |= {"large-literal"}
        elif "list" in kinds:
            kinds |= (left.kinds | right.kinds) & {"lambda", "local-function", "file", "array-file", "large-literal"}
        if (
            "set" in kinds
            and "int" in left.kinds
            and ("int" in right.kinds or isinstance(node.op, (ast.Sub, ast.BitAnd)))
        ):
            kinds |= {"int"}
        instances = left.instances | right.instances if "list" in kinds else frozenset()
        return result._replace(kinds=kinds, instances=instances)

    def _compare(self, node: ast.Compare) -> Value:
        left = self.eval(node.left)
        rights = [self.eval(part) for part in node.comparators]
        if len(rights) == 1 and left.const is not None and rights[0].const is not None:
            known = _compared(left.const, node.ops[0], rights[0].const)
            if known is not None:
                return constant(known)
        result = derived(left, *rights)
        if isinstance(node.ops[0], (ast.In, ast.NotIn)):
            return result._replace(taints=frozenset(t for t in result.taints if t.kind != "unordered"))
        return result._replace(kinds=frozenset({"mask"}))

    def _ifexp(self, node: ast.IfExp) -> Value:
        known = truth(self.eval(node.test))
        if known is not None:
            return self.eval(node.body if known else node.orelse)
        values = []
        for part, outcome in ((node.body, True), (node.orelse, False)):
            self.memo.append(guards.missing(self, node.test, outcome))
            values.append(self.eval(part))
            self.memo.pop()
        return join_all(*values)._replace(const=values[0].const if values[0].const == values[1].const else None)

    def _lambda(self, node: ast.Lambda) -> Value:
        function = self.analysis.lambda_of(node, self.function)
        return self.local_function(function, "lambda")

    def local_function(self, function: Function, kind: str) -> Value:
        """Return a function made here, bound to the receiver around it."""
        receiver = self.receiver()
        bound = Bound(function, receiver if receiver.instances else None)
        return Value(funcs=frozenset({bound}), kinds=frozenset({kind}))

    def _tuple(self, node: ast.Tuple | ast.List) -> Value:
        items = [self.eval(part) for part in node.elts]
        spread = any(isinstance(part, ast.Starred) for part in node.elts)
        kind = type(node).__name__.lower()
        size = {"large-literal"} if len(items) >= BIG // 10 else set()
        return collected(items, kind, None if spread or len(items) > 50 else tuple(items), size)

    _list = _tuple

    def _set(self, node: ast.Set) -> Value:
        return collected([self.eval(part) for part in node.elts], "set", None)

    def _dict(self, node: ast.Dict) -> Value:
        for key in node.keys:
            if key is not None:
                self.eval(key)
        items = [self.eval(part) for part in node.values]
        return collected(items, "dict", tuple(items) if len(items) <= 50 else None)

    def _listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        before = dict(self.env)
        self.loops += 1
        memo = len(self.memo)
        large = set()
        order: frozenset[Taint] = frozenset()
        for generator in node.generators:
            over = self.eval(generator.iter)
            if "large" in over.kinds and "range" in over.kinds:
                large = {"large-literal"}
            order |= self.order_of(over, generator.iter)
            self.bind_loop(generator.target, over, generator.iter)
            for condition in generator.ifs:
                self.eval(condition)
                self.memo.append(guards.missing(self, condition, True))
        if isinstance(node, ast.DictComp):
            self.eval(node.key)
            item = self.eval(node.value)
        else:
            item = self.eval(node.elt)
        del self.memo[memo:]
        self.loops -= 1
        # Attributes that were assigned inside stay assigned; names of the comprehension are its own.
        kept: dict[Key, Value] = {key: value for key, value in self.env.items() if isinstance(key, Root)}
        self.env: dict[Key, Value] = {**before, **kept}
        kind = {"ListComp": "list", "SetComp": "set", "DictComp": "dict"}.get(type(node).__name__, "generator")
        taints = frozenset(taint for taint in item.taints if taint.kind != "loop")
        if kind in ("list", "generator"):
            taints |= order
        return collected([item._replace(taints=taints)], kind, None, large)

    _setcomp = _dictcomp = _generatorexp = _listcomp

    def order_of(self, over: Value, node: ast.expr) -> frozenset[Taint]:
        """Return what makes the order of a loop another elsewhere: of what is made in it, not of each item."""
        return frozenset(taint for taint in self.iterated(over, node).taints if taint.kind == "unordered")

    def bind_loop(self, target: ast.expr, over: Value, node: ast.expr) -> None:
        """Give a loop's variables what they run over."""
        raise NotImplementedError

    def assign(self, target: ast.expr, value: Value, node: ast.AST) -> None:
        """Give a target a value."""
        raise NotImplementedError

    def _starred(self, node: ast.Starred) -> Value:
        return self.eval(node.value)

    def _namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self.eval(node.value)
        self.assign(node.target, value, node)
        return value

    def _yield(self, node: ast.Yield | ast.YieldFrom) -> Value:
        value = self.eval(node.value) if node.value is not None else NOTHING
        self.yields: Value = join(self.yields, value)
        return NOTHING

    _yieldfrom = _yield

    def _slice(self, node: ast.Slice) -> Value:
        parts = [self.eval(part) for part in (node.lower, node.upper, node.step) if part is not None]
        if node.lower is not None and node.upper is not None:
            self.window(node.lower, node.upper, node)
        return derived(*parts)


def collected(
    items: Sequence[Value], kind: str, parts: tuple[Value, ...] | None, more: set[str] | None = None
) -> Value:
    """Return a container: it is new, and what it holds keeps its kinds."""
    whole = join_all(*items) if items else NOTHING
    return whole._replace(
        roots=frozenset(),
        kinds=(whole.kinds - {"scalar", "view", "weak", "element", "array", *CONTAINERS}) | {kind} | (more or set()),
        const=None,
        items=parts,
    )


def _large(value: Value) -> bool:
    return value.const is not None and isinstance(value.const[1], int) and value.const[1] >= BIG


def _folded(left: object, op: ast.operator, right: object, otherwise: Value) -> Value:
    if not (isinstance(left, int) and isinstance(right, int) and abs(left) < LARGEST and abs(right) < LARGEST):
        return otherwise
    match op:
        case ast.Add():
            return constant(left + right)
        case ast.Sub():
            return constant(left - right)
        case ast.Mult():
            return constant(left * right)
        case ast.FloorDiv() if right:
            return constant(left // right)
        case ast.Pow() if 0 <= right <= 64 and abs(left) <= 1024:
            return constant(left**right)
    return otherwise


def _compared(left: tuple[str, object], op: ast.cmpop, right: tuple[str, object]) -> bool | None:
    match op:
        case ast.Is() | ast.Eq():
            return left == right or (left[0] != "NoneType" and right[0] != "NoneType" and left[1] == right[1])
        case ast.IsNot() | ast.NotEq():
            return not _compared(left, ast.Eq(), right)
    order = ORDER.get(type(op))
    if order is not None and isinstance(left[1], (int, float)) and isinstance(right[1], (int, float)):
        return order(left[1], right[1])
    return None

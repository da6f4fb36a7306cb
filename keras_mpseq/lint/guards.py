"""Which roots a test shows to be missing, so that a write behind it fills a gap instead of changing a state.

`if self.x is None`, `if key not in self.cache`, `if not hasattr(self, "x")`, their negations with an early return, a
failed look-up, and `if self.loaded != name` before `self.loaded = name`: after these a second call with the same
arguments writes nothing new.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from keras_mpseq.lint.frame import Frame
from keras_mpseq.lint.values import Root, Value, deeper

LOOKUP_ERRORS = frozenset({"KeyError", "AttributeError", "IndexError", "LookupError", "NameError", "FileNotFoundError"})


def missing(frame: Frame, test: ast.expr, outcome: bool) -> frozenset[Root]:
    """Return what is missing when *test* came out as *outcome*."""
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return missing(frame, test.operand, not outcome)
        case ast.BoolOp():
            return frozenset().union(*(missing(frame, part, outcome) for part in test.values))
        case ast.Compare(ops=[op], comparators=[right]):
            return _compared(frame, test.left, op, right, outcome)
        case ast.Call(func=ast.Name(id="hasattr"), args=[holder, ast.Constant(value=str(name))]):
            return frozenset(deeper(root, name) for root in frame.eval(holder).roots) if not outcome else frozenset()
        case ast.Call(func=ast.Name(id="len"), args=[operand]) if not outcome:
            return held(frame.eval(operand))
        case ast.Name() | ast.Attribute() | ast.Call() | ast.NamedExpr() | ast.Subscript() if not outcome:
            return held(frame.eval(test))
    return frozenset()


def _compared(frame: Frame, left: ast.expr, op: ast.cmpop, right: ast.expr, outcome: bool) -> frozenset[Root]:
    match op, right:
        case (ast.NotIn(), _) if outcome:
            return held(frame.eval(right))
        case (ast.In(), _) if not outcome:
            return held(frame.eval(right))
        case (ast.Is() | ast.Eq(), ast.Constant(value=None | 0 | "" | -1)) if outcome:
            return _operand(frame, left)
        case (ast.IsNot() | ast.NotEq() | ast.Gt(), ast.Constant(value=None | 0 | "" | -1)) if not outcome:
            return _operand(frame, left)
    return frozenset()


def _operand(frame: Frame, node: ast.expr) -> frozenset[Root]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
        node = node.args[0]
    return held(frame.eval(node))


def held(value: Value) -> frozenset[Root]:
    """Return the roots that something can be missing from: a receiver itself is always there."""
    return frozenset(root for root in value.roots if root.attr or root.kind in ("global", "free", "param"))


def keyed(frame: Frame, test: ast.expr, outcome: bool, block: Sequence[ast.stmt], start: int) -> bool:
    """Tell whether *block*, from *start* on, renews something under a key that the test found to differ, and stores it.

    This is a cache of one entry: `if self.name != name: self.data = load(name); self.name = name`.
    """
    if isinstance(test, ast.BoolOp):
        return any(keyed(frame, part, outcome, block, start) for part in test.values)
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return False
    differs = isinstance(test.ops[0], ast.NotEq | ast.IsNot) if outcome else isinstance(test.ops[0], ast.Eq | ast.Is)
    if not differs or not any(isinstance(side, ast.Attribute) for side in (test.left, test.comparators[0])):
        return False
    if id(block) not in frame.stores:
        frame.stores[id(block)] = _stores(block)
    last = frame.stores[id(block)]
    return bool(last) and last.get(frozenset({ast.dump(test.left), ast.dump(test.comparators[0])}), -1) >= start


def _stores(block: Sequence[ast.stmt]) -> dict[frozenset[str], int]:
    """Return where a block last gives an attribute a value, by the texts of both."""
    last: dict[frozenset[str], int] = {}
    for position, statement in enumerate(block):
        match statement:
            case ast.Assign(targets=[ast.Attribute() as target], value=value):
                last[frozenset({ast.dump(target).replace("Store()", "Load()"), ast.dump(value)})] = position
    return last


def looked_up(frame: Frame, handler: ast.ExceptHandler, body: Sequence[ast.stmt]) -> frozenset[Root]:
    """Return what a handler for a failed look-up knows to be missing."""
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    if not caught & LOOKUP_ERRORS:
        return frozenset()
    roots: set[Root] = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                roots.update(deeper(root, node.attr) for root in frame.load(node.value.id).roots)
    return frozenset(roots)

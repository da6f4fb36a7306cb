"""SEQ507, SEQ508: rows that stay unwritten and errors that go unseen, in every function that builds batches."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence

from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.model import Function
from keras_mpseq.lint.nodes import own_nodes, walk
from keras_mpseq.lint.report import Report
from keras_mpseq.lint.summary import Fault
from keras_mpseq.lint.zones import View

BROAD = frozenset({"Exception", "BaseException"})
LEAVES = (ast.Raise, ast.Return, ast.Continue, ast.Break)
READERS = frozenset({"len", "print", "range", "enumerate", "list", "tuple", "type", "isinstance"})


def detect(view: View, report: Report) -> None:
    """Look at the code of every function in the worker zone."""
    known = view.analysis.faults
    for function, chain in view.reached.items():
        if function not in known:
            known[function] = [] if isinstance(function.node, ast.Lambda) else list(_faults(view.analysis, function))
        for code, site, message, confidence in known[function]:
            report.add(code, site, message, cls=view.cls.name, chain=chain, confidence=confidence)


def _faults(analysis: Analysis, function: Function) -> Iterator[Fault]:
    """Yield what is wrong with a function, whichever class gets to it."""
    for handler, message in _swallowed(analysis, function):
        site = function.module.site(handler, function.qualname)
        end = site._replace(end_line=site.line, end_column=site.column + len("except"))
        yield Fault("SEQ508", end, message)
    for call, message in _suppressed(analysis, function):
        yield Fault("SEQ508", function.module.site(call, function.qualname), message)
    for node, name in _unwritten(analysis, function):
        message = f"rows of {name} that no branch fills keep what was in memory"
        yield Fault("SEQ507", function.module.site(node, function.qualname), message, "likely")


def _swallowed(analysis: Analysis, function: Function) -> Iterator[tuple[ast.ExceptHandler, str]]:
    for node in function.of(ast.Try):
        for handler in node.handlers:
            if not _is_broad(handler) or any(isinstance(inside, LEAVES) for inside in _nodes(handler.body)):
                continue
            if not _is_cleanup(analysis, node.body) and not _is_import(node.body):
                what = "except:" if handler.type is None else f"except {ast.unparse(handler.type)}:"
                yield handler, f"{what} hides every error in the data, and the batch goes on without it"


def _suppressed(analysis: Analysis, function: Function) -> Iterator[tuple[ast.expr, str]]:
    """`with suppress(Exception)`, which is the same."""
    items = [item for node in function.of(ast.With) for item in node.items]
    items += [item for node in function.of(ast.AsyncWith) for item in node.items]
    for call in [item.context_expr for item in items]:
        if not isinstance(call, ast.Call) or not _is_suppress(analysis, function, call.func):
            continue
        if any(isinstance(part, ast.Name) and part.id in BROAD for part in call.args):
            yield call, f"{ast.unparse(call)} hides every error in the data, and the batch goes on without it"


def _is_suppress(analysis: Analysis, function: Function, node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name):
            return "contextlib.suppress" in analysis.project.name_in(function.inner, name).refs
        case ast.Attribute(value=ast.Name(id=name), attr="suppress"):
            return "contextlib" in analysis.project.name_in(function.inner, name).refs
    return False


def _nodes(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        yield statement
        yield from own_nodes(statement)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(node, ast.Name) and node.id in BROAD for node in walk(handler.type))


def _is_cleanup(analysis: Analysis, body: Sequence[ast.stmt]) -> bool:
    names = analysis.project.tables.sets["resources.cleanup"]
    calls = [statement.value for statement in body if isinstance(statement, ast.Expr)]
    return len(calls) == len(body) and all(
        isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in names
        for call in calls
    )


def _is_import(body: Sequence[ast.stmt]) -> bool:
    return all(isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in body)


def _unwritten(analysis: Analysis, function: Function) -> Iterator[tuple[ast.AST, str]]:
    empty = _empty_arrays(analysis, function)
    stores = [*function.of(ast.Assign), *function.of(ast.AugAssign)] if empty else []
    stored = {name for node in stores for name in _stored_in(node)}
    for name, node in empty.items():
        if not _is_used_whole(function, name):
            continue
        if name in stored and not _fills(function.body, name):
            yield node, name


def _empty_arrays(analysis: Analysis, function: Function) -> dict[str, ast.Assign]:
    """Return the local names of arrays made by np.empty."""
    found: dict[str, ast.Assign] = {}
    made: dict[str, int] = {}
    for node in function.of(ast.Assign):
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            made[name] = made.get(name, 0) + 1
            if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
                head = node.value.func.value
                refs = analysis.project.name_in(function.inner, head.id).refs if isinstance(head, ast.Name) else ()
                if "numpy" in refs and node.value.func.attr in ("empty", "empty_like", "ndarray"):
                    found[name] = node
    return {name: node for name, node in found.items() if made[name] == 1}


def _is_used_whole(function: Function, name: str) -> bool:
    """Tell whether the array is returned, or handed on; not whether a slice of it is."""
    return any(node.value is not None and _holds(node.value, name) for node in function.of(ast.Return))


def _holds(node: ast.expr, name: str) -> bool:
    match node:
        case ast.Tuple() | ast.List():
            return any(_holds(part, name) for part in node.elts)
        case ast.Dict():
            return any(_holds(part, name) for part in node.values)
        case ast.Name():
            return node.id == name
    return False


def _stored_in(node: ast.AST) -> Iterator[str]:
    """Yield the names of which a statement writes to a part."""
    match node:
        case ast.Assign(targets=targets):
            for target in targets:
                yield from _parts(target)
        case ast.AugAssign(target=target):
            yield from _parts(target)


def _parts(target: ast.expr) -> Iterator[str]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            yield from _parts(part)
    elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        yield target.value.id


def _fills(body: Sequence[ast.stmt], name: str) -> bool:
    """Tell whether every way through a block writes to the array; a loop counts as run."""
    for statement in body:
        if _fills_here(statement, name):
            return True
        if isinstance(statement, ast.Raise):
            return True
        if isinstance(statement, ast.Return):
            return statement.value is None or not _holds(statement.value, name)
        if isinstance(statement, (ast.Continue, ast.Break)):
            return False
        if isinstance(statement, ast.If) and _skips(statement):
            # A way out before the write, in a loop: that row stays as it was.
            return False
    return False


def _fills_here(statement: ast.stmt, name: str) -> bool:
    match statement:
        case ast.If():
            return _fills(statement.body, name) and _fills(statement.orelse, name)
        case ast.While(test=ast.Constant(value=True)):
            return _fills(statement.body, name) or _fills_before_breaks(statement.body, name)
        case ast.For() | ast.While() | ast.AsyncFor() | ast.With() | ast.AsyncWith():
            return _fills(statement.body, name)
        case ast.Try():
            tried = _fills(statement.body, name) or _fills(statement.orelse, name)
            handled = all(_fills(handler.body, name) for handler in statement.handlers)
            return (tried and handled) or _fills(statement.finalbody, name)
        case ast.Match():
            return all(_fills(case.body, name) for case in statement.cases)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return False
    return name in _written(statement)


@functools.lru_cache(maxsize=8192)
def _written(statement: ast.stmt) -> frozenset[str]:
    """Return the names that a statement writes to, or may; kept, as each array of a function asks for it."""
    nodes = [statement, *own_nodes(statement)]
    return frozenset(name for node in nodes for name in (*_stored_in(node), *_given_away(node)))


def _fills_before_breaks(body: Sequence[ast.stmt], name: str) -> bool:
    """Tell whether an endless loop is left only after a write."""
    blocks = [body]
    found = False
    while blocks:
        block = blocks.pop()
        for position, statement in enumerate(block):
            if isinstance(statement, ast.Break):
                found = True
                if not _fills(block[:position], name):
                    return False
            elif not isinstance(statement, (ast.For, ast.While, ast.FunctionDef)):
                blocks += [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
    return found


def _given_away(node: ast.AST) -> Iterator[str]:
    """A function that gets the array, or a method of it as `fill`, may well write to it."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="fill" | "sort" | "put")):
            yield owner
    if isinstance(node, ast.Call) and not _only_reads(node):
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        yield from (value.id for value in values if isinstance(value, ast.Name))


def _only_reads(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in READERS


def _skips(statement: ast.If) -> bool:
    return any(isinstance(node, (ast.Continue, ast.Break)) for node in _nodes([statement]))

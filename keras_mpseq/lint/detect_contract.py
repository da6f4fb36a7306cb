"""SEQ408, SEQ501, SEQ503, SEQ505, SEQ509: what Keras expects of the methods of a sequence."""

from __future__ import annotations

import ast
import difflib
import functools
from collections.abc import Sequence

from keras_mpseq.lint.model import Class, Function, is_empty
from keras_mpseq.lint.nodes import walk
from keras_mpseq.lint.report import Report
from keras_mpseq.lint.values import NOTHING, Site
from keras_mpseq.lint.zones import View

MOST_PARTS = 3
"""Of a batch: inputs, targets, sample weights."""
DEEPEST = 4
"""Calls and variables through which a length is followed."""
CLOSE = 0.88
"""Likeness from which a name is taken for a slip."""
SLIPS = frozenset(
    f"onepoch{word}"
    for word in ("start", "started", "begins", "beginning", "finish", "finished", "ends", "ended", "stop", "complete")
)
FLOATS = frozenset({"numpy.ceil", "numpy.floor", "numpy.round", "numpy.rint", "numpy.true_divide", "builtins.float"})

EITHER = frozenset({"builtins.max", "builtins.min", "builtins.abs"})
"""What gives one of its arguments."""


def detect(view: View, report: Report) -> None:
    """Look at the methods that Keras calls, and at those it nearly calls."""
    if view.getitem is not None and not is_abstract(view.getitem) and not _always_overridden(view, view.getitem):
        _index_ignored(view, report, view.getitem)
        _bad_return(view, report, view.getitem)
    if view.length is not None and not is_abstract(view.length) and not _always_overridden(view, view.length):
        _bad_length(view, report, view.length)
    _super_init(view, report)
    for cls in view.analysis.hierarchy.mro(view.cls):
        # What is a sequence itself is looked at for itself; a class that is mixed in is not.
        if cls is view.cls or not view.analysis.hierarchy.is_sequence(cls):
            for method in cls.methods.values():
                _hook_name(view, report, method)


def is_abstract(function: Function) -> bool:
    """Tell whether a method only says that a subclass must write it."""
    if any("abstract" in name for name in function.decorators):
        return True
    return is_empty(function)


def _always_overridden(view: View, method: Function) -> bool:
    """Tell whether every class of the project that derives from this one has a method of its own in its place."""
    hierarchy = view.analysis.hierarchy
    below = view.analysis.below.get(view.cls, [])
    return bool(below) and all(hierarchy.method(cls, method.name) is not method for cls in below)


def _index_ignored(view: View, report: Report, getitem: Function) -> None:
    name = view.index
    if not name or _length(view) == 1:
        return
    used = any(isinstance(node, ast.Name) and node.id == name for node in walk(getitem.node))
    if not used and not _is_constant(getitem):
        message = f"{getitem.qualname} never reads {name}, so that a batch has nothing to do with its index"
        report.add("SEQ408", head(getitem), message, cls=view.cls.name)


def _is_constant(getitem: Function) -> bool:
    """Tell whether a method does nothing but return members or literals: a dummy, whose batches are to be alike."""
    match [s for s in getitem.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]:
        case [ast.Return(value=ast.Attribute() | ast.Tuple() | ast.Constant() | ast.List() as value)]:
            return not any(isinstance(node, (ast.Call, ast.Subscript)) for node in ast.walk(value))
    return False


def head(function: Function) -> Site:
    """Return the line that begins a method."""
    site = function.module.site(function.node, function.qualname)
    name = f"def {function.name}"
    return site._replace(end_line=site.line, end_column=site.column + len(name))


def _length(view: View) -> object:
    if view.length is None:
        return None
    values = [node.value for node in view.length.of(ast.Return)]
    if len(values) == 1 and isinstance(values[0], ast.Constant):
        return values[0].value
    return None


def _bad_return(view: View, report: Report, getitem: Function) -> None:
    if getitem.generator:
        message = f"{getitem.qualname} is a generator function, so that a batch is a generator"
        report.add("SEQ501", head(getitem), message, cls=view.cls.name)
        return
    for site, value, chain in view.batches:
        items = value.items
        if value.const == ("NoneType", None):
            report.add("SEQ501", site, "the batch is None", cls=view.cls.name, chain=chain)
            continue
        if value.const is not None and value.const[0] == "NotImplementedType":
            continue
        if "bad-tuple" in value.kinds:
            report.add("SEQ501", site, "tuple() takes one argument", cls=view.cls.name, chain=chain)
        elif "generator" in value.kinds and not value.kinds & {"list", "tuple", "array"}:
            report.add("SEQ501", site, "the batch is a generator", cls=view.cls.name, chain=chain)
        elif "set" in value.kinds and items is None and not value.roots:
            report.add("SEQ501", site, "the batch is a set", cls=view.cls.name, chain=chain, confidence="likely")
        elif items is not None and "tuple" in value.kinds and len(items) > MOST_PARTS:
            message = f"the batch is a tuple of {len(items)}; Keras takes inputs, targets and sample weights"
            report.add("SEQ501", site, message, cls=view.cls.name, chain=chain)
    if not getitem.of(ast.Return) and not _always_raises(getitem):
        report.add("SEQ501", head(getitem), f"{getitem.qualname} returns nothing", cls=view.cls.name)


def _always_raises(function: Function) -> bool:
    last = function.body[-1] if function.body else None
    return isinstance(last, (ast.Raise, ast.Try, ast.With, ast.While, ast.Match))


def _bad_length(view: View, report: Report, length: Function) -> None:
    summary, _ = view.summary(length)
    returns = length.of(ast.Return)
    if not returns and not length.generator and not _always_raises(length):
        report.add("SEQ503", head(length), f"{length.qualname} returns nothing", cls=view.cls.name)
    for node in returns:
        text = _length_fault(view, length, node.value)
        if text:
            site = length.module.site(node, length.qualname)
            report.add("SEQ503", site, f"{length.qualname} {text}", cls=view.cls.name)
    if summary.exits and all(value.const == ("int", 0) for _, value in summary.exits):
        # One 0 among others is for data that is empty.
        report.add("SEQ503", summary.exits[0][0], f"{length.qualname} returns 0", cls=view.cls.name)


def _length_fault(view: View, length: Function, value: ast.expr | None, depth: int = 0) -> str:
    match value:
        case None | ast.Constant(value=None):
            return "returns None"
        case ast.Constant(value=float()):
            return "returns a float"
        case ast.Constant(value=bool()):
            return "returns a bool"
        case ast.BinOp(op=ast.Div()):
            return "returns a float: `/` gives one, `//` an int"
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv(), left=left, right=right):
            # What one side makes a float stays one.
            sides = [side for side in (left, right) if isinstance(side, (ast.BinOp, ast.Call)) or _is_float(side)]
            return _first_fault(view, length, sides, depth)
        case ast.IfExp(body=body, orelse=orelse):
            return _first_fault(view, length, [body, orelse], depth)
        case ast.Name(id=name):
            made = length.sole_value(name)
            return _length_fault(view, length, made, depth + 1) if made and depth < DEEPEST else ""
        case ast.Call(func=ast.Name() | ast.Attribute()):
            refs = _refs(view, length, value.func)
            for ref in refs:
                if ref in EITHER:
                    return _first_fault(view, length, value.args, depth)
                if ref in FLOATS or (ref == "builtins.round" and len(value.args) > 1):
                    return f"returns a float: {ref.replace('builtins.', '')} gives one"
                if ref == "numpy.int":
                    return "calls np.int, which NumPy no longer has"
            called = _called_by(view, length, value.func) if depth < DEEPEST else None
            if called is not None:
                returns = [node.value for node in called.of(ast.Return)]
                return _first_fault(view, called, returns, depth + 1)
    return ""


def _first_fault(view: View, function: Function, values: Sequence[ast.expr | None], depth: int) -> str:
    return next(filter(None, (_length_fault(view, function, value, depth) for value in values)), "")


def _is_float(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, float)


def _called_by(view: View, function: Function, node: ast.expr) -> Function | None:
    """Return the function of the project that is called: of a module, or a method of this very instance."""
    project = view.analysis.project
    value = NOTHING
    match node:
        case ast.Name(id=name):
            value = project.name_in(function.inner, name)
        case ast.Attribute(value=ast.Name(id=owner), attr=attr):
            if function.owner is not None and function.params and owner == function.params[0]:
                return view.analysis.hierarchy.method(view.cls, attr)
            value = project.attribute(project.name_in(function.inner, owner), attr)
    found = [bound.function for bound in value.funcs]
    return found[0] if len(found) == 1 and not found[0].generator else None


def _refs(view: View, function: Function, node: ast.expr) -> frozenset[str]:
    if isinstance(node, ast.Name):
        return view.analysis.project.name_in(function.inner, node.id).refs
    if isinstance(node, ast.Attribute):
        head_refs = _refs(view, function, node.value)
        return frozenset(f"{ref}.{node.attr}" for ref in head_refs)
    return frozenset()


def _super_init(view: View, report: Report) -> None:
    hierarchy = view.analysis.hierarchy
    needs = view.tables.sets["sequence.needs_init"]
    if not any(ref in needs for ref in hierarchy.outside(view.cls)) or hierarchy.is_own(view.cls):
        return
    init = hierarchy.method(view.cls, "__init__")
    if init is None or init.owner is not view.cls:
        return
    owner: Class | None = view.cls
    while init is not None and owner is not None:
        if not _calls_base_init(init):
            break
        init = hierarchy.after(view.cls, owner, "__init__")
        owner = init.owner if init is not None else None
    if init is not None and owner is not None:
        message = f"{init.qualname} does not call super().__init__(**kwargs)"
        report.add("SEQ505", head(init), message, cls=view.cls.name)


def _calls_base_init(init: Function) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "__init__" for node in walk(init.node))


def _hook_name(view: View, report: Report, method: Function) -> None:
    hooks = view.tables.sets["sequence.hooks"]
    if method.name in hooks or method.is_property:
        return
    near = _near(method.name, hooks)
    if near and not _called(view, method.name) and view.analysis.hierarchy.method(view.cls, near) is not method:
        message = f"{method.name} looks like {near}, and nothing calls it"
        report.add("SEQ509", head(method), message, cls=view.cls.name)


@functools.lru_cache(maxsize=4096)
def _near(name: str, hooks: frozenset[str]) -> str:
    """Return the hook that a name is a slip for; empty if it is a name of its own."""
    plain = name.lower().replace("_", "")
    if plain in SLIPS:
        return "on_epoch_begin" if "start" in plain or "beg" in plain else "on_epoch_end"
    for hook in sorted(hooks):
        same = plain == hook.replace("_", "")
        if hook.startswith("__"):
            # `get_item` is a name of its own; `__getItem__` and `__getitem` are not.
            dunder = name.startswith("__") and not hasattr(list, name)
            if dunder and (same or difflib.SequenceMatcher(None, plain, hook.strip("_")).ratio() >= CLOSE):
                return hook
        elif same or difflib.SequenceMatcher(None, name, hook).ratio() >= CLOSE + 0.04:
            return hook
    return ""


def _called(view: View, name: str) -> bool:
    for c in view.analysis.hierarchy.mro(view.cls):
        for node in walk(c.node):
            if isinstance(node, ast.Attribute) and node.attr == name:
                return True
    return False

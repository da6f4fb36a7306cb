"""SEQ1xx, SEQ30x, SEQ601: what a sequence carries with it to its workers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from keras_mpseq.lint.model import Function
from keras_mpseq.lint.report import Report
from keras_mpseq.lint.summary import Effect
from keras_mpseq.lint.zones import View

HANDLES = {
    "SEQ102": "holds a lock, thread, queue or pool",
    "SEQ301": "holds an open array file",
    "SEQ302": "holds a database connection",
    "SEQ303": "holds an open file or socket",
    "SEQ601": "holds a memory map, which is pickled with all its data",
}
LAZY = frozenset({"__init__", "__len__", "__new__", "__post_init__"})
"""Methods that run before workers are made, so that what they open first is open in the parent."""


def detect(view: View, report: Report) -> None:
    """Look at every member that the parent zone stores."""
    named: set[tuple[str, str]] = set()
    for method, effect in view.parent:
        if effect.kind == "write" and effect.root is not None and effect.root.kind == "self" and effect.root.attr:
            _member(view, report, method, effect, named)
    for effect in view.worker:
        if effect.kind == "write" and effect.root and effect.root.kind == "self" and "rebind" in effect.flags:
            _made_in_worker(view, report, effect)
    _is_handle(view, report)
    _locks(view, report, named)
    _lossy(view, report)
    _nested(view, report)
    _used(view, report, named)


def _member(view: View, report: Report, method: Function, effect: Effect, named: set[tuple[str, str]]) -> None:
    attr = effect.root.attr if effect.root else ""
    kinds = effect.value.kinds
    if attr in view.hooks or view.is_dropped(attr):
        return
    lazy = "memo" in effect.flags and method.name not in LAZY and effect.site.function != f"{view.cls.name}.__init__"
    if lazy:
        # Opened on first use: in the parent only if something asks before the workers are there.
        return
    confidence = "certain" if method.name == "__init__" else "likely"
    for code, text in HANDLES.items():
        if code == "SEQ601" and view.is_safe:
            continue  # Our workers map the file themselves.
        if kinds & view.tables.sets[f"resources.{code}"]:
            named.add((code, attr))
            severity = "warning" if kinds & {"session"} and not kinds & {"file"} else ""
            report.at(code, effect, f"self.{attr} {text}", view.cls.name, confidence=confidence, severity=severity)
            return
    what = _unpicklable(kinds, safe=view.analysis.hierarchy.is_own(view.cls))
    if what:
        report.at("SEQ101", effect, f"self.{attr} holds {what}, which cannot be pickled", view.cls.name)
    elif kinds & {"large-literal"}:
        message = f"self.{attr} holds a very large list, which is pickled for every worker"
        report.at("SEQ601", effect, message, view.cls.name)
    elif kinds & {"dataset"}:
        report.at("SEQ101", effect, f"self.{attr} holds a tf.data dataset, which cannot be pickled", view.cls.name)


def _is_handle(view: View, report: Report) -> None:
    """A class that derives from that of a file, thread or lock is one itself."""
    for ref in sorted(view.analysis.hierarchy.bases(view.cls).refs):
        for code, text in HANDLES.items():
            if view.tables.kinds(ref) & view.tables.sets[f"resources.{code}"]:
                site = view.cls.module.site(view.cls.node)
                head = site._replace(end_line=site.line, end_column=site.column + len(f"class {view.cls.name}"))
                message = (
                    f"class {view.cls.name} derives from {ref}, so that each instance {text.replace('holds', 'is')}"
                )
                report.add(code, head, message, cls=view.cls.name)


def _unpicklable(kinds: frozenset[str], *, safe: bool) -> str:
    """Say what cannot be pickled; functions of a SafeSequence travel by value."""
    if "lambda" in kinds and not safe:
        return "a lambda"
    if "local-function" in kinds and not safe:
        return "a function defined inside a method"
    return "a generator" if "generator" in kinds else ""


def _made_in_worker(view: View, report: Report, effect: Effect) -> None:
    """A worker that stores a lambda or generator cannot be pickled afterwards; told only if it is no scratch."""
    attr = effect.root.attr if effect.root else ""
    if attr in view.hooks or attr not in view.exposed or "memo" in effect.flags or view.is_dropped(attr):
        return
    for code, text in HANDLES.items():
        if code != "SEQ102" and effect.value.kinds & view.tables.sets[f"resources.{code}"]:
            report.at(code, effect, f"self.{attr} {text}", view.cls.name, confidence="likely")
            return


def _locks(view: View, report: Report, named: set[tuple[str, str]]) -> None:
    for effect in view.worker:
        root = effect.root
        if effect.kind == "lock-use" and root is not None and root.kind == "self" and root.attr:
            if ("SEQ102", root.attr) in named or view.is_dropped(root.attr) or root.attr in view.hooks:
                continue
            message = f"{effect.detail} is taken while serving a batch; it does not hold between processes"
            report.at("SEQ102", effect, message, view.cls.name, confidence="likely")


def _lossy(view: View, report: Report) -> None:
    """What `__getstate__` removes must come back, or be asked for with care."""
    method = view.analysis.hierarchy.method(view.cls, "__getstate__")
    if method is None or view.analysis.hierarchy.method(view.cls, "__setstate__") is not None or view.only is not None:
        return
    restored = {
        effect.root.attr
        for effect in view.worker
        if effect.kind == "write" and effect.root is not None and effect.root.kind == "self"
    }
    site = view.cls.module.site(method.node, method.qualname)
    for attr in sorted(_removed(method)):
        cared_for = attr in restored or attr in view.hooks or view.analysis.hierarchy.body(view.cls, attr)
        property_ = view.analysis.hierarchy.method(view.cls, attr)
        if attr in view.exposed and not cared_for and property_ is None:
            message = f"__getstate__ removes {attr}, and __getitem__ reads it"
            report.add("SEQ104", site, message, cls=view.cls.name)


def _removed(method: Function) -> Iterator[str]:
    for node in ast.walk(method.node):
        match node:
            case ast.Call(func=ast.Attribute(attr="pop"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case ast.Delete(targets=[ast.Subscript(slice=ast.Constant(value=str(name)))]):
                yield name
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value=str(name)))], value=ast.Constant(value=None)
            ):
                yield name


def _nested(view: View, report: Report) -> None:
    function = view.cls.scope.function
    # The class of a SafeSequence travels by value.
    if function is not None and not view.analysis.hierarchy.is_own(view.cls):
        site = view.cls.module.site(view.cls.node, function.qualname)
        head = site._replace(end_line=site.line, end_column=site.column + len(f"class {view.cls.name}"))
        message = f"class {view.cls.name} is defined inside {function.qualname}, where no other process can import it"
        report.add("SEQ103", head, message, cls=view.cls.name)


def _used(view: View, report: Report, named: set[tuple[str, str]]) -> None:
    """Tell connections by how they are used: those of a module, and those that were handed in."""
    for effect in view.worker:
        root = effect.root
        if effect.kind != "method" or root is None or effect.detail not in view.tables.sets["effects.database_methods"]:
            continue
        if root.kind == "global" and "kind:database" in effect.flags:
            message = f"the global {root.name.rpartition('.')[2]} holds a database connection"
            report.at("SEQ302", effect, message, view.cls.name)
        elif root.kind == "self" and "given" in view.kinds(root.attr) and root.attr not in view.hooks:
            if view.is_dropped(root.attr) or ("SEQ302", root.attr) in named:
                continue
            named.add(("SEQ302", root.attr))
            message = f"self.{root.attr} is used as a database connection, by {effect.detail}()"
            report.at("SEQ302", effect, message, view.cls.name, confidence="likely")

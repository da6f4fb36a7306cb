"""SEQ105, SEQ506: how sequences are used at the top of a script, and with which arguments `fit` is called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.model import Class, Module, dotted_of
from keras_mpseq.lint.nodes import by_kind, children, walk
from keras_mpseq.lint.report import Report

LEGACY = re.compile(r"^\s*(?:import|from)\s+tf_keras\b|TF_USE_LEGACY_KERAS", re.MULTILINE)
"""Says that Keras 2 is meant, in a file that may name Keras in other words as well."""
_TELLING = frozenset({"epochs", "validation_data", "callbacks", "steps_per_epoch", "steps"})
"""Arguments that a method of this name has in Keras, and hardly elsewhere."""


def detect(module: Module, analysis: Analysis, report: Report) -> None:
    """Look at the calls of one module."""
    sequences = [cls for cls in module.all_classes if analysis.hierarchy.is_sequence(cls)]
    if sequences:
        _entry_points(module, sequences, analysis, report)
    _legacy_calls(module, analysis, report)


def _entry_points(module: Module, sequences: Sequence[Class], analysis: Analysis, report: Report) -> None:
    """Calls that would run again in every worker that imports this file anew."""
    # Our own workers import no script.
    sequences = [cls for cls in sequences if not analysis.hierarchy.is_own(cls)]
    names = {cls.name for cls in sequences if cls.scope is module.scope}
    made = {
        target.id
        for statement in _unguarded(module.tree.body)
        for node in _shallow(statement)
        if isinstance(node, ast.Assign) and _makes(node.value, names)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for statement in _unguarded(module.tree.body):
        for node in _shallow(statement):
            if isinstance(node, ast.Call) and _starts_workers(node, names | made, module, analysis):
                cls = sequences[0].name
                text = f"{ast.unparse(node.func)[:40]}(...) runs whenever this file is imported, also in each worker"
                report.add("SEQ105", module.site(node, "<module>"), text, cls=cls)


def _unguarded(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            yield from _unguarded(statement.orelse)
        elif isinstance(statement, (ast.If, ast.For, ast.While, ast.With, ast.Try)):
            for name in ("body", "orelse", "finalbody"):
                yield from _unguarded(getattr(statement, name, []))
        else:
            yield statement


def _shallow(node: ast.AST) -> Iterator[ast.AST]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        if not isinstance(current, ast.Lambda):
            waiting.extend(children(current))


def _makes(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _starts_workers(node: ast.Call, names: set[str], module: Module, analysis: Analysis) -> bool:
    tables = analysis.project.tables
    attr = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    dotted = dotted_of(node)
    head, _, rest = dotted.partition(".")
    refs = analysis.project.name_in(module.scope, head).refs if head else frozenset()
    full = {f"{ref}.{rest}" if rest else ref for ref in refs}
    if attr not in tables.sets["effects.fits"] or any(name.startswith("keras_mpseq.") for name in full):
        return False
    values = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(_mentions(value, names) for value in values)


def _mentions(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    return _makes(node, names)


def _legacy_calls(module: Module, analysis: Analysis, report: Report) -> None:
    tables = analysis.project.tables
    words = tables.sets["effects.fit_arguments"] | tables.sets["effects.removed_fits"]
    if not any(word in module.source for word in words):
        return
    if "keras" not in module.source and "tensorflow" not in module.source:
        return
    if _is_legacy(module, analysis):
        return
    nodes = by_kind(walk(module.tree))
    around = _around(nodes.get(ast.FunctionDef, ()))
    for node in nodes.get(ast.Call, ()):
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in tables.sets["effects.fits"]:
            continue
        head, _, rest = dotted_of(node).partition(".")
        refs = analysis.project.name_in(module.scope, head).refs if head else frozenset()
        if any(f"{ref}.{rest}".startswith("keras_mpseq.") for ref in refs):
            continue
        removed = node.func.attr in tables.sets["effects.removed_fits"] and _is_removed(node, node.func, analysis)
        for keyword in node.keywords:
            legacy = keyword.arg in tables.sets["effects.fit_arguments"]
            if keyword.arg and legacy and (removed or _is_keras(node, keyword.arg)):
                if _is_wrapped(analysis, node.func.attr, keyword.arg) and not _is_model(node.func.value):
                    continue
                message = f"{node.func.attr}() of Keras 3 has no argument {keyword.arg}"
                if node.func.attr in tables.sets["effects.removed_fits"]:
                    message = f"Keras 3 has neither {node.func.attr}() nor its argument {keyword.arg}"
                report.add("SEQ506", module.site(keyword, around.get(node.lineno, "")), message)
                break
        else:
            if removed:
                message = f"Keras 3 has no {node.func.attr}()"
                report.add("SEQ506", module.site(node.func, around.get(node.lineno, "")), message)


def _is_keras(node: ast.Call, argument: str) -> bool:
    """`workers=` alone is an argument of other libraries' `fit` as well."""
    return argument != "workers" or any(keyword.arg in _TELLING for keyword in node.keywords)


def _is_removed(node: ast.Call, function: ast.Attribute, analysis: Analysis) -> bool:
    """Tell whether a method is that of Keras 2, and not one of the same name that the project has itself."""
    if _is_model(function.value):
        return True
    own = any(function.attr in cls.methods for module in analysis.project.parsed() for cls in module.all_classes)
    return not own and any(keyword.arg in _TELLING for keyword in node.keywords)


def _is_legacy(module: Module, analysis: Analysis) -> bool:
    """Tell whether a module, or one that it imports, uses Keras 2 under its new name, which has these arguments."""
    if LEGACY.search(module.source):
        return True
    project = analysis.project
    imported = {dotted for several in module.scope.imports.values() for dotted in several}
    found = {project.find(name, module) for dotted in imported for name in (dotted, dotted.rpartition(".")[0]) if name}
    return any(LEGACY.search(project.sources[name].text) for name in found if name is not None)


def _is_wrapped(analysis: Analysis, method: str, argument: str) -> bool:
    """Tell whether a class of the project has a method of that name which takes the argument itself."""
    key = method, argument
    if key not in analysis.wrapped:
        found = (cls.methods.get(method) for module in analysis.project.parsed() for cls in module.all_classes)
        analysis.wrapped[key] = any(f is not None and argument in f.keyword_names() for f in found)
    return analysis.wrapped[key]


def _is_model(node: ast.expr) -> bool:
    """Tell whether an object is called a model, as that of Keras is when others wrap it."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name.lower().endswith("model")


def _around(functions: Sequence[ast.FunctionDef]) -> dict[int, str]:
    """Return the innermost function at each line; those inside come after those around."""
    return {
        line: function.name
        for function in functions
        for line in range(function.lineno, (function.end_lineno or function.lineno) + 1)
    }

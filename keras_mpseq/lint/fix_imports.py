"""The import that a changed file needs, and the one that it no longer does."""

from __future__ import annotations

import re

import libcst as cst

from keras_mpseq.lint.fix_scene import OURS

Line = cst.BaseCompoundStatement | cst.SimpleStatementLine
_PACKAGE, _, _NAME = OURS.rpartition(".")


def with_import(module: cst.Module) -> cst.Module:
    """Return a module that imports our class, behind the imports of other packages."""
    statement = _ours(module)
    body = list(module.body)
    if any(map(_is_ours, body)):
        return module
    place = _place(body)
    apart = cst.EmptyLine(indent=False)
    if place and not _is_import(body[place - 1]):
        statement = statement.with_changes(leading_lines=[apart])
    elif place == 0 and body:
        lines = [apart, apart] if isinstance(body[0], (cst.ClassDef, cst.FunctionDef)) else []
        body[0] = body[0].with_changes(leading_lines=[*lines, *body[0].leading_lines])
    return module.with_changes(body=[*body[:place], statement, *body[place:]])


def _place(body: list[Line]) -> int:
    """Return the place behind the last absolute import of the leading ones, or behind the docstring."""
    place = 0
    for number, statement in enumerate(body):
        match statement:
            case cst.SimpleStatementLine(body=[cst.ImportFrom(relative=[_, *_])]):
                continue
            case cst.SimpleStatementLine(body=[cst.Import() | cst.ImportFrom(), *_]):
                place = number + 1
            case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
                place = place or number + 1
            case cst.Try() | cst.If() | cst.SimpleStatementLine():
                continue
            case _:
                break
    return place


def _is_import(statement: Line) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and isinstance(
        statement.body[0], (cst.Import, cst.ImportFrom)
    )


def without_imports(module: cst.Module, names: frozenset[str]) -> cst.Module:
    """Return a module that no longer imports those *names* that it mentions nowhere else, not even in a comment.

    Only statements of the form `from package import names` at the top are changed; `import package` may be there for
    what it does. The first that is left without names becomes the import of our class, if that is still needed.
    """
    for name in sorted(names):
        changed = _without(module, name)
        if changed is not None and not re.search(rf"\b{re.escape(name)}\b", changed.code):
            module = changed
    return module


def _without(module: cst.Module, name: str) -> cst.Module | None:
    for number, statement in enumerate(module.body):
        match statement:
            case cst.SimpleStatementLine(body=[cst.ImportFrom(names=[*aliases])]):
                kept = [alias for alias in aliases if (alias.evaluated_alias or alias.evaluated_name) != name]
                if len(kept) < len(aliases):
                    return module.with_changes(body=_replaced(module, number, kept))
    return None


def _replaced(module: cst.Module, number: int, kept: list[cst.ImportAlias]) -> list[Line]:
    body = list(module.body)
    statement = body[number]
    assert isinstance(statement, cst.SimpleStatementLine)
    imported = statement.body[0]
    assert isinstance(imported, cst.ImportFrom)
    assert not isinstance(imported.names, cst.ImportStar)
    if kept:
        kept[-1] = kept[-1].with_changes(comma=imported.names[-1].comma)
        body[number] = statement.with_changes(body=[imported.with_changes(names=kept)])
    elif not any(map(_is_ours, body)):
        body[number] = statement.with_changes(body=_ours(module).body)
    elif statement.trailing_whitespace.comment is None:
        body.pop(number)
        if number < len(body):  # Comments above it stay.
            lines = [*statement.leading_lines, *body[number].leading_lines]
            body[number] = body[number].with_changes(leading_lines=lines)
    return body


def _ours(module: cst.Module) -> cst.SimpleStatementLine:
    statement = cst.parse_statement(f"from {_PACKAGE} import {_NAME}", module.config_for_parsing)
    assert isinstance(statement, cst.SimpleStatementLine)
    return statement


def _is_ours(line: Line) -> bool:
    """Tell whether a statement imports our class; `evaluated_name` is without the `as`."""
    if not isinstance(line, cst.SimpleStatementLine) or not isinstance(line.body[0], cst.ImportFrom):
        return False
    imported = line.body[0]
    package = isinstance(imported.module, cst.Name) and imported.module.value == _PACKAGE
    return (
        package
        and not isinstance(imported.names, cst.ImportStar)
        and any(alias.evaluated_name == _NAME for alias in imported.names)
    )

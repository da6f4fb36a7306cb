"""The changes of a plan, made in a tree that keeps every space and comment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from keras_mpseq.lint.fix_draws import drawn
from keras_mpseq.lint.fix_methods import Rename
from keras_mpseq.lint.fix_plan import Edits, Place
from keras_mpseq.lint.fix_scene import Span

Item = TypeVar("Item", cst.Arg, cst.Param)
Whitespace = cst.BaseParenthesizableWhitespace
_SPACE = cst.SimpleWhitespace(" ")
_NONE = cst.SimpleWhitespace("")


def edited(module: cst.Module, edits: Edits) -> cst.Module:
    """Return the module with the changes, but for its imports."""
    return MetadataWrapper(module, unsafe_skip_copy=True).visit(_Editor(edits, module.config_for_parsing))


class _Editor(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, edits: Edits, config: cst.PartialParserConfig) -> None:
        super().__init__()
        self.edits = edits
        self.config = config

    def _span(self, node: cst.CSTNode) -> Span:
        where = self.get_metadata(PositionProvider, node)
        return where.start.line, where.start.column, where.end.line, where.end.column

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:  # noqa: N802
        bases = [
            new.with_changes(value=cst.Name(self.edits.safe, lpar=_left(new), rpar=_right(new)))
            if self._span(old.value) in self.edits.bases
            else new
            for old, new in zip(original_node.bases, updated_node.bases, strict=True)
        ]
        return updated_node.with_changes(bases=bases)

    def leave_FunctionDef(  # noqa: N802
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        place: Place = self._span(original_node)[:2]
        init = self.edits.inits.get(place)
        statement = self.edits.generators.get(place, "")
        if init is not None:
            statement = init.statement
            if init.adds_kwargs:
                updated_node = updated_node.with_changes(params=_with_kwargs(updated_node))
        if statement:
            updated_node = updated_node.with_changes(body=self._begun(updated_node.body, statement))
        return updated_node

    def _begun(self, body: cst.BaseSuite, text: str) -> cst.BaseSuite:
        """Return a body with one more statement at its begin, behind the docstring."""
        statement = cst.parse_statement(text, self.config)
        assert isinstance(statement, cst.SimpleStatementLine)
        lines = list(body.body)
        if isinstance(body, cst.IndentedBlock):
            first = lines[0]
            documented = isinstance(first, cst.SimpleStatementLine) and _is_docstring(first.body[0])
            lines.insert(1 if documented else 0, statement)
        else:
            documented = _is_docstring(lines[0])
            lines.insert(1 if documented else 0, statement.body[0].with_changes(semicolon=_semicolon()))
            if documented:
                lines[0] = lines[0].with_changes(semicolon=_semicolon())
                if len(lines) == 2:
                    lines[1] = statement.body[0]
        return body.with_changes(body=lines)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:  # noqa: N802
        span = self._span(original_node)
        if span in self.edits.renamed:
            updated_node = _renamed(updated_node, self.edits.renamed[span])
        if span in self.edits.taken:
            updated_node = _without(updated_node, self.edits.taken[span])
        if span in self.edits.given:
            updated_node = self._given(updated_node, self.edits.given[span])
        if span in self.edits.draws:
            return drawn(updated_node, self.edits.draws[span])
        return updated_node

    def _given(self, call: cst.Call, values: Mapping[str, str]) -> cst.Call:
        args = list(call.args)
        for name, text in values.items():
            value = cst.parse_expression(text, self.config)
            if name == "**":
                new = cst.Arg(value, star="**")
            else:
                new = cst.Arg(value, keyword=cst.Name(name), equal=cst.AssignEqual(_NONE, _NONE))
            before = call.whitespace_before_args
            args = _appended(args, new, before, "whitespace_after_arg") if args else [new]
        return call.with_changes(args=args)


def _renamed(call: cst.Call, rename: Rename) -> cst.Call:
    """Return a call of the other method, with names for what had a place of its own in the old one."""
    assert isinstance(call.func, cst.Attribute)
    tight = cst.AssignEqual(_NONE, _NONE)
    args = list(call.args)
    for number, name in enumerate(rename.names):
        if number:
            args[number] = args[number].with_changes(keyword=cst.Name(name), equal=tight)
    for number, arg in enumerate(args):
        if arg.keyword is not None and arg.keyword.value == "generator":
            args[number] = arg.with_changes(keyword=cst.Name("x"))
    return call.with_changes(func=call.func.with_changes(attr=cst.Name(rename.method)), args=args)


def _left(arg: cst.Arg) -> Sequence[cst.LeftParen]:
    return getattr(arg.value, "lpar", ())


def _right(arg: cst.Arg) -> Sequence[cst.RightParen]:
    return getattr(arg.value, "rpar", ())


def _is_docstring(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.Expr) and isinstance(statement.value, (cst.SimpleString, cst.ConcatenatedString))


def _semicolon() -> cst.Semicolon:
    return cst.Semicolon(whitespace_after=_SPACE)


# --- lists of parameters and arguments --------------------------------------------------------------


def _with_kwargs(function: cst.FunctionDef) -> cst.Parameters:
    parameters = function.params
    star = [parameters.star_arg] if isinstance(parameters.star_arg, cst.Param) else []
    items = [*parameters.params, *star, *parameters.kwonly_params]
    kwargs = cst.Param(cst.Name("kwargs"), star="**")
    if not items:
        return parameters.with_changes(star_kwarg=kwargs)
    *items, kwargs = _appended(items, kwargs, function.whitespace_before_params, "whitespace_after_param")
    many = len(parameters.params)
    changes = {"params": items[:many], "kwonly_params": items[many + len(star) :], "star_kwarg": kwargs}
    if star:
        changes["star_arg"] = items[many]
    return parameters.with_changes(**changes)


def _appended(items: list[Item], new: Item, before: Whitespace, after: str) -> list[Item]:
    """Return a list with one more item, laid out as the others are.

    What stood between the last item and the closing parenthesis, a comma perhaps, stands behind the new one; a comment
    stays with its item.

    Args:
        items: At least one.
        new: The item.
        before: What stands in front of the first item.
        after: The field of an item for what stands behind it.
    """
    last = items[-1]
    end = _end(last, after)
    between = _comma_space(items[-2]) if len(items) > 1 else before
    if isinstance(end, cst.ParenthesizedWhitespace) and end.first_line.comment is not None:
        line = between if isinstance(between, cst.ParenthesizedWhitespace) else end
        apart: Whitespace = line.with_changes(first_line=end.first_line, empty_lines=[])
    else:
        apart = _plain(between) if isinstance(between, cst.ParenthesizedWhitespace) else _SPACE
    appended = items[:-1]
    appended.append(last.with_changes(comma=cst.Comma(whitespace_after=apart), **{after: _NONE}))
    appended.append(_ended(new, _plain(end), isinstance(last.comma, cst.Comma), after))
    return appended


def _without(call: cst.Call, names: Collection[str]) -> cst.Call:
    """Return a call without some keywords."""
    kept = [arg for arg in call.args if arg.keyword is None or arg.keyword.value not in names]
    if kept and kept[-1] is not call.args[-1]:
        last, end = kept[-1], _end(call.args[-1], "whitespace_after_arg")
        comment = _comma_space(last)
        if isinstance(comment, cst.ParenthesizedWhitespace) and comment.first_line.comment is not None:
            if not isinstance(end, cst.ParenthesizedWhitespace):
                return call.with_changes(args=kept)  # The parenthesis cannot follow the comment in its line.
            end = end.with_changes(first_line=comment.first_line)
        comma = isinstance(call.args[-1].comma, cst.Comma)
        kept[-1] = _ended(last, end, comma, "whitespace_after_arg")
    return call.with_changes(args=kept)


def _comma_space(item: cst.Arg | cst.Param) -> Whitespace:
    return item.comma.whitespace_after if isinstance(item.comma, cst.Comma) else _SPACE


def _end(last: cst.Arg | cst.Param, after: str) -> Whitespace:
    """Return what stands between the last item and the parenthesis, but for a comma."""
    end: Whitespace = getattr(last, after)
    return last.comma.whitespace_after if isinstance(last.comma, cst.Comma) else end


def _ended(item: Item, end: Whitespace, comma: bool, after: str) -> Item:
    """Return an item as the last of a list; with a comma if there was one, and the parenthesis has its own line."""
    if comma and isinstance(end, cst.ParenthesizedWhitespace):
        return item.with_changes(comma=cst.Comma(whitespace_after=end), **{after: _NONE})
    return item.with_changes(comma=cst.MaybeSentinel.DEFAULT, **{after: end})


def _plain(space: Whitespace) -> Whitespace:
    """Return the same without comments and empty lines."""
    if isinstance(space, cst.ParenthesizedWhitespace):
        first = space.first_line.with_changes(comment=None, whitespace=_NONE)
        return space.with_changes(first_line=first, empty_lines=[])
    return space

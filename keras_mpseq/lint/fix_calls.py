"""`fit(workers=...)` of Keras 2: which constructor the arguments go to, if that is evident.

Evident is: the sequence is made in the call itself, or by the only assignment of its name in the same function or
module; its class takes these arguments; and their values are the same there. Everything else is left to the reader.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.findings import Finding
from keras_mpseq.lint.fix_scene import Scene, Span, span_of
from keras_mpseq.lint.model import Class, Function, Module, dotted_of
from keras_mpseq.lint.nodes import own_nodes

Block = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module
_DATA = ("x", "generator")
"""Names of the argument that is the sequence."""
_COUNTS = ("cpu_count",)
"""Functions that say the same wherever they are called."""


class Move(NamedTuple):
    """Arguments on their way from one call to another, in one file."""

    module: Module
    fit: Span
    method: str
    constructor: Span
    cls: Class
    values: dict[str, str]
    """Name and text of each argument."""


@dataclass(slots=True)
class Constructors:
    """Which constructors hand on keywords to Keras's class, once the missing calls of `super().__init__` are there."""

    scene: Scene
    added: dict[Function, bool]
    """Those that get `super().__init__`, and whether with `**kwargs`."""
    opened: dict[Function, ast.Call] = field(default_factory=dict)
    """Those that call it without arguments, and get `**kwargs`."""

    def accept(self, cls: Class, call: ast.Call, names: Collection[str]) -> bool:
        """Tell whether a call of the class may be given the keywords; note what is to be opened for that."""
        if any(isinstance(argument, ast.Starred) for argument in call.args):
            return False
        if any(keyword.arg is None or keyword.arg in names for keyword in call.keywords):
            return False
        opened: dict[Function, ast.Call] = {}
        init = self.scene.hierarchy.method(cls, "__init__")
        if init is None and call.args:
            return False
        while init is not None:
            taken = set(names) & set(init.keyword_names())
            if taken:
                return taken == set(names) and not taken & set(init.params[1 : 1 + len(call.args)])
            after = self.scene.hierarchy.after(cls, init.owner, "__init__") if init.owner else None
            if not self._hands_on(init, after, opened):
                return False
            init = after
        if not self.scene.is_rooted_in_keras(cls):
            return False
        self.opened |= opened
        return True

    def _hands_on(self, init: Function, after: Function | None, opened: dict[Function, ast.Call]) -> bool:
        if init in self.added:
            return self.added[init]
        calls = [node for node in init.nodes if isinstance(node, ast.Call) and is_super_init(node)]
        if len(calls) != 1 or isinstance(init.node, ast.Lambda):
            return False
        kwargs = init.node.args.kwarg
        if kwargs is not None:
            return any(k.arg is None and dotted_of(k.value) == kwargs.arg for k in calls[0].keywords)
        if after is None and not calls[0].args and not calls[0].keywords and not mentions(init, "kwargs"):
            opened[init] = calls[0]
            return True
        return False


def is_super_init(node: ast.Call) -> bool:
    """Tell whether a call is `super().__init__(...)`."""
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "__init__"
        and isinstance(function.value, ast.Call)
        and dotted_of(function.value) == "super"
    )


def mentions(function: Function, name: str) -> bool:
    """Tell whether a name occurs in a function, as a variable or as a parameter."""
    for node in ast.walk(function.node):
        if name in (getattr(node, "id", ""), getattr(node, "arg", "")) and not isinstance(node, ast.keyword):
            return True
    return False


def moves(findings: Collection[Finding], constructors: Constructors) -> list[Move]:
    """Return what is to be moved; nothing where two calls ask one constructor for different things."""
    found: list[Move] = []
    for finding in findings:
        module = constructors.scene.module(finding.path) if finding.code == "SEQ506" else None
        if module is not None:
            found += [
                move for call, block in calls(module) for move in _move(module, call, block, constructors, finding)
            ]
    agreed: dict[tuple[Module, Span], dict[str, str]] = {}
    refused = set()
    for move in found:
        wanted = agreed.setdefault((move.module, move.constructor), move.values)
        if wanted != move.values:
            refused.add((move.module, move.constructor))
    return [move for move in found if (move.module, move.constructor) not in refused]


def calls(module: Module) -> Iterator[tuple[ast.Call, Block]]:
    """Yield each call, and the function around it, or the module."""
    blocks: list[Block] = [module.tree]
    while blocks:
        block = blocks.pop()
        waiting: list[ast.AST] = list(ast.iter_child_nodes(block))
        while waiting:
            node = waiting.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                blocks.append(node)
                continue
            if isinstance(node, ast.Call):
                yield node, block
            waiting.extend(ast.iter_child_nodes(node))


def _move(module: Module, call: ast.Call, block: Block, constructors: Constructors, finding: Finding) -> Iterator[Move]:
    names = constructors.scene.project.tables.sets["effects.fit_arguments"]
    near = [keyword for keyword in call.keywords if keyword.lineno == finding.line]
    if not any(span_of(module, keyword)[1] == (finding.column or 0) - 1 for keyword in near):
        return
    keywords = [keyword for keyword in call.keywords if keyword.arg in names]
    made = made_by(data_of(call), call, block)
    cls = class_of(made, module, constructors.scene) if made is not None else None
    if made is None or cls is None or not isinstance(call.func, ast.Attribute):
        return
    if not all(_is_steady(k.value, made, block) and not _is_commented(k, module) for k in keywords):
        return
    values = {str(keyword.arg): ast.get_source_segment(module.source, keyword.value) or "" for keyword in keywords}
    if all(values.values()) and constructors.accept(cls, made, values):
        yield Move(module, span_of(module, call), call.func.attr, span_of(module, made), cls, values)


def data_of(call: ast.Call) -> ast.expr | None:
    """Return the argument that is the sequence."""
    if call.args:
        return call.args[0]
    return next((keyword.value for keyword in call.keywords if keyword.arg in _DATA), None)


def made_by(data: ast.expr | None, call: ast.Call, block: Block) -> ast.Call | None:
    """Return the call that makes the sequence."""
    if isinstance(data, ast.Call):
        return data
    if not isinstance(data, ast.Name) or isinstance(block, ast.Lambda):
        return None
    if len(_bindings(block, data.id)) != 1:
        return None
    for node in own_nodes(block):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.lineno < call.lineno:
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id == data.id and isinstance(node.value, ast.Call):
                return node.value
    return None


def _bindings(block: Block, name: str) -> list[int]:
    """Return the lines in which a block binds a name; parameters are bound in the first."""
    found = [
        node.lineno
        for node in own_nodes(block)
        if (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, (ast.Store, ast.Del)))
        or (isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names)
        or (isinstance(node, ast.alias) and (node.asname or node.name.partition(".")[0]) == name)
    ]
    if not isinstance(block, ast.Module):
        found += [node.lineno for node in ast.walk(block.args) if isinstance(node, ast.arg) and node.arg == name]
    return found


def class_of(made: ast.Call, module: Module, scene: Scene) -> Class | None:
    """Return the sequence class that a call makes an instance of; None if that is not evident."""
    head, *rest = dotted_of(made.func).split(".") if not isinstance(made.func, ast.Call) else [""]
    value = scene.project.name_in(module.scope, head)
    for name in rest:
        value = scene.project.attribute(value, name)
    classes = [cls for cls in value.classes if scene.hierarchy.is_sequence(cls)]
    return classes[0] if len(classes) == 1 and len(value.classes) == 1 else None


def _is_commented(keyword: ast.keyword, module: Module) -> bool:
    """Tell whether a comment would be left without its argument."""
    first, _, last, end = span_of(module, keyword)
    lines = module.source.split("\n")
    return "#" in lines[last - 1][end:] or lines[first - 2].lstrip().startswith("#")


def _is_steady(value: ast.expr, made: ast.Call, block: Block) -> bool:
    """Tell whether an argument means the same where the sequence is made."""
    for node in ast.walk(value):
        match node:
            case ast.Name(id=name):
                if any(line >= made.lineno for line in _bindings(block, name)):
                    return False
            case ast.Call():
                if dotted_of(node).rpartition(".")[2] not in _COUNTS:
                    return False
            case ast.NamedExpr() | ast.Await() | ast.Yield() | ast.YieldFrom() | ast.Lambda() | ast.comprehension():
                return False
    return True

"""Walks over syntax trees: each node once, without recursion, and without the leaves that say nothing.

`ast.walk` asks every node for every field, and yields a node for each `Load` and `+`; a file is then mostly those.
"""

from __future__ import annotations

import ast
from typing import Any

LEAVES = frozenset({"ctx", "op", "ops"})
"""Fields that hold no code, but a mark: operators and contexts."""
CLOSED: frozenset[type[ast.AST]] = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef})
"""What begins a scope of its own."""

_BARE: frozenset[type[ast.AST]] = frozenset({ast.Name, ast.Constant})
_ENDS = _BARE | CLOSED
"""Nodes with nothing of the same function below them."""
_fields: dict[type[ast.AST], tuple[str, ...]] = {}


def children(node: ast.AST) -> list[ast.AST]:
    """Return the nodes right below one, in the order of their fields."""
    kind = node.__class__
    names = _fields.get(kind)
    if names is None:
        names = _fields[kind] = tuple(name for name in kind._fields if name not in LEAVES)
    found: list[ast.AST] = []
    for name in names:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """Return a node and all nodes below it, level by level."""
    found = [node]
    for current in found:
        if current.__class__ not in _BARE:
            found += children(current)
    return found


def own_nodes(node: ast.AST) -> list[ast.AST]:
    """Return the nodes of a function or block without those of the functions and classes inside."""
    waiting = children(node)
    found = []
    while waiting:
        current = waiting.pop()
        found.append(current)
        if current.__class__ not in _ENDS:
            waiting += children(current)
    return found


def by_kind(nodes: list[ast.AST]) -> dict[type[ast.AST], list[Any]]:
    """Return nodes sorted by their class, in the same order."""
    found: dict[type[ast.AST], list[Any]] = {}
    for node in nodes:
        known = found.get(node.__class__)
        if known is None:
            found[node.__class__] = [node]
        else:
            known.append(node)
    return found

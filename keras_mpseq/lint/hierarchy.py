"""Bases, method resolution order, and which classes are sequences.

Bases are followed through the whole project, also where code fetches Keras's class by a helper, as in
`Sequence = keras_import("utils", "Sequence")` or `Base = get_keras_submodule("utils").Sequence`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection

from keras_mpseq.lint.model import Class, Function, Scope, dotted_of
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.tables import plain
from keras_mpseq.lint.values import NOTHING, Value, join

DEPTH = 12
"""Assignments that a base is followed through."""


class Hierarchy:
    """The classes of a project."""

    def __init__(self, project: Project, extra_bases: Collection[str] = ()) -> None:
        """Know a project, and names of bases that make a class a sequence."""
        self.project = project
        self.extra: frozenset[str] = frozenset(extra_bases)
        self._mro: dict[Class, tuple[Class, ...]] = {}
        self._outside: dict[Class, frozenset[str]] = {}
        self._bases: dict[Class, Value] = {}
        self._methods: dict[Class, dict[str, Function]] = {}
        self._setters: dict[Class, dict[str, Function]] = {}
        self._is_sequence: dict[Class, bool] = {}

    def bases(self, cls: Class) -> Value:
        """Return the bases: classes of the project, and full names outside."""
        if cls not in self._bases:
            self._bases[cls] = NOTHING
            value = NOTHING
            for base in cls.node.bases:
                value = join(value, self._value(base, cls.scope, DEPTH))
            self._bases[cls] = value._replace(classes=value.classes - {cls})
        return self._bases[cls]

    def mro(self, cls: Class) -> tuple[Class, ...]:
        """Return the class and its ancestors in the project, in order of resolution."""
        if cls not in self._mro:
            self._mro[cls] = (cls,)
            found: list[Class] = [cls]
            for base in self._ordered(cls):
                found.extend(self.mro(base))
            # The last mention wins, so that a common base comes after all that derive from it.
            self._mro[cls] = tuple(reversed(dict.fromkeys(reversed(found))))
            for known in (self._methods, self._setters, self._is_sequence):
                # Whoever asked meanwhile saw the class without its ancestors.
                known.pop(cls, None)
        return self._mro[cls]

    def _ordered(self, cls: Class) -> list[Class]:
        ordered = []
        for base in cls.node.bases:
            found = self._value(base, cls.scope, DEPTH).classes
            ordered += sorted((c for c in found if c is not cls), key=lambda c: c.qualname)
        return ordered

    def outside(self, cls: Class) -> frozenset[str]:
        """Return the full names outside the project that the class derives from."""
        if cls not in self._outside:
            self._outside[cls] = frozenset(ref for c in self.mro(cls) for ref in self.bases(c).refs)
        return self._outside[cls]

    def is_sequence(self, cls: Class) -> bool:
        """Tell whether workers would call its `__getitem__`."""
        if cls not in self._is_sequence:
            self._is_sequence[cls] = self._derives(cls)
        return self._is_sequence[cls]

    def _derives(self, cls: Class) -> bool:
        names = self.project.tables.lists["sequence.bases"]
        if any(ref in names or ref in self.extra or ref.rpartition(".")[2] in self.extra for ref in self.outside(cls)):
            return True
        return any(c.qualname in self.extra or c.name in self.extra for c in self.mro(cls)[1:])

    def is_own(self, cls: Class) -> bool:
        """Tell whether it derives from a class of this package."""
        names = {*self.outside(cls), *(c.qualname for c in self.mro(cls))}
        return any(name in self.project.tables.lists["sequence.own"] for name in names)

    def method(self, cls: Class, name: str) -> Function | None:
        """Return the method that an instance of the class would run."""
        return self.methods(cls).get(name)

    def methods(self, cls: Class) -> dict[str, Function]:
        """Return all methods that an instance of the class has, by name."""
        if cls not in self._methods:
            self._methods[cls] = {name: found for c in reversed(self.mro(cls)) for name, found in c.methods.items()}
        return self._methods[cls]

    def setter(self, cls: Class, name: str) -> Function | None:
        """Return the setter that an assignment to the attribute would run."""
        if cls not in self._setters:
            self._setters[cls] = {name: found for c in reversed(self.mro(cls)) for name, found in c.setters.items()}
        return self._setters[cls].get(name)

    def after(self, cls: Class, owner: Class, name: str) -> Function | None:
        """Return the method that `super().name` means in a method of *owner*."""
        order = self.mro(cls)
        start = order.index(owner) + 1 if owner in order else 1
        for c in order[start:]:
            if name in c.methods:
                return c.methods[name]
        return None

    def body(self, cls: Class, name: str) -> tuple[Class, ast.expr] | None:
        """Return the class attribute of that name: who defines it, and its value."""
        for c in self.mro(cls):
            if name in c.body:
                return c, c.body[name]
        return None

    def _value(self, node: ast.expr, scope: Scope, depth: int) -> Value:
        if depth == 0:
            return NOTHING
        match node:
            case ast.Name():
                return self._name(node.id, scope, depth)
            case ast.Attribute():
                return self._attribute(node, scope, depth)
            case ast.Subscript():
                return self._value(node.value, scope, depth - 1)
            case ast.IfExp():
                return join(self._value(node.body, scope, depth - 1), self._value(node.orelse, scope, depth - 1))
            case ast.BoolOp():
                value = NOTHING
                for part in node.values:
                    value = join(value, self._value(part, scope, depth - 1))
                return value
            case ast.Call():
                return self._fetched(node, scope, depth)
        return NOTHING

    def _name(self, name: str, scope: Scope, depth: int) -> Value:
        around: Scope | None = scope
        while around is not None:
            value = self._followed(self.project.bound_in(around, name), scope, depth)
            for assigned in around.assigned.get(name, ())[:4]:
                if not (isinstance(assigned, ast.Name) and assigned.id == name):
                    value = join(value, self._value(assigned, around, depth - 1))
            if value.refs or value.classes:
                return value
            around = around.parent
        return self._followed(self.project.lookup(scope.module, name), scope, depth)

    def _followed(self, value: Value, scope: Scope, depth: int) -> Value:
        """Follow a global of another module to what it was assigned there."""
        result = Value(refs=value.refs, classes=value.classes)
        for root in value.roots if depth > 0 else ():
            module = self.project.module(root.name.rpartition(".")[0])
            if module is not None and module is not scope.module:
                result = join(result, self._name(root.name.rpartition(".")[2], module.scope, depth - 1))
        return result

    def _attribute(self, node: ast.Attribute, scope: Scope, depth: int) -> Value:
        if isinstance(node.value, ast.Call) and self._speaks_of_utils(node.value):
            found = self._named(node.attr)
            if found is not NOTHING:
                return found
        base = self._value(node.value, scope, depth - 1)
        value = self.project.attribute(base, node.attr)
        if value is NOTHING and dotted_of(node).endswith(("keras.utils.Sequence", "keras.utils.PyDataset")):
            return self._named(node.attr)
        return value

    def _fetched(self, node: ast.Call, scope: Scope, depth: int) -> Value:
        words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if dotted_of(node) == "getattr" and len(node.args) >= 2 and words:
            return self.project.attribute(self._value(node.args[0], scope, depth - 1), words[0])
        if words and self._speaks_of_utils(node):
            return self._named(words[-1].rpartition(".")[2])
        return NOTHING

    @staticmethod
    def _speaks_of_utils(node: ast.Call) -> bool:
        words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return any("utils" in word.split(".") for word in words)

    def _named(self, name: str) -> Value:
        if name in self.project.tables.sets["sequence.names"]:
            return Value(refs=frozenset({plain(f"keras.utils.{name}")}))
        return NOTHING

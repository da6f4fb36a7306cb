"""Assignments: to names, attributes, items and what is unpacked; each that outlives the call is an effect."""

from __future__ import annotations

import ast

from keras_mpseq.lint import guards
from keras_mpseq.lint.calls import ast_text, call_at, held_roots, is_alias
from keras_mpseq.lint.expressions import Expressions
from keras_mpseq.lint.values import NOTHING, Bound, Root, Value, deeper, derived, join, stored


class Assignments(Expressions):
    """A frame that can give something a value."""

    def _assign_all(self, node: ast.Assign) -> None:
        roots = self._kept_roots(node)
        self.memo.append(roots)
        value = self.eval(node.value)
        for target in node.targets:
            self.assign(target, value, node)
        self.memo.pop()

    def _kept_roots(self, node: ast.Assign) -> frozenset[Root]:
        """Return the targets that `self.x = self.x or make()` leaves alone if they are there."""
        value = node.value
        if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or):
            return guards.held(self.eval(value.values[0]))
        if isinstance(value, ast.IfExp):
            return guards.missing(self, value.test, False) | guards.missing(self, value.test, True)
        return frozenset()

    def _annassign_statement(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.eval(node.value), node)

    def assign(self, target: ast.expr, value: Value, node: ast.AST) -> None:
        """Give a target a value."""
        match target:
            case ast.Name():
                self._assign_name(target.id, value, node)
            case ast.Attribute():
                self._assign_attribute(target, value, target)
            case ast.Subscript():
                self._assign_item(target, value, target)
            case ast.Tuple() | ast.List():
                same = value.items is not None and len(value.items) == len(target.elts)
                for position, part in enumerate(target.elts):
                    if same and value.items is not None and not isinstance(part, ast.Starred):
                        self.assign(part, value.items[position], node)
                    else:
                        self.assign(part, self.iterated(value, node), node)
            case ast.Starred():
                self.assign(target.value, value._replace(kinds=value.kinds | {"list"}), node)

    def _assign_name(self, name: str, value: Value, node: ast.AST, *flags: str) -> None:
        if name in self.locals.globals:
            root = Root("global", f"{self.module.name}.{name}")
            self.write([root], name, node, stored(value), "rebind", *flags)
        elif name in self.locals.nonlocals and name in self.free:
            self.write([Root("cell", self.free[name])], name, node, stored(value), "rebind", "cell", *flags)
        else:
            self.env[name] = value

    def _assign_attribute(self, target: ast.Attribute, value: Value, node: ast.AST, *flags: str) -> None:
        base = self.eval(target.value)
        for cls in base.instances:
            setter = self.analysis.hierarchy.setter(cls, target.attr)
            if setter is not None:
                self.apply(Bound(setter, base), call_at(node, value))
                return
        roots = [Root("class", cls.qualname, target.attr) for cls in base.classes]
        roots += [Root("global", f"{ref.lstrip('@')}.{target.attr}") for ref in base.refs if "aug" not in flags]
        roots += [deeper(root, target.attr) for root in held_roots(base)]
        alias = {"alias"} if is_alias(target.value, self) else set()
        for root, whole in [(root, not _is_inside(root, base)) for root in roots]:
            how = "rebind" if whole else "item"
            self.write([root], ast_text(target), node, stored(value), how, *flags, *alias)
        if len(base.roots) == 1 and not any(root.attr for root in base.roots) and "aug" not in flags:
            self.env[deeper(next(iter(base.roots)), target.attr)] = stored(value)

    def _assign_item(self, target: ast.Subscript, value: Value, node: ast.AST, *flags: str) -> None:
        base = self.quiet(target.value)
        key = self.eval(target.slice)
        for cls in base.instances:
            method = self.analysis.hierarchy.method(cls, "__setitem__")
            if method is not None:
                self.apply(Bound(method, base), call_at(node, key, value))
                return
        if "globals" in base.kinds and key.const is not None and isinstance(key.const[1], str):
            root = Root("global", f"{self.module.name}.{key.const[1]}")
            self.write([root], ast_text(target), node, stored(value), "rebind", *flags)
            return
        alias = is_alias(target.value, self)
        if not (alias and "weak" in base.kinds):
            more = {*flags, "alias"} if alias else set(flags)
            if alias and "view" in base.kinds:
                more.add("view")
            # What is stored under a key may depend on all that the key depends on.
            kept = stored(value)._replace(taints=value.taints - key.taints)
            self.write(held_roots(base), ast_text(target.value), node, kept, "item", *more)
        if isinstance(target.value, ast.Name) and target.value.id in self.env:
            inside = value._replace(roots=frozenset(), const=None, items=None, kinds=value.kinds - {"scalar", "view"})
            before = self.env[target.value.id]
            self.env[target.value.id] = join(before._replace(items=None), inside)._replace(const=None)

    def _augassign_statement(self, node: ast.AugAssign) -> None:
        value = self.eval(node.value)
        match node.target:
            case ast.Name():
                self._augment_name(node.target, value, node)
            case ast.Attribute():
                # Numbers that are added up are the same in every order; lists are not.
                if "list" not in value.kinds:
                    value = value._replace(taints=frozenset(t for t in value.taints if t.kind != "unordered"))
                self._assign_attribute(node.target, value._replace(const=None), node.target, "aug")
            case ast.Subscript():
                self._assign_item(node.target, value._replace(const=None), node.target, "aug")

    def _augment_name(self, target: ast.Name, value: Value, node: ast.AugAssign) -> None:
        before = self.load(target.id)
        name = target.id
        if name in self.locals.globals or (name in self.locals.nonlocals and name in self.free):
            self._assign_name(name, value, node, "aug")
            return
        arrays = before.kinds & {"view", "array", "list", "set"} or (
            name in self.analysis.arrays_of(self.function) and before.kinds & {"element"}
        )
        if before.roots and arrays and "weak" not in before.kinds:
            self.write(held_roots(before), name, node, value, "item", "aug", "alias", "view")
        elif name in self.function.params and before.roots:
            # Only the caller knows whether it is an array: a number would not be changed.
            own = [root for root in held_roots(before) if root == Root("param", name)]
            self.write(own, name, node, value, "item", "aug", "maybe")
        self.env[name] = join(before._replace(const=None), derived(before, value))._replace(
            const=None, kinds=before.kinds | (value.kinds & {"list", "array"})
        )

    def _delete_statement(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.env.pop(target.id, None)
            elif isinstance(target, ast.Attribute):
                roots = [deeper(root, target.attr) for root in held_roots(self.eval(target.value))]
                self.write(roots, ast_text(target), target, NOTHING, "del")
            elif isinstance(target, ast.Subscript):
                self.eval(target.slice)
                self.write(held_roots(self.quiet(target.value)), ast_text(target.value), target, NOTHING, "item", "del")


def _is_inside(root: Root, base: Value) -> bool:
    """Tell whether the root's own attribute was there before: then a part of it is written, not itself."""
    return root in base.roots

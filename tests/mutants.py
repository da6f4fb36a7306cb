"""Mutants: a copy of a clean sequence with one hazard, in its class, in a base class, or in another module.

A mutant is a small project: the module of the class, the modules that it imports, and those that the mutation adds.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hazards import Hazard

CLEAN = Path(__file__).parent / "clean"
PLACES = ("class", "base", "other")
BASE = "foundation"
"""The module of a base class that a mutation adds."""
OTHER = "helpers"
"""The module of the functions that a mutation adds."""
KERAS_ONLY = ("SEQ101", "SEQ103", "SEQ105", "SEQ601")
"""Hazards of sequences of Keras, many of which are none for a SafeSequence."""
FUTURE = "from __future__ import annotations\n"


@functools.cache
def source(module: str) -> str:
    return (CLEAN / f"{module}.py").read_text()


@functools.cache
def needed(module: str) -> tuple[str, ...]:
    """Return a module of the clean package with those that it imports from there."""
    found = {module: None}
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= dict.fromkeys(name for one in names for name in needed(one))
    return tuple(found)


@functools.cache
def sequences() -> dict[str, str]:
    """Return the module of each class that has a `make`."""
    found = {}
    for path in sorted(CLEAN.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "make":
                found[ast.unparse(node.returns)] = path.stem if node.returns else ""
    return found


def places(hazard: Hazard) -> tuple[str, ...]:
    """Return where a hazard makes sense."""
    return {"script": ("class",), "local": ("class", "other")}.get(hazard.where, PLACES)


class Mutant:
    """A project in the making.

    Args:
        name: The class.
        place: One of `PLACES`.
        hazard: What to put there.
    """

    def __init__(self, name: str, place: str, hazard: Hazard) -> None:
        self.name, self.place, self.hazard = name, place, hazard
        self.home = sequences()[name]
        self.trees = {module: ast.parse(source(module)) for module in needed(self.home)}
        if hazard.code in KERAS_ONLY:
            for tree in self.trees.values():
                _of_keras(tree)
        self.cls = self._class(self.home, name)
        self.base = self.cls
        if place == "base":
            self.base = self._root() or self._new_base()
        elif place == "other":
            self.trees[OTHER] = ast.parse(FUTURE)
            self._into_module(self.home, f"from . import {OTHER}")
        self._mutate()

    def texts(self) -> dict[str, str]:
        """Return the text of each module."""
        return {module: ast.unparse(ast.fix_missing_locations(tree)) for module, tree in self.trees.items()}

    # --- places -------------------------------------------------------------------------------------

    def _class(self, module: str, name: str) -> ast.ClassDef:
        return next(n for n in self.trees[module].body if isinstance(n, ast.ClassDef) and n.name == name)

    def _root(self) -> ast.ClassDef | None:
        """Return the last base class that the project itself has."""
        classes = {n.name: n for tree in self.trees.values() for n in tree.body if isinstance(n, ast.ClassDef)}
        found, name = None, ast.unparse(self.cls.bases[0])
        while name in classes:
            found = classes[name]
            name = ast.unparse(found.bases[0])
        return found

    def _new_base(self) -> ast.ClassDef:
        """Put a class of another module between the class and its base."""
        outer = ast.unparse(self.cls.bases[0])
        head = outer.partition(".")[0]
        imports = [node for node in self.trees[self.home].body if isinstance(node, (ast.Import, ast.ImportFrom))]
        line = next(n for n in imports if head in [alias.asname or alias.name for alias in n.names])
        text = f"{FUTURE}{ast.unparse(line)}\n\nclass Foundation({outer}):\n    pass\n"
        self.trees[BASE] = ast.parse(text)
        self._into_module(self.home, f"from .{BASE} import Foundation")
        self.cls.bases[0] = ast.Name("Foundation", ast.Load())
        return self._class(BASE, "Foundation")

    @property
    def _module(self) -> str:
        """The module that the hazard goes into."""
        if self.place == "other":
            return OTHER
        return next(module for module, tree in self.trees.items() if self.base in tree.body)

    def _into_module(self, module: str, text: str) -> None:
        """Add statements behind the imports of a module."""
        body = self.trees[module].body
        last = max(at for at, node in enumerate(body) if isinstance(node, (ast.Import, ast.ImportFrom)))
        body[last + 1 : last + 1] = ast.parse(text).body

    # --- methods ------------------------------------------------------------------------------------

    def _method(self, cls: ast.ClassDef, name: str, *, star: bool = False) -> ast.FunctionDef:
        """Return a method of a class; one that it lacks calls that of its base."""
        for node in cls.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
        parameters = "self, *args, **kwargs" if star else "self"
        arguments = "*args, **kwargs" if star else ""
        prefix = "return " if name.startswith("__") and name != "__init__" else ""
        text = f"def {name}({parameters}):\n    {prefix}super().{name}({arguments})\n"
        return self._add(cls, text)

    def _add(self, cls: ast.ClassDef, text: str) -> ast.FunctionDef:
        (method,) = ast.parse(text).body
        assert isinstance(method, ast.FunctionDef)
        cls.body.append(method)
        return method

    def _getitem(self) -> ast.FunctionDef:
        """Return the `__getitem__` that the hazard goes into."""
        for cls in (self.base, self.cls):
            for node in cls.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__getitem__":
                    return node
        return self._add(self.cls, "def __getitem__(self, index):\n    return super().__getitem__(index)\n")

    def _is_here(self, getitem: ast.FunctionDef) -> bool:
        """Tell whether the hazard stands in `__getitem__` itself."""
        return self.place != "other" and getitem in self.base.body

    # --- mutations ----------------------------------------------------------------------------------

    def _mutate(self) -> None:
        hazard = self.hazard
        if hazard.module:
            self._into_module(self._module, hazard.module)
            if self.place == "other" and hazard.init:
                self._into_module(self.home, hazard.module)
        if hazard.init:
            self._method(self.base, "__init__", star=True).body += statements(hazard.init, S="self")
        if hazard.reads:
            self._add(self.cls, f"def summary(self):\n    return list(self.{hazard.reads})\n")
        getattr(self, f"_in_{hazard.where}")()

    def _in_worker(self) -> None:
        getitem = self._getitem()
        index = getitem.args.args[1].arg
        has_text = isinstance(getitem.body[0], ast.Expr) and isinstance(getitem.body[0].value, ast.Constant)
        step = self._step("step", {"INDEX": index}, here=self._is_here(getitem))
        getitem.body[has_text:has_text] = step

    def _in_batch(self) -> None:
        getitem = self._getitem()
        index = getitem.args.args[1].arg
        here = self._is_here(getitem)
        if not here:
            self._helper("finish", ["INDEX", "BATCH"], self.hazard.text)

        def replaced(batch: str) -> list[ast.stmt]:
            if here:
                end = statements(self.hazard.text, S="self", INDEX=index, BATCH="whole")
                return [*ast.parse(f"whole = {batch}").body, *end]
            return ast.parse(f"return {self._callee('finish', [index, batch])}").body

        getitem.body = list(_replacing_returns(getitem.body, replaced))

    def _in_init(self) -> None:
        self._method(self.base, "__init__", star=True).body += self._step("prepare", {}, here=self.place != "other")

    def _in_member(self) -> None:
        value = self.hazard.text
        if self.place == "other":
            self._helper("opened", [], f"return {value}")
            value = self._callee("opened", [])
        self._method(self.base, "__init__", star=True).body += statements(f"S.extra = {value}", S="self")

    def _in_epoch(self) -> None:
        hook = self._method(self.base, "on_epoch_end")
        hook.body += self._step("arrange", {}, here=self.place != "other")
        if self.base is not self.cls:
            own = self._method(self.cls, "on_epoch_end")
            if "super()" not in ast.unparse(own):
                own.body += ast.parse("super().on_epoch_end()").body

    def _in_length(self) -> None:
        """The class has another length: written there, in a base class, or from a function."""
        length = self._method(self.base if self.base.name != "Foundation" else self.cls, "__len__")
        if self.base.name == "Foundation":
            self.cls.body.remove(length)
            self.base.body.append(length)
            self._take_imports(length)
        if self.place == "other":
            self._helper("counted", ["LENGTH"], f"return {self.hazard.text}")

        def replaced(value: str) -> list[ast.stmt]:
            if self.place == "other":
                return ast.parse(f"return {self._callee('counted', [value])}").body
            return statements(f"return {self.hazard.text}", LENGTH=f"({value})")

        length.body = list(_replacing_returns(length.body, replaced))

    def _take_imports(self, method: ast.FunctionDef) -> None:
        """Let the module of the new base class import what a method needs."""
        used = {node.id for node in ast.walk(method) if isinstance(node, ast.Name)}
        for node in self.trees[self.home].body:
            if isinstance(node, (ast.Import, ast.ImportFrom)) and used & {a.asname or a.name for a in node.names}:
                self._into_module(BASE, ast.unparse(node))

    def _in_method(self) -> None:
        text = f"def {self.hazard.text}(self):\n    self.finished = True\n"
        if self.place != "other":
            self._add(self.base, text)
            return
        self.trees[OTHER].body += ast.parse(f"class Mixin:\n    {text.replace(chr(10), chr(10) + '    ')}").body
        self.cls.bases.insert(0, ast.parse(f"{OTHER}.Mixin", mode="eval").body)

    def _in_index(self) -> None:
        """Whatever the index is, the batch is the same one."""
        getitem = self._getitem()
        getitem.name = "build"
        if self.place == "other":
            self._helper("chosen", [], "return S.build(0)")
            self._add(self.cls, f"def __getitem__(self, index):\n    return {self._callee('chosen', [])}\n")
        else:
            self._add(self.base, "def __getitem__(self, index):\n    return self.build(0)\n")

    def _in_local(self) -> None:
        """The class, or one that derives from it in another module, is made by a function."""
        if self.place == "other":
            text = f"def defined():\n    class Local({self.name}):\n        pass\n    return Local\n"
            self.trees[OTHER] = ast.parse(f"from .{self.home} import {self.name}\n{text}")
            self.trees[self.home] = ast.parse(source(self.home))
            return
        body = self.trees[self.home].body
        (function,) = ast.parse(f"def defined():\n    return {self.name}").body
        assert isinstance(function, ast.FunctionDef)
        function.body.insert(0, self.cls)
        at = body.index(self.cls)
        body[at : at + 1] = [function, *ast.parse(f"{self.name} = defined()").body]

    def _in_script(self) -> None:
        self.trees[self.home].body += statements(self.hazard.text, MADE=f"{self.name}()")

    # --- text ---------------------------------------------------------------------------------------

    def _step(self, name: str, arguments: dict[str, str], *, here: bool) -> list[ast.stmt]:
        """Return the hazard itself, or a call of the method or function that it becomes."""
        if here:
            return statements(self.hazard.text, S="self", **arguments)
        self._helper(name, list(arguments), self.hazard.text)
        return ast.parse(self._callee(name, list(arguments.values()))).body

    def _callee(self, name: str, arguments: list[str]) -> str:
        if self.place == "other":
            return f"{OTHER}.{name}({', '.join(['self', *arguments])})"
        return f"self.{name}({', '.join(arguments)})"

    def _helper(self, name: str, parameters: list[str], text: str) -> None:
        other = self.place == "other"
        owner = "sequence" if other else "self"
        names = {parameter: parameter.lower() for parameter in parameters}
        (function,) = ast.parse(f"def {name}({', '.join([owner, *names.values()])}):\n    pass").body
        assert isinstance(function, ast.FunctionDef)
        function.body = statements(text, S=owner, **names)
        (self.trees[OTHER] if other else self.base).body.append(function)


def _replacing_returns(body: list[ast.stmt], replaced: Callable[[str], list[ast.stmt]]) -> Iterator[ast.stmt]:
    """Put other statements in the place of each return, which get what is returned."""
    for statement in body:
        if isinstance(statement, ast.Return) and statement.value is not None:
            yield from replaced(ast.unparse(statement.value))
            continue
        for part in ("body", "orelse", "finalbody"):
            inner = getattr(statement, part, None)
            if inner and not isinstance(statement, ast.FunctionDef):
                setattr(statement, part, list(_replacing_returns(inner, replaced)))
        yield statement


def statements(text: str, **names: str) -> list[ast.stmt]:
    """Parse a text, and put expressions in the place of some names."""
    values = {name: ast.parse(value, mode="eval").body for name, value in names.items()}

    class Renaming(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return values.get(node.id, node)

    return [Renaming().visit(statement) for statement in ast.parse(text).body]


def _of_keras(tree: ast.Module) -> None:
    """Put Keras's own class in the place of SafeSequence."""
    for node in list(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "keras_mpseq":
            kept = [alias for alias in node.names if alias.name != "SafeSequence"]
            if len(kept) < len(node.names):
                tree.body.insert(
                    tree.body.index(node), *ast.parse("from keras.utils import PyDataset as SafeSequence").body
                )
                node.names = kept
                if not kept:
                    tree.body.remove(node)

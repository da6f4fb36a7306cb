"""What `--fix` asks of a project: its modules by path, its classes by name, and where a node stands.

Places are those of the linter's tree, in characters, so that they are found again in a tree that keeps formatting.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

from keras_mpseq.findings import Finding
from keras_mpseq.lint.config import Config
from keras_mpseq.lint.files import Source, UnreadableError, module_name, read
from keras_mpseq.lint.hierarchy import Hierarchy
from keras_mpseq.lint.model import Class, Function, Module
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.tables import load
from keras_mpseq.lint.values import Value

Span = tuple[int, int, int, int]
"""First line and column, last line and column; lines from 1, columns from 0, the last one exclusive."""
OURS = "keras_mpseq.SafeSequence"
_HARMLESS = frozenset({"builtins.object", "abc.ABC", "typing.Generic", "typing.Any"})
"""Bases whose `__init__` is that of `object`."""
_OUR_MEMBERS = frozenset({"rng", "epoch", "empty", "sync", "num_batches"})
"""What SafeSequence has: a class with another thing of that name keeps its base."""


class Scene:
    """The files of a run; those that cannot be read are left alone.

    Args:
        paths: Of the files.
        settings: What is known of bases and functions that are not read.
        texts: Of files that are to be changed.
    """

    def __init__(self, paths: Sequence[str], settings: Config, texts: Mapping[str, str] | None = None) -> None:
        sources = []
        packages: dict[str, bool] = {}
        for path in paths:
            try:
                text = texts[path] if texts and path in texts else read(path)
            except UnreadableError:
                continue
            sources.append(Source(path, *module_name(path, packages), text))
        self.project: Project = Project(sources, load(settings.decls))
        self.hierarchy: Hierarchy = Hierarchy(self.project, settings.extra_bases)
        self._by_path = {source.path: source for source in sources}

    def module(self, path: str | None) -> Module | None:
        """Return the module of a file; None if there is none, or it does not parse."""
        source = self._by_path.get(path or "")
        return self.project.module(source.name) if source else None

    def modules_with(self, word: str) -> Iterator[Module]:
        """Yield the modules in whose text a word occurs."""
        for source in self._by_path.values():
            module = self.project.module(source.name) if word in source.text else None
            if module is not None:
                yield module

    def is_imported(self, module: Module, name: str) -> bool:
        """Tell whether another file may take a name from a module, as far as its text says."""
        stem, wanted = re.escape(module.name.rpartition(".")[2]), rf"(?:\b{re.escape(name)}\b|\*)"
        names = rf"(?:\([^)]*{wanted}|[^\n]*{wanted})"
        taken = re.compile(rf"\b{stem}\.{re.escape(name)}\b|from\s+\S*\b{stem}\s+import\s+{names}")
        return module.is_package or any(
            taken.search(source.text) for source in self._by_path.values() if source.path != module.path
        )

    def classes_of(self, finding: Finding) -> Iterator[Class]:
        """Yield the sequence classes that a finding is about; of several of one name, those that come from its file."""
        paths = {finding.path, *(step.path for step in finding.chain[:1])}
        for module in self.modules_with(f"class {finding.class_name}" if finding.class_name else "\0"):
            for cls in module.all_classes:
                near = any(c.module.path in paths for c in self.hierarchy.mro(cls))
                if cls.name == finding.class_name and near and self.hierarchy.is_sequence(cls):
                    yield cls

    def sequences(self) -> Iterator[Class]:
        """Yield the classes whose text says that they are sequences of Keras."""
        for word in sorted(self.project.tables.sets["sequence.names"]):
            for module in self.modules_with(word):
                yield from (cls for cls in module.all_classes if self.hierarchy.is_sequence(cls))

    def function_at(self, finding: Finding, name: str) -> Function | None:
        """Return the method of that name in which a finding lies."""
        module = self.module(finding.path)
        for cls in module.all_classes if module else ():
            method = cls.methods.get(name)
            if method is not None and method.node.lineno <= (finding.line or 0) <= (method.node.end_lineno or 0):
                return method
        return None

    def replaceable(self, cls: Class) -> list[ast.expr]:
        """Return the bases of a class that stand for Keras's own class, and so for ours."""
        names, endings = self.project.tables.lists["sequence.bases"], self.project.tables.sets["sequence.names"]
        found = []
        for base in cls.node.bases:
            value = self._value_of(base, cls)
            keras = {ref for ref in value.refs if ref in names and ref.rpartition(".")[2] in endings}
            whole = isinstance(base, (ast.Name, ast.Attribute, ast.Call)) and not value.classes
            if keras and whole and value.refs <= keras | _HARMLESS:
                found.append(base)
        return found

    def _value_of(self, base: ast.expr, cls: Class) -> Value:
        alone = ast.ClassDef(name=cls.name, bases=[base], keywords=[], body=[], decorator_list=[])
        return self.hierarchy.bases(Class(cls.name, alone, cls.scope))

    def is_rooted_in_keras(self, cls: Class) -> bool:
        """Tell whether the `__init__` behind those of the project is that of Keras's class or ours, and no other."""
        tables = self.project.tables
        for ref in self.hierarchy.outside(cls) - _HARMLESS:
            keras = ref in tables.lists["sequence.bases"] and ref.rpartition(".")[2] in tables.sets["sequence.names"]
            if not keras and ref != OURS and ref != "keras_mpseq.sequence.SafeSequence":
                return False
        return True

    def suits(self, cls: Class) -> bool:
        """Tell whether neither the class nor any that derives from it has members in the place of ours."""
        return not self.taken_names(cls)

    def taken_names(self, cls: Class) -> set[str]:
        """Return the names of our members that a class, or one that derives from it, uses for another thing."""
        family = {c for module in self.modules_with(cls.name) for c in module.all_classes}
        family = {c for c in family if cls in self.hierarchy.mro(c)} | set(self.hierarchy.mro(cls))
        defined = {name for c in family for name in (*c.methods, *c.body)}
        return defined & {*_OUR_MEMBERS, "seed"} | {name for c in family for name in _assigned(c)}


def _assigned(cls: Class) -> Iterator[str]:
    """Yield the names of our members to which methods of a class assign; an int is what our seed is, too."""
    for function in cls.methods.values():
        receiver = function.params[0] if function.params else ""
        seeds = {id(target) for target in _int_seeds(function)}
        for node in ast.walk(function.node):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attr, ctx=ast.Store() | ast.Del()) if name == receiver:
                    if attr in _OUR_MEMBERS or (attr == "seed" and id(node) not in seeds):
                        yield attr


def _int_seeds(function: Function) -> Iterator[ast.expr]:
    """Yield the targets that are given an int, which is what our seed is."""
    defaults = function.defaults()
    for node in function.nodes:
        if isinstance(node, ast.Assign):
            value = defaults.get(node.value.id) if isinstance(node.value, ast.Name) else node.value
            if isinstance(value, ast.Constant) and type(value.value) is int and value.value >= 0:
                yield from node.targets


def span_of(module: Module, node: ast.expr | ast.stmt | ast.keyword) -> Span:
    """Return where a node stands."""
    last, end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return (node.lineno, _characters(module, node.lineno, node.col_offset), last, _characters(module, last, end))


def _characters(module: Module, line: int, column: int) -> int:
    """Return a column in characters: the parser counts bytes."""
    text = module.source.split("\n")[line - 1]
    return column if text.isascii() else len(text.encode()[:column].decode())

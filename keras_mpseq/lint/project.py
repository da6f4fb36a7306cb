"""The project: its modules, parsed when they are first needed, and what a name means in each.

Nothing is imported. A name leads to a class or function of the project, to a global of one of its modules, or to a
full name outside, which the tables may know.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from keras_mpseq.lint.files import Source, UnreadableError, parse
from keras_mpseq.lint.model import Module, Scope
from keras_mpseq.lint.tables import Tables, plain
from keras_mpseq.lint.values import NOTHING, Bound, Root, Value, join

STDLIB = frozenset(sys.stdlib_module_names)
BUILTINS = frozenset(dir(builtins))
Failure = tuple[Source, UnreadableError]


class Project:
    """All files of a run."""

    def __init__(self, sources: Iterable[Source], tables: Tables) -> None:
        """Index the files by name and by path, without parsing them."""
        self.tables = tables
        self.sources: dict[str, Source] = {}
        self.failures: list[Failure] = []
        self.global_value: Callable[[Module, str], Value] | None = None
        """Works out what a global was assigned; set by the analysis, which needs the project first."""
        self._parsed: dict[str, Module | None] = {}
        self._by_path: dict[str, str] = {}
        self._looking: set[tuple[str, str]] = set()
        self._resolved: dict[tuple[str, str], Value] = {}
        self._found: dict[tuple[str, str], Value] = {}
        self._named: dict[tuple[Scope | None, str], Value] = {}
        for source in sources:
            self._enter(source)
        self._first_parts = {part for name in self.sources for part in (name.partition(".")[0],)}
        for path in self._by_path:
            self._first_parts.update(part.partition(".")[0] for part in Path(path).parts)

    def _enter(self, source: Source) -> None:
        # Scripts of one name in several folders are told apart by a number; nothing imports them by it.
        name, count = source.name, 2
        while name in self.sources:
            name, count = f"{source.name}@{count}", count + 1
        source.name = name
        self.sources[name] = source
        self._by_path[os.path.normpath(os.path.abspath(source.path))] = name

    def module(self, name: str) -> Module | None:
        """Return a module by its own name, parsed; None when there is no such module or it does not parse."""
        if name not in self._parsed:
            self._parsed[name] = None
            source = self.sources.get(name)
            if source is not None:
                try:
                    tree = parse(source)
                    self._parsed[name] = Module(source.path, name, source.is_package, tree, source.text)
                except UnreadableError as error:
                    self.failures.append((source, error))
                except RecursionError:
                    self.failures.append((source, UnreadableError("the file is nested too deeply to be followed")))
        return self._parsed[name]

    def at(self, path: str) -> Source | None:
        """Return the file that findings show as *path*."""
        return self.sources.get(self._by_path.get(os.path.normpath(os.path.abspath(path)), ""))

    def parsed(self) -> list[Module]:
        """Return the modules that were parsed until now."""
        return [module for module in self._parsed.values() if module is not None]

    def find(self, dotted: str, importer: Module) -> str | None:
        """Return the own name of the module that *importer* means by a full name."""
        if dotted.partition(".")[0] not in self._first_parts:
            return None
        tail = dotted.replace(".", os.sep)
        folder = _parent(os.path.abspath(importer.path))
        packaged = importer.is_package or "." in importer.name
        # A module of a package sees what lies beside the package, not beside itself.
        for _ in range(importer.name.count(".") + importer.is_package):
            folder = _parent(folder)
        # A script finds its neighbours; in a tree of scripts the names often start some folders further up.
        for _ in range(1 if packaged else 5):
            for path in (os.path.join(folder, f"{tail}.py"), os.path.join(folder, tail, "__init__.py")):
                if path in self._by_path:
                    return self._by_path[path]
            folder = _parent(folder)
        return dotted if dotted in self.sources and dotted.partition(".")[0] not in STDLIB else None

    def resolve(self, dotted: str, importer: Module) -> Value:
        """Return what a full name stands for, as *importer* imports it."""
        key = importer.name, dotted
        if key not in self._resolved:
            self._resolved[key] = self._resolve(dotted, importer)
        return self._resolved[key]

    def _resolve(self, dotted: str, importer: Module) -> Value:
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            name = self.find(".".join(parts[:length]), importer)
            if name is not None and (name != importer.name or length == len(parts)):
                value = Value(refs=frozenset({f"@{name}"}))
                for part in parts[length:]:
                    value = self.attribute(value, part)
                return value
        return Value(refs=frozenset({plain(dotted)}))

    def attribute(self, value: Value, name: str) -> Value:
        """Return an attribute of a module, in the project or outside."""
        result = NOTHING
        for ref in value.refs:
            if not ref.startswith("@"):
                result = join(result, Value(refs=frozenset({plain(f"{ref}.{name}")})))
                continue
            module = self.module(ref[1:])
            if module is None:
                continue
            found = self.lookup(module, name)
            below = self.find(f"{module.name}.{name}", module) if found is NOTHING else None
            result = join(result, Value(refs=frozenset({f"@{below}"})) if below else found)
        return result

    def lookup(self, module: Module, name: str) -> Value:
        """Return what a name means at the top of a module; builtins are left to `name_in`."""
        key = module.name, name
        if key in self._found:
            return self._found[key]
        if key in self._looking:
            return NOTHING
        self._looking.add(key)
        try:
            value = self._lookup(module.scope, name)
        finally:
            self._looking.discard(key)
        if not self._looking:
            self._found[key] = value
        return value

    def _lookup(self, scope: Scope, name: str) -> Value:
        value = self.bound_in(scope, name)
        if name in scope.assigned:
            value = join(value, self._global(scope.module, name))
        if value is NOTHING:
            for star in scope.stars:
                value = join(value, self._from_star(star, scope.module, name))
        return value

    def bound_in(self, scope: Scope, name: str) -> Value:
        """Return the class, function or import of that name in one scope."""
        value = NOTHING
        if name in scope.classes:
            value = Value(classes=frozenset({scope.classes[name]}))
        if name in scope.functions:
            value = join(value, Value(funcs=frozenset({Bound(scope.functions[name])})))
        for dotted in scope.imports.get(name, ()):
            value = join(value, self.resolve(dotted, scope.module))
        return value

    def _global(self, module: Module, name: str) -> Value:
        value = self.global_value(module, name) if self.global_value else NOTHING
        return value._replace(roots=frozenset({Root("global", f"{module.name}.{name}")}), items=None)

    def _from_star(self, star: str, module: Module, name: str) -> Value:
        if name.startswith("_"):
            return NOTHING
        found = self.find(star, module)
        if found is not None:
            target = self.module(found)
            return NOTHING if target is None else self.lookup(target, name)
        base = plain(f"{star}.{name}") in self.tables.lists["sequence.bases"]
        if base or (name in self.tables.sets["sequence.names"] and "keras" in star):
            return Value(refs=frozenset({plain(f"{star}.{name}")}))
        return NOTHING

    def name_in(self, scope: Scope | None, name: str) -> Value:
        """Return what a name means in a scope, looking outward; variables of functions are not among it."""
        key = scope, name
        value = self._named.get(key)
        if value is None:
            value = self._name_in(scope, name)
            if not self._looking:
                self._named[key] = value
        return value

    def _name_in(self, scope: Scope | None, name: str) -> Value:
        while scope is not None and scope.parent is not None:
            value = self.bound_in(scope, name)
            if value is not NOTHING:
                return value
            scope = scope.parent
        if scope is not None:
            value = self.lookup(scope.module, name)
            if value is not NOTHING:
                return value
        return Value(refs=frozenset({f"builtins.{name}"})) if name in BUILTINS else NOTHING


def _parent(path: str) -> str:
    return path.rpartition(os.sep)[0]

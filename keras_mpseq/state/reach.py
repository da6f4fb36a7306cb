"""Which code is the user's, and what of it a batch may reach: functions, globals, free variables, caches.

Follows names from `__getitem__` through methods, helpers and the callables that the instance holds. A name that code
mentions counts as used: what is never read costs a comparison and is never reported, because it never changes.
"""

from __future__ import annotations

import dis
import functools
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_LIBRARIES = {
    *("abc", "builtins", "collections", "enum", "functools", "keras", "keras_mpseq", "tensorflow", "tf_keras"),
    *("torch", "typing", "numpy", "keras_preprocessing", "jax"),
}
_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_MOST = 5_000
"""Functions and classes that are followed."""
_OUTSIDE = {"__init__", "__new__", "__getstate__", "__setstate__", "__reduce__", "__repr__", "__str__", "__del__"}
"""Methods that say nothing about what a value is good for after a batch."""
_CODE = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType),
    *(property, staticmethod, classmethod, functools.partial, functools._lru_cache_wrapper),
)


class Place(NamedTuple):
    """A line of the user's, and how `__getitem__` got there."""

    path: str
    line: int
    function: str
    chain: tuple[tuple[str, str, int], ...] = ()
    """Function, file and line of each hop, from the outermost call."""


def is_library(cls: type) -> bool:
    """Tell whether a class of the method resolution order is not the user's."""
    return cls.__module__.partition(".")[0] in _LIBRARIES


class UserCode:
    """Tells the user's files from others."""

    def __init__(self) -> None:
        self._roots: tuple[str, ...] = ()
        paths = sysconfig.get_paths()
        self._libraries = tuple({os.path.realpath(paths[name]) + os.sep for name in ("stdlib", "platstdlib")})
        self._known: dict[str, bool] = {}

    def learn(self, sequence: object) -> None:
        """Take the packages of the sequence's classes for the user's, also where they are installed."""
        self._roots = tuple(filter(None, (_root(cls) for cls in type(sequence).__mro__ if not is_library(cls))))
        self._known.clear()

    def owns(self, filename: str) -> bool:
        """Tell whether the code object with this file name is the user's."""
        if filename not in self._known:
            self._known[filename] = self._owns(filename)
        return self._known[filename]

    def owns_frame(self, frame: types.FrameType) -> bool:
        """Tell whether the code that runs in *frame* is the user's; what `exec` made is its module's."""
        filename = frame.f_code.co_filename
        module = frame.f_globals.get("__file__") if filename.startswith("<") else None
        return self.owns(filename) and (module is None or self.owns(str(module)))

    def _owns(self, filename: str) -> bool:
        if filename.endswith((".pyx", ".pxd")):  # Frames of Cython.
            return False
        if filename.startswith("<"):
            return not filename.startswith(("<frozen", "<__array_function__", "<attrs"))
        path = os.path.realpath(filename)
        if path.startswith(_PACKAGE) or filename.startswith(_PACKAGE):
            return False
        if path.startswith(self._roots):
            return True
        parts = Path(path).parts
        return not ("site-packages" in parts or "dist-packages" in parts or path.startswith(self._libraries))


def _root(cls: type) -> str:
    name = cls.__module__.partition(".")[0]
    module = sys.modules.get(name)
    named = getattr(module, "__file__", None)
    if not named:
        return ""
    file = os.path.realpath(str(named))
    return str(Path(file).parent) + os.sep if hasattr(module, "__path__") else file


class Reach:
    """What the code of a batch may get at; made once, before the first call."""

    def __init__(self, sequence: Any, code: UserCode) -> None:
        self.code = code
        self.globals: dict[str, tuple[dict[str, Any], str]] = {}
        """Variables of modules: label to namespace and name."""
        self.cells: dict[str, types.CellType] = {}
        self.caches: dict[str, Any] = {}
        """Functions behind `functools.lru_cache`."""
        self.functions: list[types.FunctionType] = []
        self.names: set[str] = set()
        self._seen: set[int] = set()
        self._cls = type(sequence)
        self._follow(sequence)

    def _follow(self, sequence: Any) -> None:
        waiting: list[Any] = [vars(cls).get(name) for cls in self._cls.__mro__ for name in ("__getitem__", "__iter__")]
        waiting += [value for value in getattr(sequence, "__dict__", {}).values() if callable(value)]
        waiting += _callables(getattr(sequence, "__dict__", {}))
        while waiting and len(self._seen) < _MOST:
            value = waiting.pop()
            if id(value) not in self._seen:
                self._seen.add(id(value))
                waiting += self._next(value)

    def _next(self, value: Any) -> list[Any]:
        if isinstance(value, types.FunctionType):
            return list(self._of_function(value)) if self.code.owns(value.__code__.co_filename) else []
        if isinstance(value, types.MethodType):
            return [value.__func__, *self._of_instance(value.__self__)]
        if isinstance(value, functools.partial):
            return [value.func, *value.args, *value.keywords.values()]
        if isinstance(value, (classmethod, staticmethod)):
            return [value.__func__]
        if isinstance(value, property):
            return [value.fget, value.fset]
        if isinstance(value, functools._lru_cache_wrapper):
            label = f"{value.__module__}.{value.__qualname__}"
            if self._owns_function(value.__wrapped__):
                self.caches[label] = value
            return [value.__wrapped__]
        if isinstance(value, type) and value in self._cls.__mro__:
            return []  # Its methods are followed where they are named.
        if isinstance(value, type):
            return list(vars(value).values()) if not is_library(value) and self._owns_class(value) else []
        if hasattr(value, "__wrapped__"):
            return [value.__wrapped__]
        return self._of_instance(value)

    def _of_instance(self, value: Any) -> list[Any]:
        """Return the class of an object of the user's: whoever holds it may call its methods."""
        cls = type(value)
        return [cls] if cls is not self._cls and not is_library(cls) and self._owns_class(cls) else []

    def _of_function(self, function: types.FunctionType) -> Iterator[Any]:
        self.functions.append(function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = content_of(cell)
            if is_code(value):
                yield value
            else:
                self.cells[f"{function.__qualname__}.{name}"] = cell
                yield from self._of_instance(value)
        for code in codes(function.__code__):
            self.names.update(code.co_names)
            if any(
                step.argrepr == "@" or step.opname == "BINARY_MATRIX_MULTIPLY" for step in dis.get_instructions(code)
            ):
                self.names.add("@")
            for name in code.co_names:
                yield from self._of_name(function, name, code.co_names)

    def _of_name(self, function: types.FunctionType, name: str, names: tuple[str, ...]) -> Iterator[Any]:
        if not name.startswith("__"):
            yield from (vars(cls)[name] for cls in self._cls.__mro__ if name in vars(cls))
        if name not in function.__globals__:
            return
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType):
            if self.code.owns(getattr(value, "__file__", None) or "<unknown>") and hasattr(value, "__file__"):
                for other in names:
                    if other in vars(value):
                        yield from self._variable(vars(value), other)
        else:
            yield from self._variable(function.__globals__, name)

    def _variable(self, namespace: dict[str, Any], name: str) -> Iterator[Any]:
        value = namespace[name]
        if is_code(value):
            yield value
        elif not name.startswith("__"):
            self.globals[f"{namespace.get('__name__', '')}.{name}"] = namespace, name
            yield from self._of_instance(value)

    def _owns_function(self, function: Any) -> bool:
        return isinstance(function, types.FunctionType) and self.code.owns(function.__code__.co_filename)

    def _owns_class(self, cls: type) -> bool:
        return any(self._owns_function(value) for value in vars(cls).values())

    def namespaces(self) -> list[dict[str, Any]]:
        """Return the global variables of every function; those of functions sent by value are no module's."""
        return list({id(function.__globals__): function.__globals__ for function in self.functions}.values())

    def place_of(self, names: Collection[str]) -> Place | None:
        """Return the first line that uses one of *names*."""
        for function in self.functions:
            for code in codes(function.__code__):
                for line, step in steps_of(code) if not names_of(code).isdisjoint(names) else ():
                    if step.argval in names and step.opname.startswith("LOAD"):
                        return Place(code.co_filename, line, function.__qualname__)
        return None

    def reader_outside(self, attribute: str) -> str:
        """Return a method that reads self.*attribute* and is not called for a batch; "" if there is none."""
        inside = {function.__code__ for function in self.functions}
        for cls in self._cls.__mro__:
            for name, value in vars(cls).items() if not is_library(cls) else ():
                function = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if name in _OUTSIDE or not isinstance(function, types.FunctionType) or function.__code__ in inside:
                    continue
                if inspect.getattr_static(self._cls, name) is not value:
                    continue  # Overridden.
                if any(_loads(code, attribute) for code in codes(function.__code__)):
                    return function.__qualname__
        return ""


def _callables(attributes: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for value in attributes.values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        found += [member for member in list(members)[:100] if callable(member) or hasattr(member, "__dict__")]
        if hasattr(value, "__dict__"):
            found.append(value)
    return found


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield *code* and those of the functions within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def names_of(code: types.CodeType) -> frozenset[str]:
    """Return the globals and attributes that *code* mentions."""
    return frozenset(code.co_names)


def steps_of(code: types.CodeType) -> Iterator[tuple[int, dis.Instruction]]:
    """Yield the instructions of *code*, each with its line."""
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        # Before Python 3.13 `starts_line` is the line that begins with the step, then a bool.
        begun = getattr(step, "line_number", None) or step.starts_line
        line = line if begun is None or isinstance(begun, bool) else begun
        yield line, step


def _loads(code: types.CodeType, attribute: str) -> bool:
    return attribute in code.co_names and any(
        step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval == attribute for step in dis.get_instructions(code)
    )


def is_code(value: object) -> bool:
    """Tell whether *value* is a function, class or module, and so no state."""
    return isinstance(value, _CODE) or (callable(value) and hasattr(value, "__wrapped__"))


def content_of(cell: types.CellType) -> Any:
    """Return what a free variable is, None if it is not assigned."""
    try:
        return cell.cell_contents
    except ValueError:  # Not assigned yet.
        return None


def getitem_of(sequence: Any) -> types.FunctionType | None:
    """Return the user's `__getitem__`, without what is wrapped around it."""
    function: Any = getattr(type(sequence), "__getitem__", None)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function if isinstance(function, types.FunctionType) else None


def leaves_index_unread(sequence: Any) -> bool:
    """Tell whether `__getitem__` never reads its index."""
    function = getitem_of(sequence)
    if function is None or function.__code__.co_argcount != 2:
        return False
    name = function.__code__.co_varnames[1]
    # As a free variable of a lambda or comprehension it is read there.
    return not any(
        (step.argval == name and step.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")))
        or (isinstance(step.argval, tuple) and name in step.argval and "LOAD_FAST" in step.opname)
        for step in dis.get_instructions(function.__code__)
    )

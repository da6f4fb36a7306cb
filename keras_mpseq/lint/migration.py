"""`keras-mpseq migrate`: what `--fix` changes, our base for every sequence of Keras, and what is left to do by hand.

What is left is what the linter still finds once all is changed, and what no rule is about because it is only wrong on
the way from Keras 2 to Keras 3. Places are those of the files after the changes, whether they were written or not.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from keras_mpseq.findings import Finding
from keras_mpseq.lint.config import Config
from keras_mpseq.lint.engine import lint_paths
from keras_mpseq.lint.fix import fix_paths
from keras_mpseq.lint.fix_calls import Block, calls, class_of, data_of, made_by
from keras_mpseq.lint.fix_plan import safe_name
from keras_mpseq.lint.fix_scene import Scene, span_of
from keras_mpseq.lint.model import Class, Module, dotted_of
from keras_mpseq.lint.select import select
from keras_mpseq.reporting import Sources

_GONE = (
    "keras.utils.data_utils",
    "tensorflow.keras.utils.data_utils",
    "tensorflow.python.keras",
    "keras_preprocessing",
)
"""Modules that held the classes of data loading, and that are not there beside Keras 3."""
_ENQUEUERS = ("OrderedEnqueuer", "GeneratorEnqueuer", "SequenceEnqueuer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One thing to do by hand."""

    path: str
    line: int
    column: int
    severity: str
    code: str
    """Of the rule; empty where there is none."""
    name: str
    message: str
    """A clause without its full stop."""
    remedy: str
    """What to do, as a clause without its full stop."""


@dataclass(slots=True)
class Migrated:
    """What became of one file, and what is left to do in it.

    Args:
        path: As it was given.
        applied: What was done, a clause each.
        diff: Before and after, as a unified diff.
        left: By place.
    """

    path: str
    applied: tuple[str, ...] = ()
    diff: str = ""
    left: list[Left] = field(default_factory=list)


def migrate_paths(paths: Sequence[str | os.PathLike[str]], *, write: bool, settings: Config) -> list[Migrated]:
    """Migrate the files of a project, and say what is left.

    Args:
        paths: Python files.
        write: Change them; else only say what would be changed.
        settings: What is reported, and so changed.

    Returns:
        The files in which something was changed or is left, in the order of *paths*.

    Raises:
        MpseqError: A file cannot be written; those before it are changed.
    """
    files = [os.fspath(path) for path in paths]
    migrated = {path: Migrated(path) for path in files}
    texts = {}
    for fixed in fix_paths(files, diff=not write, settings=settings, every_base=True):
        migrated[fixed.path] = Migrated(fixed.path, fixed.applied, fixed.diff_text)
        texts[fixed.path] = fixed.text.replace("\r\n", "\n").replace("\r", "\n")
    for left in (*_found(files, texts, settings), *_noted(files, texts, settings)):
        migrated.setdefault(left.path, Migrated(left.path)).left.append(left)
    for one in migrated.values():
        one.left.sort(key=lambda left: (left.line, left.column, left.code))
    return [one for one in migrated.values() if one.applied or one.left]


def _found(files: Sequence[str], texts: Mapping[str, str], settings: Config) -> Iterator[Left]:
    """Yield what the linter finds in the changed files."""
    linted = lint_paths(files, preview=True, extra_bases=settings.extra_bases, decls=settings.decls, texts=texts)
    for finding in select(linted.findings, files, settings, Sources(texts)).findings:
        yield _of_finding(finding)


def _of_finding(finding: Finding) -> Left:
    return Left(
        path=finding.path or "",
        line=finding.line or 1,
        column=finding.column or 1,
        severity=finding.severity,
        code=finding.code,
        name=finding.name,
        message=finding.message,
        remedy=finding.remedy,
    )


def _noted(files: Sequence[str], texts: Mapping[str, str], settings: Config) -> Iterator[Left]:
    """Yield what no rule is about."""
    scene = Scene(files, settings, texts)
    for module in scene.modules_with("keras"):
        yield from _imports(module)
        yield from _calls(module, scene)
    for cls in dict.fromkeys(scene.sequences()):
        if scene.replaceable(cls) and not scene.hierarchy.is_own(cls):
            yield _kept(cls, scene)


def _note(module: Module, node: ast.expr | ast.stmt, message: str, remedy: str, severity: str = "warning") -> Left:
    line, column, *_ = span_of(module, node)
    return Left(
        path=module.path,
        line=line,
        column=column + 1,
        severity=severity,
        code="",
        name="",
        message=message,
        remedy=remedy,
    )


def _imports(module: Module) -> Iterator[Left]:
    for node in ast.walk(module.tree):
        match node:
            case ast.ImportFrom(module=str(name), level=0):
                names = [name]
            case ast.Import():
                names = [alias.name for alias in node.names]
            case _:
                continue
        for name in names:
            if any(f"{name}.".startswith(f"{gone}.") for gone in _GONE):
                remedy = "import from keras.utils what is used still"
                yield _note(module, node, f"{name} is no module of Keras 3", remedy)


def _calls(module: Module, scene: Scene) -> Iterator[Left]:
    for call, block in calls(module):
        name = dotted_of(call).rpartition(".")[2]
        if name in _ENQUEUERS:
            remedy = "iterate a Loader: `with Loader(sequence, workers=4) as loader: for batch in loader: ...`"
            yield _note(module, call, f"Keras 3 has no {name}", remedy)
        elif name == "set_start_method":
            message = "set_start_method() has no effect on workers, which are not forked from this process"
            yield _note(module, call, message, "delete it if nothing else needs it", "info")
        elif isinstance(call.func, ast.Attribute) and name in scene.project.tables.sets["effects.fits"]:
            yield from _training(call, block, module, scene)


def _training(call: ast.Call, block: Block, module: Module, scene: Scene) -> Iterator[Left]:
    made = made_by(data_of(call), call, block)
    if made is None:
        return
    head, *rest = dotted_of(made).split(".")
    value = scene.project.name_in(module.scope, head)
    for name in rest:
        value = scene.project.attribute(value, name)
    if any(bound.function.generator for bound in value.funcs):
        message = f"{dotted_of(made)}() is a generator: no other process can build its batches"
        yield _note(module, made, message, "write what it does for one batch as the __getitem__ of a SafeSequence")
    elif "workers" in {keyword.arg for keyword in made.keywords}:
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "validation_data"), None)
        other = made_by(given, call, block)
        cls = class_of(other, module, scene) if other is not None else None
        if other is not None and cls is not None and "workers" not in {keyword.arg for keyword in other.keywords}:
            message = "validation batches are built in this process; in Keras 2 they had the workers of fit()"
            yield _note(module, other, message, f"give {cls.name} workers here as well if validation is slow", "info")


def _kept(cls: Class, scene: Scene) -> Left:
    """Return why a class still has the base of Keras."""
    family = dict.fromkeys((*scene.hierarchy.mro(cls), cls))
    taken = sorted({name for c in family for name in scene.taken_names(c)})
    if taken:
        message = f"{cls.name} keeps its base: SafeSequence has {' and '.join(taken)} of its own"
        remedy = "give the attribute another name, or use what SafeSequence has, and migrate again"
    elif safe_name(cls.module) is None:
        message = f"{cls.name} keeps its base: SafeSequence is another thing in this file"
        remedy = "derive it from keras_mpseq.SafeSequence by hand"
    else:
        message = f"{cls.name} keeps its base, which is written in a way that is not understood"
        remedy = "derive it from keras_mpseq.SafeSequence by hand"
    return _note(cls.module, cls.node, message, remedy)

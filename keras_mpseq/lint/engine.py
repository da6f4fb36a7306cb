"""One run of the static engine: choose files, find the sequence classes, follow each, and report.

A file is parsed if its text could hold a sequence class, if such a file imports it, or if it names a class that is
known to be a sequence: the rest of a project costs no more than reading it.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keras_mpseq.findings import Finding
from keras_mpseq.lint import (
    detect_code,
    detect_contract,
    detect_members,
    detect_module,
    detect_parent,
    detect_state,
    detect_worker,
)
from keras_mpseq.lint.analysis import Analysis
from keras_mpseq.lint.files import Source, UnreadableError, discover, module_name, read
from keras_mpseq.lint.hierarchy import Hierarchy
from keras_mpseq.lint.jobs import jobs
from keras_mpseq.lint.model import Class, Module
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.report import Report
from keras_mpseq.lint.tables import load
from keras_mpseq.lint.values import Site
from keras_mpseq.lint.zones import View
from keras_mpseq.rules import RULES

MARKS = (
    "Sequence",
    "PyDataset",
    "keras_mpseq",
    "TimeseriesGenerator",
    "preprocessing.image",
    "keras_preprocessing",
    "max_queue_size",
    "use_multiprocessing",
    "workers=",
)
"""Words without which a file has nothing to do with sequences, unless it derives from a class elsewhere."""
WORD = re.compile(r"\w+")
DETECTORS = (
    detect_members.detect,
    detect_state.detect,
    detect_worker.detect,
    detect_parent.detect,
    detect_contract.detect,
    detect_code.detect,
)
OF_JOBS = (detect_state.detect, detect_worker.detect, detect_code.detect)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A call in the worker zone that was not followed.

    Args:
        path: File.
        line: From 1.
        call: What is called, as it is written.
        class_name: The sequence class.
    """

    path: str
    line: int
    call: str
    class_name: str


@dataclass(slots=True)
class Linted:
    """What a run found.

    Args:
        findings: By place.
        unresolved: Calls that were not followed, each once.
        files: How many were looked at.
        classes: How many sequence classes they hold.
    """

    findings: list[Finding] = field(default_factory=list)
    unresolved: list[Unresolved] = field(default_factory=list)
    files: int = 0
    classes: int = 0


def lint_paths(
    paths: Sequence[str | Path],
    *,
    select: Collection[str] | None = None,
    preview: bool = False,
    extra_bases: Collection[str] = (),
    decls: Mapping[str, str] | None = None,
    exclude: Collection[str] = (),
    texts: Mapping[str, str] | None = None,
) -> Linted:
    """Look at all Python files below some paths, as one project.

    Args:
        paths: Files and folders.
        select: Codes, or the beginnings of codes, to report; None means all.
        preview: Whether rules on trial are reported as well.
        extra_bases: Full or last names of further base classes whose `__getitem__` is called by workers.
        decls: What is known of functions: full name to `pure`, `rng`, `resource` or `framework`.
        exclude: Patterns of files and folders that are passed over.
        texts: Of files that are to be changed: looked at in the place of what is on the disk.
    """
    failures: list[tuple[str, UnreadableError]] = []
    sources = []
    packages: dict[str, bool] = {}
    files = discover(paths, exclude)
    for path in files:
        try:
            text = texts[path] if texts and path in texts else read(path)
        except UnreadableError as error:
            failures.append((path, error))
            continue
        name, is_package = module_name(path, packages)
        sources.append(Source(path, name, is_package, text))
    with _uncollected():
        linted = _run(sources, failures, extra_bases, decls)
    linted.files = len(files)
    linted.findings = [f for f in linted.findings if _is_wanted(f.code, select, preview)]
    return linted


def lint_source(source: str, path: str = "<string>") -> Linted:
    """Look at one file whose text is at hand; rules on trial included.

    Args:
        source: Its text.
        path: What findings say for it.
    """
    name = Path(path).stem if path.endswith(".py") else "source"
    linted = _run([Source(path, name, False, source)], [], (), None)
    linted.files = 1
    return linted


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector out: trees and summaries stay until the end, and it would go through all, often."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            # To the oldest generation with all that was made: as the youngest it would be gone through right now.
            gc.freeze()
            gc.unfreeze()
        if was_on:
            gc.enable()


def _is_wanted(code: str, select: Collection[str] | None, preview: bool) -> bool:
    if select is not None and not any(code.startswith(chosen) for chosen in select):
        return False
    return preview or RULES[code].stable


def _run(
    sources: Iterable[Source],
    failures: list[tuple[str, UnreadableError]],
    extra_bases: Collection[str],
    decls: Mapping[str, str] | None,
) -> Linted:
    project = Project(sources, load(decls))
    analysis = Analysis(project, Hierarchy(project, extra_bases))
    report = Report(project)
    classes = _sequences(project, analysis.hierarchy, extra_bases)
    for cls in classes:
        for above in analysis.hierarchy.mro(cls):
            if above is not cls:
                analysis.below.setdefault(above, []).append(cls)
    linted = Linted(classes=len(classes))
    unresolved: dict[tuple[str, int, str], Unresolved] = {}
    for cls in classes:
        _look_at(cls, analysis, report, unresolved)
    for module in project.parsed():
        _guarded(module, analysis, report)
        _look_at_jobs(module, analysis, report, unresolved)
    linted.unresolved = list(unresolved.values())
    failures += [(source.path, error) for source, error in project.failures]
    for path, error in failures:
        site = Site(path, error.line, error.column, error.line, error.column + 1, "")
        report.add("SEQ000", site, error.message)
    for function in analysis.too_deep:
        message = f"{function.qualname} is nested too deeply to be followed"
        report.add("SEQ000", function.module.site(function.node, function.qualname), message)
    linted.findings = report.findings()
    return linted


def _look_at(
    cls: Class, analysis: Analysis, report: Report, unresolved: dict[tuple[str, int, str], Unresolved]
) -> None:
    """Report what is wrong with one class; one that cannot be followed is told, and does not stop the others."""
    try:
        view = View(analysis, cls)
        for detect in DETECTORS:
            detect(view, report)
    except RecursionError:
        site = cls.module.site(cls.node)
        report.add("SEQ000", site, f"class {cls.name} is nested too deeply to be followed", cls=cls.name)
        return
    _not_followed(view, unresolved)


def _not_followed(view: View, unresolved: dict[tuple[str, int, str], Unresolved]) -> None:
    for place, text in view.unresolved:
        unresolved.setdefault((place.path, place.line, text), Unresolved(place.path, place.line, text, view.cls.name))


def _look_at_jobs(
    module: Module, analysis: Analysis, report: Report, unresolved: dict[tuple[str, int, str], Unresolved]
) -> None:
    """Report what is wrong with functions that our workers run."""
    try:
        for view in jobs(module, analysis):
            for detect in OF_JOBS:
                detect(view, report)
            _not_followed(view, unresolved)
    except RecursionError:
        report.add("SEQ000", Site(module.path, 1, 1, 1, 2, ""), "the file is nested too deeply to be followed")


def _guarded(module: Module, analysis: Analysis, report: Report) -> None:
    try:
        detect_module.detect(module, analysis, report)
    except RecursionError:
        report.add("SEQ000", Site(module.path, 1, 1, 1, 2, ""), "the file is nested too deeply to be followed")


def _naming(project: Project) -> dict[str, list[str]]:
    """Return for each word the modules that hold it."""
    found: dict[str, list[str]] = {}
    for name, source in project.sources.items():
        for word in set(WORD.findall(source.text)):
            found.setdefault(word, []).append(name)
    return found


def _sequences(project: Project, hierarchy: Hierarchy, extra_bases: Collection[str]) -> list[Class]:
    """Parse what can hold sequence classes, and return them."""
    waiting = [name for name, source in project.sources.items() if any(mark in source.text for mark in MARKS)]
    last_names = [base.rpartition(".")[2] for base in extra_bases]
    waiting += [n for n, source in project.sources.items() if any(base in source.text for base in last_names)]
    looked: set[str] = set()
    naming = _naming(project) if waiting else {}
    found: dict[Class, None] = {}
    while waiting:
        fresh = []
        for name in waiting:
            if name in looked:
                continue
            looked.add(name)
            module = project.module(name)
            for cls in module.all_classes if module else ():
                if hierarchy.is_sequence(cls):
                    found[cls] = None
                    fresh.append(cls.name)
        # Who derives from these may not mention Keras at all.
        naming_fresh = {name for base in fresh for name in naming.get(base, ()) if name not in looked}
        waiting = [name for name in project.sources if name in naming_fresh]
    return sorted(found, key=lambda cls: (cls.module.path, cls.node.lineno))

"""What `--fix` changes, file by file, worked out from the findings; nothing is changed here.

A class gets our base where a finding is of the kind that ours answers: draws from a generator that is not the batch's
own, a base that was not set up, workers that `fit` was asked for. A class without such findings is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.findings import Finding
from keras_mpseq.lint.config import Config
from keras_mpseq.lint.fix_calls import Constructors, mentions, moves
from keras_mpseq.lint.fix_draws import Draw, form_of
from keras_mpseq.lint.fix_methods import Rename, renames
from keras_mpseq.lint.fix_scene import OURS, Scene, Span, span_of
from keras_mpseq.lint.model import Class, Function, Module, dotted_of

ANSWERED = ("SEQ401", "SEQ402", "SEQ403", "SEQ505")
"""Codes of which our base class is part of the remedy."""
DRAWS = ("SEQ401", "SEQ402")
NAMES = ("rng", "batch_rng")
"""For the local generator; the first that is free."""
Place = tuple[int, int]


class Init(NamedTuple):
    """How an `__init__` changes."""

    adds_kwargs: bool
    statement: str
    """Put at its begin; empty means none."""


@dataclass(slots=True)
class Edits:
    """The changes of one file, by the place of what they change."""

    module: Module
    safe: str = "SafeSequence"
    """What the file calls our class."""
    bases: set[Span] = field(default_factory=set)
    freed: frozenset[str] = frozenset()
    """Names of replaced bases, whose imports nobody else sees."""
    inits: dict[Place, Init] = field(default_factory=dict)
    draws: dict[Span, Draw] = field(default_factory=dict)
    generators: dict[Place, str] = field(default_factory=dict)
    """The statement that begins a `__getitem__`."""
    given: dict[Span, dict[str, str]] = field(default_factory=dict)
    """Keywords that a call gets; `**` with the name of what is handed on."""
    taken: dict[Span, frozenset[str]] = field(default_factory=dict)
    """Keywords that a call loses."""
    renamed: dict[Span, Rename] = field(default_factory=dict)
    """Calls that become those of another method."""
    told: dict[str, int] = field(default_factory=dict)
    """What was done, and how often."""

    def tell(self, sentence: str) -> None:
        """Note one change."""
        self.told[sentence] = self.told.get(sentence, 0) + 1


def plan(
    paths: Sequence[str], findings: Sequence[Finding], settings: Config, *, every_base: bool = False
) -> list[Edits]:
    """Return the changes of each file that has any.

    Args:
        paths: All files of the run, of which the findings are.
        findings: Those that are reported.
        settings: Under which they were found.
        every_base: Give our base to every class that has Keras's, also where nothing was found.
    """
    if not every_base and not any(finding.code in (*ANSWERED, "SEQ506") for finding in findings):
        return []
    planner = _Planner(Scene(paths, settings))
    planner.call_super(findings)
    planner.rename(findings)
    moved = planner.move(findings)
    planner.replace_bases(findings, [*moved, *(planner.scene.sequences() if every_base else ())])
    planner.draw(findings)
    return [edits for edits in planner.edits.values() if edits.told]


class _Planner:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.edits: dict[Module, Edits] = {}
        self.constructors = Constructors(scene, {})
        self.safe: set[Class] = set()
        """Classes that get our base."""

    def of(self, module: Module) -> Edits:
        return self.edits.setdefault(module, Edits(module))

    # --- super().__init__(**kwargs) ---

    def call_super(self, findings: Collection[Finding]) -> None:
        for finding in findings:
            init = self.scene.function_at(finding, "__init__") if finding.code == "SEQ505" else None
            if init is None or init.owner is None or init in self.constructors.added:
                continue
            classes = {init.owner, *self.scene.classes_of(finding)}
            if all(self._comes_last(cls, init.owner) for cls in classes):
                self._add_super(init)

    def _comes_last(self, cls: Class, owner: Class) -> bool:
        """Tell whether `super().__init__` in a method of *owner* means Keras's, which needs no arguments."""
        return self.scene.hierarchy.after(cls, owner, "__init__") is None and self.scene.is_rooted_in_keras(cls)

    def _add_super(self, init: Function) -> None:
        assert not isinstance(init.node, ast.Lambda)
        kwargs = init.node.args.kwarg
        name = "kwargs" if kwargs is None else kwargs.arg
        used = any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(init.node))
        handed = not used and not (kwargs is None and mentions(init, name))
        self.constructors.added[init] = handed
        edits = self.of(init.module)
        statement = f"super().__init__({f'**{name}' if handed else ''})"
        edits.inits[span_of(init.module, init.node)[:2]] = Init(handed and kwargs is None, statement)
        edits.tell(f"{init.qualname} calls {statement}")

    # --- fit_generator(...), fit(workers=...) ---

    def rename(self, findings: Collection[Finding]) -> None:
        for rename in renames(findings, self.scene):
            edits = self.of(rename.module)
            edits.renamed[rename.call] = rename
            edits.tell(f"{rename.old}() becomes {rename.method}()")

    def move(self, findings: Collection[Finding]) -> list[Class]:
        found = moves(findings, self.constructors)
        for move in found:
            edits = self.of(move.module)
            edits.taken[move.fit] = frozenset(move.values)
            edits.given[move.constructor] = move.values
            *names, last = move.values
            listed = (
                f"{', '.join(names)} and {last} of {move.method}() are" if names else f"{last} of {move.method}() is"
            )
            edits.tell(f"{listed} given to {move.cls.name}")
        if found:
            for init, call in self.constructors.opened.items():
                edits = self.of(init.module)
                assert not isinstance(init.node, ast.Lambda)
                edits.inits[span_of(init.module, init.node)[:2]] = Init(True, "")
                edits.given[span_of(init.module, call)] = {"**": "kwargs"}
                edits.tell(f"{init.qualname} hands on **kwargs")
        return [move.cls for move in found]

    # --- the base class ---

    def replace_bases(self, findings: Collection[Finding], moved: Sequence[Class]) -> None:
        concerned = [cls for f in findings if f.code in ANSWERED for cls in self.scene.classes_of(f)]
        for cls in dict.fromkeys([*concerned, *moved]):
            for ancestor in self.scene.hierarchy.mro(cls):
                bases = self.scene.replaceable(ancestor) if ancestor not in self.safe else []
                if bases and not self.scene.hierarchy.is_own(ancestor) and self.scene.suits(ancestor):
                    self._replace(ancestor, bases)

    def _replace(self, cls: Class, bases: Sequence[ast.expr]) -> None:
        edits = self.of(cls.module)
        name = safe_name(cls.module)
        if name is None or len(bases) != 1:
            return
        self.safe.add(cls)
        edits.safe = name
        edits.bases |= {span_of(cls.module, base) for base in bases}
        names = {base.id for base in bases if isinstance(base, ast.Name)}
        edits.freed |= {name for name in names if not self.scene.is_imported(cls.module, name)}
        edits.tell(f"{cls.name} derives from SafeSequence")

    def is_safe(self, cls: Class) -> bool:
        """Tell whether the class has our members once everything is changed."""
        hierarchy = self.scene.hierarchy
        ours = hierarchy.is_own(cls) or any(c in self.safe for c in hierarchy.mro(cls))
        return ours and self.scene.suits(cls)

    # --- draws ---

    def draw(self, findings: Collection[Finding]) -> None:
        for finding in findings:
            getitem = self.scene.function_at(finding, "__getitem__") if finding.code in DRAWS else None
            if getitem is None or getitem.owner is None or len(getitem.params) < 2 or getitem.decorators:
                continue
            if self.is_safe(getitem.owner):
                self._draw(finding, getitem)

    def _draw(self, finding: Finding, getitem: Function) -> None:
        module = getitem.module
        place = finding.line, (finding.column or 0) - 1
        statement, name = _generator(getitem)
        for node in ast.walk(getitem.node):
            near = name and isinstance(node, ast.Call) and node.lineno == finding.line
            if not near or not isinstance(node, ast.Call) or span_of(module, node)[:2] != place:
                continue
            full = self._full_name(node.func, getitem)
            form = form_of(full, node)
            commented = form is not None and form.shape != "same" and "#" in (_text(module, node) or "#")
            if form is None or commented or full not in finding.message:
                continue
            edits = self.of(module)
            edits.draws[span_of(module, node)] = Draw(name, form.method, form.shape)
            if statement:
                assert not isinstance(getitem.node, ast.Lambda)
                edits.generators[span_of(module, getitem.node)[:2]] = statement
            edits.tell(f"{getitem.qualname} draws from self.rng({getitem.params[1]})")

    def _full_name(self, function: ast.expr, getitem: Function) -> str:
        head, _, rest = dotted_of(function).partition(".")
        if not head or isinstance(function, ast.Call):
            return ""
        refs = self.scene.project.name_in(getitem.inner, head).refs
        names = {f"{ref}.{rest}" if rest else ref for ref in refs}
        return names.pop() if len(names) == 1 else ""


def _generator(getitem: Function) -> tuple[str, str]:
    """Return the statement that makes the generator of a batch, empty if it is there, and the generator's name."""
    receiver, index = getitem.params[:2]
    wanted = f"{receiver}.rng({index})"
    for statement in getitem.body[:2]:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.value) == wanted:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and _stores(getitem, target.id) == 1:
                return "", target.id
    free = next((name for name in NAMES if not mentions(getitem, name)), "")
    return f"{free} = {wanted}", free


def _text(module: Module, node: ast.expr) -> str | None:
    return ast.get_source_segment(module.source, node)


def _stores(function: Function, name: str) -> int:
    return sum(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(function.node)
    )


def safe_name(module: Module) -> str | None:
    """Return what a module calls our class, or would; None if it gives the name to another thing."""
    scope = module.scope
    for name, targets in scope.imports.items():
        if targets == [OURS]:
            return name
    name = OURS.rpartition(".")[2]
    bound = name in scope.classes or name in scope.functions or name in scope.imports or name in scope.assigned
    return None if bound else name

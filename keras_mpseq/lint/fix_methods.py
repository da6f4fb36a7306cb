"""`fit_generator` and its like of Keras 2: how such a call becomes one of `fit`, if its arguments say the same there.

The first parameters had the same order in all versions of Keras 2; those behind them did not, and are left to the
reader, as are arguments of Keras 1 and those that a `*` or `**` brings.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import NamedTuple

from keras_mpseq.findings import Finding
from keras_mpseq.lint.fix_calls import calls
from keras_mpseq.lint.fix_scene import Scene, Span, span_of
from keras_mpseq.lint.model import Module

POSITIONAL: dict[str, tuple[str, ...]] = {
    "fit_generator": (
        "x",
        "steps_per_epoch",
        "epochs",
        "verbose",
        "callbacks",
        "validation_data",
        "validation_steps",
    ),
    "evaluate_generator": ("x", "steps"),
    "predict_generator": ("x", "steps"),
}
"""By method: what its parameters are called in the method that is left, as far as their order is sure."""
KERAS_1 = frozenset(
    {"samples_per_epoch", "nb_epoch", "nb_val_samples", "val_samples", "nb_worker", "max_q_size", "pickle_safe"}
)
"""Arguments of which some counted samples where those of today count batches."""


class Rename(NamedTuple):
    """A call that becomes one of another method."""

    module: Module
    call: Span
    old: str
    method: str
    names: tuple[str, ...]
    """Of the arguments by position; the first one keeps its position."""


def renames(findings: Collection[Finding], scene: Scene) -> list[Rename]:
    """Return the calls that get the name of the method that is left."""
    found: dict[tuple[Module, Span], Rename] = {}
    for finding in findings:
        module = scene.module(finding.path) if finding.code == "SEQ506" else None
        for call, _ in calls(module) if module is not None else ():
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            if module is not None and method in POSITIONAL and _is_meant(call, finding, module) and _fits(call, method):
                names = POSITIONAL[method][: len(call.args)]
                rename = Rename(module, span_of(module, call), method, method.removesuffix("_generator"), names)
                found[module, rename.call] = rename
    return list(found.values())


def _is_meant(call: ast.Call, finding: Finding, module: Module) -> bool:
    """Tell whether a finding is about a call: it stands at the method, or at an argument."""
    nodes: list[ast.expr | ast.keyword] = [call.func, *call.keywords]
    column = (finding.column or 0) - 1
    return any(node.lineno == finding.line and span_of(module, node)[1] == column for node in nodes)


def _fits(call: ast.Call, method: str) -> bool:
    names = {keyword.arg for keyword in call.keywords}
    starred = None in names or any(isinstance(argument, ast.Starred) for argument in call.args)
    return not starred and not names & KERAS_1 and len(call.args) <= len(POSITIONAL[method])

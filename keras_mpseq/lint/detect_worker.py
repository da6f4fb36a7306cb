"""SEQ304 to SEQ308, SEQ401 to SEQ404, SEQ406, SEQ504, SEQ603: what runs while a batch is built."""

from __future__ import annotations

import ast

from keras_mpseq.lint.report import Report
from keras_mpseq.lint.summary import Effect
from keras_mpseq.lint.values import Taint, Value
from keras_mpseq.lint.zones import View

DRAWN = {
    "numpy": ("SEQ401", "draws from NumPy's global generator"),
    "table": ("SEQ401", "draws from NumPy's global generator"),
    "python": ("SEQ402", "draws from the generator of the process"),
    "tensorflow": ("SEQ402", "draws from TensorFlow's global generator"),
    "torch": ("SEQ402", "draws from torch's global generator"),
    "augmenter": ("SEQ402", "augments with a generator of its own library"),
}
SEEDED = ("numpy", "table", "python")
"""What our workers seed for each batch."""
ONLY_OURS = "the numbers are the same for any number of our workers, and for nobody else's"


def detect(view: View, report: Report) -> None:
    """Look at every effect of the worker zone but writes."""
    restored = _restored(view)
    for effect in view.worker:
        if effect.kind in ("draw", "seed") and (effect.site.path, effect.site.function, _family(effect)) in restored:
            continue
        match effect.kind:
            case "draw":
                _draw(view, report, effect)
            case "method":
                _generator(view, report, effect)
            case "seed":
                report.at("SEQ404", effect, f"{effect.detail} is called while serving a batch", view.cls.name)
            case "framework":
                message = f"{effect.detail} runs the framework while serving a batch"
                report.at("SEQ304", effect, message, view.cls.name)
            case "accelerator":
                message = f"{effect.detail} uses the accelerator while serving a batch"
                report.at("SEQ305", effect, message, view.cls.name)
            case "parallel":
                report.at("SEQ306", effect, f"{effect.detail} starts more workers inside a worker", view.cls.name)
            case "output":
                message = f"{effect.detail} writes to the console while serving a batch"
                report.at("SEQ308", effect, message, view.cls.name)
            case "file-write":
                _file(view, report, effect)
            case "open":
                _open(view, report, effect)
            case "overlap":
                _overlap(view, report, effect)
    _ambient(view, report)


def _family(effect: Effect) -> str:
    return effect.detail.rpartition(".")[0]


def _restored(view: View) -> set[tuple[str, str, str]]:
    """Return the functions that put the state of a generator back before they end: path, name and generator."""
    return {
        (effect.site.path, effect.site.function, _family(effect))
        for effect in view.worker
        if effect.kind == "seed" and "finally" in effect.flags and effect.detail.endswith(("setstate", "set_state"))
    }


def _draw(view: View, report: Report, effect: Effect) -> None:
    flag = next((name for name in ("table", *DRAWN) if name in effect.flags), "python")
    code, text = DRAWN[flag]
    message = f"{effect.detail} {text} while serving a batch"
    if view.is_safe and flag in SEEDED:
        message += ", which only our own workers make safe"
        report.at(code, effect, message, view.cls.name, severity="info", why=ONLY_OURS)
    else:
        confidence = "likely" if "likely" in effect.flags else "certain"
        report.at(code, effect, message, view.cls.name, confidence=confidence)


def _generator(view: View, report: Report, effect: Effect) -> None:
    root, sets = effect.root, view.tables.sets
    if root is None or effect.detail not in sets["random.methods"]:
        return
    if root.kind == "self" and root.attr and root.attr not in view.hooks:
        kinds = view.kinds(root.attr)
        certain = "rng" in kinds or "kind:rng" in effect.flags
        given = "given" in kinds and effect.detail in sets["random.telling"]
        if certain or given:
            message = f"self.{root.attr}.{effect.detail} draws from a generator that every worker has a copy of"
            confidence = "certain" if certain else "likely"
            report.at("SEQ403", effect, message, view.cls.name, confidence=confidence)
    elif root.kind in ("global", "class") and "kind:rng" in effect.flags:
        name = root.name.rpartition(".")[2]
        message = f"{name}.{effect.detail} draws from a generator that every worker has a copy of"
        report.at("SEQ403", effect, message, view.cls.name)


def _file(view: View, report: Report, effect: Effect) -> None:
    path = effect.value
    if view.depends_on_index(path) or any(taint.kind in ("random", "ambient") for taint in path.taints):
        return
    message = f"{effect.detail} writes to the same file in every worker"
    confidence = "certain" if path.const is not None else "likely"
    report.at("SEQ307", effect, message, view.cls.name, confidence=confidence)


def _open(view: View, report: Report, effect: Effect) -> None:
    if "loop" not in effect.flags or "memo" in effect.flags:
        return
    if effect.detail not in view.tables.lists["resources.containers"]:
        return
    if Taint("loop") in effect.value.taints or effect.value.kinds & {"element"}:
        # Another file for each sample: there is nothing to keep open.
        return
    report.at("SEQ603", effect, f"{effect.detail} opens the same file again for every sample", view.cls.name)


def _overlap(view: View, report: Report, effect: Effect) -> None:
    root = effect.root
    if root is None or root.kind != "param" or root.name != view.index or not view.index:
        return
    size = effect.detail.rpartition(".")[2]
    divided = view.length is not None and f"/ {effect.detail}" in _text(view).replace("//", "/")
    if "batch" in size.lower() or size in ("bs", "BS") or divided:
        message = f"the slice begins at the index itself, so that batches of {effect.detail} rows overlap"
        confidence = "certain" if divided else "likely"
        report.at("SEQ504", effect, message, view.cls.name, confidence=confidence)


def _text(view: View) -> str:
    return ast.unparse(view.length.node) if view.length is not None else ""


def _ambient(view: View, report: Report) -> None:
    """What differs from process to process must not get into a batch."""
    for _, value, chain in view.batches:
        for taint in sorted(_all_taints(value), key=str):
            if taint.kind != "ambient" or taint.site is None:
                continue
            message = f"the batch depends on {taint.name}, which is another in every process"
            report.add("SEQ406", taint.site, message, cls=view.cls.name, chain=chain, confidence="likely")


def _all_taints(value: Value) -> set[Taint]:
    taints = set(value.taints)
    for item in value.items or ():
        taints |= _all_taints(item)
    return taints

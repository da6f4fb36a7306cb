"""SEQ2xx: what a batch leaves behind in this process, and in no other."""

from __future__ import annotations

from keras_mpseq.lint.report import Report
from keras_mpseq.lint.summary import Effect
from keras_mpseq.lint.values import Root, Value
from keras_mpseq.lint.zones import View

RESOURCES = frozenset({"array-file", "array-dataset", "database", "file", "session", "memmap", "lock", "model", "rng"})
"""Values that are rightly made once for each process, on first use."""


def detect(view: View, report: Report) -> None:
    """Look at every write of the worker zone."""
    written: set[str] = set()
    for effect in view.worker:
        if "scratch" in effect.flags:
            # It goes to what this very call has made.
            continue
        if effect.kind == "write" and effect.root is not None:
            match effect.root.kind:
                case "self":
                    _own(view, report, effect, effect.root)
                    if not effect.flags & {"rebind", "view"} and not _kept(effect):
                        written.add(effect.root.attr)
                case "global":
                    _global(view, report, effect, effect.root)
                case "class":
                    _class(view, report, effect, effect.root.attr, effect.root.name.rpartition(".")[2])
                case "free" | "cell":
                    name = effect.root.name.rpartition("|")[2]
                    message = f"{name}, a variable of the function around, is changed while serving a batch"
                    report.at("SEQ204", effect, message, view.cls.name)
        elif effect.kind == "consume":
            _consumed(view, report, effect)
        elif effect.kind == "method":
            _queue(view, report, effect)
        elif effect.kind == "cached":
            message = f"results of {effect.detail} are kept once for each process"
            report.at("SEQ210", effect, message, view.cls.name)
    _returned(view, report, written)


def _kept(effect: Effect) -> bool:
    """Tell whether a write only fills a gap, with something that every process would put there."""
    return "memo" in effect.flags and not any(taint.kind in ("random", "ambient") for taint in effect.value.taints)


def _belongs_to_worker(view: View, attr: str) -> bool:
    return attr in view.hooks


def _own(view: View, report: Report, effect: Effect, root: Root) -> None:
    attr = root.attr
    if not attr or _belongs_to_worker(view, attr):
        return
    owner = view.in_class_body(attr) if "rebind" not in effect.flags else None
    if owner is not None:
        _class(view, report, effect, attr, owner.name)
    elif _kept(effect):
        if not effect.value.kinds & RESOURCES:
            message = f"self.{attr} is filled once for each process"
            report.at("SEQ210", effect, message, view.cls.name, confidence="likely")
    elif "maybe" in effect.flags and not view.kinds(attr) & {"array", "list", "set", "given"}:
        # Added to in a helper that gets it: a number is not changed by that, and no more is known.
        return
    elif "view" in effect.flags and "alias" in effect.flags and "rebind" not in effect.flags:
        _inplace(view, report, effect, attr)
    else:
        _stateful(view, report, effect, attr)


def _inplace(view: View, report: Report, effect: Effect, attr: str) -> None:
    # A file or a list gives a copy when it is sliced, and a table does as well.
    if view.kinds(attr) & {"array-file", "array-dataset", "list", "tuple", "frame", "scalar"}:
        return
    if any(_is_filled(other, attr) for other in view.worker):
        # A buffer that each call fills is no source: writing to it is told where it is filled.
        return
    message = f"self.{attr} is changed in place, through a view of it"
    report.at("SEQ209", effect, message, view.cls.name, confidence="likely")


def _is_filled(effect: Effect, attr: str) -> bool:
    own = effect.kind == "write" and effect.root is not None and (effect.root.kind, effect.root.attr) == ("self", attr)
    return own and "view" not in effect.flags and "del" not in effect.flags


def _stateful(view: View, report: Report, effect: Effect, attr: str) -> None:
    read_here = attr in view.exposed
    readers = sorted(view.parent_reads.get(attr, set()) - {"__init__"})
    restored = any(e.kind == "write" and e.root == effect.root and "finally" in e.flags for e in view.worker)
    bound = "rebind" in effect.flags and "aug" not in effect.flags
    if bound and not read_here and attr in view.worker_reads and not readers:
        # Written before every read of the same call: scratch, which no other batch sees.
        return
    if readers and not read_here and not effect.detail.endswith("shuffle"):
        message = f"self.{attr} is written while serving a batch, and {readers[0]} reads it in the training process"
        severity = "warning" if restored else ""
        report.at("SEQ208", effect, message, view.cls.name, severity=severity)
        return
    message = f"self.{attr} is written while serving a batch"
    if attr == "*":
        message = "an attribute whose name is computed is written while serving a batch"
    severity = "error" if read_here and not restored else "warning"
    why = f"other batches read {attr}; in another worker process it has another value" if read_here else ""
    report.at("SEQ205", effect, message, view.cls.name, severity=severity, why=why)


def _global(view: View, report: Report, effect: Effect, root: Root) -> None:
    name = root.name.rpartition(".")[2]
    if root.attr:
        name = f"{name}.{root.attr}"
    if "rebind" in effect.flags and not root.attr:
        if _kept(effect):
            if not effect.value.kinds & RESOURCES:
                report.at("SEQ210", effect, f"the global {name} is filled once for each process", view.cls.name)
            return
        report.at("SEQ201", effect, f"the global {name} is bound anew while serving a batch", view.cls.name)
    elif _kept(effect):
        report.at("SEQ210", effect, f"the global {name} is filled once for each process", view.cls.name)
    else:
        report.at("SEQ202", effect, f"the global {name} is changed while serving a batch", view.cls.name)


def _class(view: View, report: Report, effect: Effect, attr: str, owner: str) -> None:
    if _kept(effect):
        if not effect.value.kinds & RESOURCES:
            message = f"{owner}.{attr}, shared by all instances, is filled once for each process"
            report.at("SEQ210", effect, message, view.cls.name)
        return
    message = f"{owner}.{attr}, which belongs to the class, is changed while serving a batch"
    report.at("SEQ203", effect, message, view.cls.name)


def _consumed(view: View, report: Report, effect: Effect) -> None:
    root = effect.root
    if root is None or root.kind not in ("self", "global", "class", "free"):
        return
    if root.kind == "self":
        if not root.attr or _belongs_to_worker(view, root.attr):
            return
        name = f"self.{root.attr}"
        kinds = view.kinds(root.attr)
        if "dict" in kinds and effect.detail == "pop":
            _stateful(view, report, effect._replace(kind="write", flags=effect.flags | {"item"}), root.attr)
            return
        if effect.detail == "for" and not kinds & {"generator", "iterator"}:
            return
    else:
        name = f"the global {root.name.rpartition('.')[2]}"
    if effect.detail in ("next", "for"):
        message = f"serving a batch takes the next item of {name}"
    else:
        message = f"serving a batch takes an item out of {name}"
    report.at("SEQ206", effect, message, view.cls.name)


def _queue(view: View, report: Report, effect: Effect) -> None:
    root = effect.root
    if root is None or root.kind != "self" or effect.detail not in view.tables.sets["effects.queue_consumers"]:
        return
    if "queue" in view.kinds(root.attr) or "kind:queue" in effect.flags:
        report.at("SEQ206", effect, f"serving a batch takes an item out of self.{root.attr}", view.cls.name)


def _returned(view: View, report: Report, written: set[str]) -> None:
    for site, value, chain in view.batches:
        for root in sorted(_parts(value)):
            if root in written and not _belongs_to_worker(view, root):
                message = f"the batch is a part of self.{root}, which the next batch overwrites"
                report.add("SEQ207", site, message, cls=view.cls.name, chain=chain)
                break


def _parts(value: Value) -> set[str]:
    """Return the attributes of which a returned value is, or holds, a part."""
    found: set[str] = set()
    if not value.kinds & {"weak", "element", "dict", "scratch"}:
        found = {root.attr for root in value.roots if root.kind == "param" and root.attr}
    for item in value.items or ():
        found |= _parts(item)
    return found

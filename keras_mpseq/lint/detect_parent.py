"""SEQ404, SEQ405, SEQ407, SEQ510: what the training process does to the order of the data."""

from __future__ import annotations

import ast

from keras_mpseq.lint.model import Function
from keras_mpseq.lint.report import Report
from keras_mpseq.lint.summary import Effect
from keras_mpseq.lint.values import Site, Taint
from keras_mpseq.lint.zones import View


def detect(view: View, report: Report) -> None:
    """Look at the parent zone, and at file lists in both."""
    in_worker = {effect.site for effect in view.worker if effect.kind in ("draw", "seed", "method")}
    changing = {m for m, e in view.parent if e.kind == "write" and e.root is not None and e.root.kind == "self"}
    seeds: dict[Function, int] = {}
    for method, effect in view.parent:
        if effect.kind == "seed" and "argless" not in effect.flags:
            seeds[method] = min(effect.site.line, seeds.get(method, effect.site.line))
    for method, effect in view.parent:
        if effect.site in in_worker or not (method in changing or _runs_alone(view, method)):
            continue
        if effect.kind == "seed":
            message = f"{effect.detail} seeds a generator that the whole process shares"
            report.at("SEQ404", effect, message, view.cls.name, severity="warning")
        elif effect.kind in ("draw", "method"):
            _order(view, report, effect, seeds.get(method))
    _listings(view, report)
    _dead_order(view, report)


def _runs_alone(view: View, method: Function) -> bool:
    """Tell whether a method has a say in the order of the data, whatever it does; others have if they change it."""
    return method.name == "__init__" or method.name in view.tables.sets["sequence.epoch_hooks"]


def _order(view: View, report: Report, effect: Effect, seeded: int | None) -> None:
    """Look at a draw; *seeded* is the first line of its method that seeds a generator."""
    name = effect.detail.rpartition(".")[2]
    if name not in view.tables.sets["random.order"]:
        return
    if effect.kind == "draw":
        if seeded is not None and seeded <= effect.site.line:
            return
        message = f"{effect.detail} orders the data by a generator that nothing seeds"
    else:
        root = effect.root
        if root is None or root.kind != "self" or "unseeded" not in view.kinds(root.attr):
            return
        message = f"self.{root.attr}.{name} orders the data, and self.{root.attr} was made without a seed"
    report.at("SEQ405", effect, message, view.cls.name)


def _listings(view: View, report: Report) -> None:
    sorted_later = {
        effect.root.attr
        for _, effect in view.parent
        if effect.kind == "write" and effect.root is not None and effect.detail in ("sort", "sorted")
    }
    for _, effect in view.parent:
        root = effect.root
        if effect.kind != "write" or root is None or root.kind != "self" or root.attr in sorted_later:
            continue
        if effect.detail in ("add", "discard") or "set" in effect.value.kinds:
            # A set has no order to get wrong; where it is looped over is another matter.
            continue
        for taint in effect.value.taints:
            if root.attr in view.worker_reads or root.attr in view.parent_reads:
                _listing(view, report, taint, f"self.{root.attr} keeps", effect)
    for _, value, _ in view.batches:
        for taint in value.taints | {t for item in value.items or () for t in item.taints}:
            _listing(view, report, taint, "the batch keeps", None)


def _listing(view: View, report: Report, taint: Taint, who: str, effect: Effect | None) -> None:
    if taint.kind != "unordered" or taint.site is None:
        return
    what = "a set" if taint.name == "set" else taint.name
    message = f"{who} the order of {what}, which is not the same everywhere"
    confidence = "likely" if taint.name == "set" else "certain"
    chain = effect.chain if effect is not None and effect.site.path == taint.site.path else ()
    report.add("SEQ407", taint.site, message, cls=view.cls.name, chain=chain, confidence=confidence)


def _dead_order(view: View, report: Report) -> None:
    """A shuffle that no batch sees."""
    if view.getitem is None or view.escapes or view.analysis.hierarchy.method(view.cls, "__getattr__"):
        return
    for name in sorted(view.tables.sets["sequence.epoch_hooks"]):
        hook = view.analysis.hierarchy.method(view.cls, name)
        if hook is None:
            continue
        effects = [effect for method, effect in view.parent if method is hook]
        for effect in effects:
            if effect.kind == "write" and _shuffles(effect) and effect.root is not None and effect.root.kind == "self":
                _if_unread(view, report, effect, effect.root.attr)
        for function in view.summary(hook)[0].reached:
            _thrown_away(view, report, function)


def _shuffles(effect: Effect) -> bool:
    return "shuffle" in effect.flags or effect.detail.endswith("shuffle")


def _if_unread(view: View, report: Report, effect: Effect, attr: str) -> None:
    readers = view.parent_reads.get(attr, set()) - {"__init__", "__len__", *view.tables.sets["sequence.epoch_hooks"]}
    copied = _copied_on(view, attr)
    if attr and attr not in view.worker_reads and not readers and not copied:
        report.at("SEQ510", effect, f"self.{attr} is shuffled, and no batch reads it", view.cls.name)


def _copied_on(view: View, attr: str) -> bool:
    """Tell whether an epoch hook makes something else from the attribute."""
    for name in view.tables.sets["sequence.epoch_hooks"]:
        hook = view.analysis.hierarchy.method(view.cls, name)
        if hook is None:
            continue
        loads = [node for node in hook.of(ast.Attribute) if node.attr == attr and isinstance(node.ctx, ast.Load)]
        shuffled = [
            node
            for node in hook.of(ast.Call)
            if any(n in loads for n in node.args) and "shuffle" in ast.unparse(node.func)
        ]
        if len(loads) > len(shuffled):
            return True
    return False


def _thrown_away(view: View, report: Report, function: Function) -> None:
    """`shuffle(list(self.ids))` orders a list that nobody has; `permutation(...)` as a statement gives it away."""
    for node in function.of(ast.Expr):
        if not isinstance(node.value, ast.Call):
            continue
        call = node.value
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        lost = name in ("permutation", "permuted", "sample") and bool(call.args or call.keywords) and _is_random(call)
        if name == "shuffle" and call.args:
            first = call.args[0]
            lost = isinstance(first, ast.Call | ast.List | ast.ListComp | ast.BinOp) and not _is_view(first)
        if lost:
            site: Site = function.module.site(node, function.qualname)
            message = f"{ast.unparse(call)[:60]} shuffles something that is thrown away"
            report.add("SEQ510", site, message, cls=view.cls.name)


def _is_random(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    return "random" in text or "rng" in text or any(k.arg == "frac" for k in call.keywords)


def _is_view(node: ast.expr) -> bool:
    views = ("reshape", "ravel", "view", "asarray", "getattr", "transpose", "squeeze")
    return isinstance(node, ast.Call) and any(ast.unparse(node.func).endswith(name) for name in views)

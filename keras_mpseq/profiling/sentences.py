"""The bottleneck in one sentence, and figures as people read them. Pure."""

from __future__ import annotations

from math import ceil

from keras_mpseq.profiling.analysis import Hot, Verdict

_SMALL = 1 << 16
"""Bytes of a batch below which it is the message that costs, and not the bytes."""


def sentence(verdict: Verdict) -> str:
    """Return what is in the way, where, and what would help, in one sentence."""
    match verdict.kind:
        case "model":
            return _model(verdict)
        case "slow index":
            return _slow_index(verdict)
        case "slow worker":
            return _slow_worker(verdict)
        case "transport":
            return _transport(verdict)
        case "cpu":
            return f"CPU-bound{place(verdict.hot)}: {_cpu(verdict)}."
        case "io":
            return f"I/O-bound{place(verdict.hot)}: {_io(verdict)}."


def _model(verdict: Verdict) -> str:
    workers, rate = max((pair for pair in verdict.rates if pair[0] <= 1), key=lambda pair: pair[1])
    assert verdict.step_s
    return (
        f"Model-bound: {_workers(workers)} {_builds(workers)} {number(rate)} batches/s where a model step of "
        f"{seconds(verdict.step_s)} takes {number(1 / verdict.step_s)}, so that only a faster model helps."
    )


def _slow_index(verdict: Verdict) -> str:
    slow = verdict.slow
    assert slow
    usual = max(verdict.build_s, 1e-9)
    return (
        f"One slow index: index {slow.index} takes {seconds(slow.seconds)}, {number(slow.seconds / usual)} times the "
        f"median of {seconds(usual)}, and the batches behind it wait; split or cache what it does, or raise prefetch."
    )


def _slow_worker(verdict: Verdict) -> str:
    assert verdict.slow_worker
    worker, own, others = verdict.slow_worker
    return (
        f"One slow worker: worker {worker} takes {seconds(own)} for a batch where the others take {seconds(others)}; "
        "look at what it opens in on_worker_start and per_worker, and at the core that it runs on."
    )


def _transport(verdict: Verdict) -> str:
    small = verdict.nbytes < _SMALL
    parts = (
        f"encode {seconds(verdict.encode_s)}, transport {seconds(verdict.transport_s)}, "
        f"__getitem__ {seconds(verdict.build_s)}"
    )
    remedy = (
        "larger batches cost hardly more each"
        if small
        else "return fewer bytes, such as uint8 that the device scales, or build in place with self.empty"
    )
    return (
        f"Transport-bound: moving {nbytes(verdict.nbytes)} is {share(verdict.moving_share)} of the time of a batch "
        f"({parts}); {remedy}."
    )


def _cpu(verdict: Verdict) -> str:
    workers, rate = verdict.best
    more = f"more will not help beyond {verdict.cores} {cores_word(verdict.cores)}"
    if verdict.step_s is None:
        return f"{_workers(workers)} {_builds(workers)} {number(rate)} batches/s; {more}"
    step = f"a model step of {seconds(verdict.step_s)}"
    if verdict.workers and _feeds(verdict):
        return f"{_workers(verdict.workers)} {_feed(verdict.workers)} {step}; {more}"
    needed = ceil(verdict.needed)
    # Cores that are there already, and did not do: others use them, or workers are in each other's way.
    wanted = f"; {needed} cores would feed it" if needed > verdict.cores else f"; {needed} free cores would feed it"
    return (
        f"{_workers(workers)} {_builds(workers)} {number(rate)} batches/s where {step} takes "
        f"{number(1 / verdict.step_s)}{wanted}, or a faster __getitem__"
    )


def _io(verdict: Verdict) -> str:
    workers, rate = verdict.best
    waits = f"it computes {share(verdict.cpu_share)} of the time and waits the rest"
    if verdict.step_s is not None and _feeds(verdict):
        step = f"a model step of {seconds(verdict.step_s)}"
        return f"{waits}; {_workers(verdict.workers)} {_feed(verdict.workers)} {step}"
    if verdict.saturated:
        return (
            f"{waits}, and more than {_workers(workers)} do not get more from the disk or network than "
            f"{number(rate)} batches/s"
        )
    if verdict.step_s is not None:
        needed = ceil(verdict.needed)
        return (
            f"{waits}; {_workers(workers)} {_builds(workers)} {number(rate)} batches/s where a model step of "
            f"{seconds(verdict.step_s)} takes {number(1 / verdict.step_s)}, so try {needed}, also with fewer cores"
        )
    return (
        f"{waits}; {_workers(workers)} {_builds(workers)} {number(rate)} batches/s, and more workers than the "
        f"{verdict.cores} {cores_word(verdict.cores)} help: try {verdict.workers}"
    )


def _feeds(verdict: Verdict) -> bool:
    return verdict.step_s is not None and max(rate for _, rate in verdict.rates) >= 1 / verdict.step_s


def place(hot: Hot | None) -> str:
    """Return where time goes to, after what goes there."""
    if hot is None:
        return ""
    return f" in `{hot.frame.function}` ({hot.frame.path}:{hot.frame.line}, {share(hot.share)} of the time)"


def _workers(count: int) -> str:
    return "this process alone" if not count else f"{count} worker{'' if count == 1 else 's'}"


def _builds(count: int) -> str:
    return "builds" if count <= 1 else "build"


def _feed(count: int) -> str:
    return "feeds" if count <= 1 else "feed"


def cores_word(count: int) -> str:
    """Return the word for so many cores."""
    return "core" if count == 1 else "cores"


def seconds(value: float) -> str:
    """Return a time as people read it: 480 ms, 1.2 s, 35 µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{number(value / size)} {unit}"
    return f"{number(value / 1e-6)} µs"


def nbytes(count: int) -> str:
    """Return a size as people read it: 19 MB, 512 B."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= 0.9995 * size:
            return f"{number(count / size)} {unit}"
    return f"{count} B"


def number(value: float) -> str:
    """Return a number with two or three digits that count."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 9.995 else f"{value:.2g}"


def share(value: float) -> str:
    """Return a share as per cent."""
    return f"{value * 100:.0f} %"

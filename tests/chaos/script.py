"""A seed becomes a script: which sequence, which pipeline, which consumer, and which faults when. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

TEMPLATE = -1
"""In the place of a worker's rank: the template process; where there is none, a worker."""
KINDS = ("small", "large", "varying", "versions")
LOADER_USES = ("fast", "slow", "abandon", "close", "hold", "zip", "threads")
WAYS = {"loader": 10, "dataset": 6, "map": 2, "generators": 2}
"""Loader, to_dataset, process_map, generator_dataset; and how often."""
PARTITIONS = 4
DATASET_USES = ("fast", "slow", "abandon", "list", "cache", "shuffle", "zip")
LETHAL = frozenset({"kill", "terminate", "crash", "exit"})
PAUSING = frozenset({"stop", "pulse", "nap"})
_OUTSIDE = 15
"""Faults from outside in a script, on average."""


class Fault(NamedTuple):
    """Something that happens to a process from outside, at a moment of the epoch."""

    taken: int
    """So many batches were delivered,"""
    steps: int
    """and then so many steps were made in the training process: events, messages, waits."""
    what: str
    """kill, terminate, crash, stop (and continue), pulse (several stops), slow (low priority) or starve (no memory)."""
    whom: int
    """Rank of a worker among those that live, oldest first; or TEMPLATE."""
    ms: int = 0
    """How long, where it has an end."""


class Own(NamedTuple):
    """Something that a process does to itself in the user's code, at an exact place, once."""

    number: int
    phase: str
    """unpickle, start, begin (of a batch), half, end."""
    index: int
    """Of the batch; -1 where there is none."""
    what: str
    """kill, crash, exit (as with success), template (kills its parent), nap."""
    ms: int = 0


@dataclass(frozen=True)
class Script:
    """Everything that a seed stands for."""

    seed: int
    kind: str
    batches: int
    passes: int
    work_ms: float
    """For a batch."""
    way: str
    """A key of WAYS."""
    use: str
    until: int
    """Batches taken in a pass by a consumer that leaves early."""
    options: dict[str, Any]
    depth: int
    """Tasks that a worker holds."""
    faults: tuple[Fault, ...]
    own: tuple[Own, ...]

    @property
    def dataset(self) -> bool:
        """It is tf.data that iterates."""
        return self.way != "loader"

    def __str__(self) -> str:
        return "\n".join(f"  {field.name}: {getattr(self, field.name)}" for field in fields(self))


def script_of(seed: int) -> Script:
    """Return the script of *seed*."""
    draw = random.Random(f"chaos {seed}")
    way = _weighted(draw, WAYS)
    kind = draw.choice(KINDS if way in ("loader", "dataset") else KINDS[:2])
    batches = draw.randint(8, 36)
    passes = draw.randint(2, 3)
    use = draw.choice(LOADER_USES if way == "loader" else DATASET_USES)
    until = draw.randint(1, batches) if use in ("abandon", "close") else batches
    options = _options(draw, kind, way)
    taken = passes * until * (2 if use in ("zip", "threads") else 1)
    return Script(
        seed=seed,
        kind=kind,
        batches=batches,
        passes=passes,
        work_ms=draw.choice((0, 0.5, 1, 2, 4)),
        way=way,
        use=use,
        until=until,
        options=options,
        depth=_weighted(draw, {2: 6, 1: 1, 3: 2, 5: 1}),
        faults=_faults(draw, taken, options["launcher"] == "template"),
        own=_own(draw, batches, options["launcher"] == "template"),
    )


def _options(draw: random.Random, kind: str, way: str) -> dict[str, Any]:
    workers = _weighted(draw, {1: 1, 2: 4, 3: 3, 4: 2})
    options = {
        "workers": workers,
        "launcher": _weighted(draw, {"template": 9, "spawn": 1}),
        "attempts": _weighted(draw, {1: 1, 2: 5, 3: 5, 8: 9}),
        "prefetch": draw.choice((None, None, 1, 2, 3, 8)),
        # Four of the largest batches: the slots are few, and the consumer soon holds them all.
        "max_bytes": None if kind == "varying" else draw.choice((None, None, 4 << 18)),
        "ordered": draw.random() < 0.8,
        "shuffle": draw.random() < 0.4,
        "partition": _weighted(draw, {"dynamic": 4, "stride": 1, "block": 1}),
        "on_error": _weighted(draw, {"raise": 4, "skip": 1}),
        "timeout": _weighted(draw, {None: 9, 0.3: 1}),
        "strict": draw.random() < 0.1,
        "seed": draw.randint(0, 1 << 33),
    }
    if way in ("map", "generators"):
        options = {name: value for name, value in options.items() if name not in ("shuffle", "partition", "strict")}
    if way == "generators":
        options["on_error"] = "raise"  # With "skip" a partition is given up, however much of it is left.
    return options


def _faults(draw: random.Random, taken: int, template: bool) -> tuple[Fault, ...]:
    # A worker that is spawned costs a start of the interpreter, half a second on a busy machine; a forked one 10 ms.
    deaths = 9 if template else 2
    weights = {"kill": deaths, "terminate": 1, "crash": 1, "stop": 7, "pulse": 3, "slow": 2, "starve": 1}
    faults = []
    for _ in range(draw.randint(_OUTSIDE - 5, _OUTSIDE + 5)):
        what = _weighted(draw, weights)
        ms = {"stop": draw.choice((1, 5, 20, 60, 150)), "pulse": 3, "slow": 100, "starve": 20}.get(what, 0)
        whom = draw.randint(0, 3)
        if template and draw.random() < (0.3 if what == "stop" else 0.05 if what == "kill" else 0):
            whom = TEMPLATE
        faults.append(Fault(draw.randint(0, taken), draw.choice((0, 0, 1, 2, 3, 5, 8)), what, whom, ms))
    return tuple(sorted(faults))


def _own(draw: random.Random, batches: int, template: bool) -> tuple[Own, ...]:
    found = []
    for number in range(draw.randint(0, 5 if template else 2)):
        phase = _weighted(draw, {"begin": 3, "half": 6, "end": 3, "start": 2})
        what = _weighted(draw, {"kill": 4, "exit": 2, "crash": 1, "nap": 4})
        if template and draw.random() < 0.05:
            what = "template"
        index = -1 if phase == "start" else draw.randrange(batches)
        found.append(Own(number, phase, index, what, draw.choice((1, 10, 100))))
    if draw.random() < 0.02:
        found.append(Own(len(found), "unpickle", -1, draw.choice(("kill", "exit", "nap")), 50))
    return tuple(found)


def _weighted(draw: random.Random, choices: dict[T, int]) -> T:
    kinds: Sequence[T] = tuple(choices)
    return draw.choices(kinds, tuple(choices.values()))[0]

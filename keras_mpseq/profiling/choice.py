"""How many workers `workers="auto"` is, from what one worker did, and the reason in words. Pure."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from keras_mpseq.profiling.analysis import MOST_WAITING, hottest
from keras_mpseq.profiling.measured import Setting
from keras_mpseq.profiling.sentences import cores_word, place, seconds, share

_BUSY = 0.8
"""Share of its time that a worker computes from on which it takes a core of its own."""


class Choice(NamedTuple):
    """A number of workers, and why it is that."""

    workers: int
    why: str


def chosen(setting: Setting, cores: int) -> Choice:
    """Return how many workers are useful, given what one of them did.

    As many as keep the cores busy, where they wait for a disk or a network more than there are; but no more than the
    training process can take batches from.
    """
    built = setting.steady
    own_s = sum(one.own_s for one in built) / len(built)
    computed_s = sum(min(one.timing.cpu_s, one.build_s) + one.timing.encode_s for one in built) / len(built)
    busy = computed_s / own_s if own_s else 1.0
    where = place(hottest(setting.stacks))
    takes_s = max(setting.transport_s, 1e-9)
    most = max(1, ceil(own_s / takes_s))
    wanted = cores if busy >= _BUSY else min(ceil(cores / busy), MOST_WAITING * cores)
    if most < wanted:
        why = f"a batch takes a worker {seconds(own_s)} and the training process {seconds(takes_s)}, so that more idle"
        return Choice(most, why)
    if wanted == cores:
        return Choice(cores, f"batches compute{where}, one worker for each core")
    kept = f"{cores} {cores_word(cores)}"
    return Choice(wanted, f"batches wait{where} and compute {share(busy)} of the time, which keeps {kept} busy")

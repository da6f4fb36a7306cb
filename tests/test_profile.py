"""The profile: what the numbers mean, said of numbers; that the numbers are right, said of pipelines of known kind."""

from __future__ import annotations

import logging

import pytest

from keras_mpseq import Loader
from keras_mpseq.machine import cores
from keras_mpseq.messages import Frame, Stack, Timing
from keras_mpseq.profiling.analysis import feeding, hottest, judged
from keras_mpseq.profiling.choice import chosen
from keras_mpseq.profiling.measured import Built, Setting, Take
from keras_mpseq.profiling.profile import Profile
from keras_mpseq.profiling.runner import doubling
from keras_mpseq.profiling.sentences import nbytes, seconds, sentence
from tests import profiled

GETITEM, AUGMENT = Frame("data.py", "__getitem__", 20), Frame("data.py", "_augment", 41)
STACKS: tuple[tuple[Stack, int], ...] = (((GETITEM, AUGMENT), 71), ((GETITEM,), 29))


def setting(
    workers: int,
    rate: float,
    *,
    build_s: float = 0.010,
    encode_s: float = 0.0001,
    cpu: float = 1.0,
    queued_s: float = 0.0,
    taking_s: float = 0.0001,
    nbytes: int = 1_000_000,
    slow: dict[int, float] | None = None,
    slow_workers: dict[int, float] | None = None,
    stride: bool = False,
) -> Setting:
    """Make up a second of a pipeline: 20 indices, dealt to workers in turn, shifted by one each epoch."""
    built = []
    seats = max(workers, 1)
    for number in range(80):
        index = number % 20
        worker = (index if stride else number + number // 20) % seats
        took = (build_s + (slow or {}).get(index, 0.0)) * (slow_workers or {}).get(worker, 1.0)
        timing = Timing(index, number * 0.01, took + queued_s, encode_s, took * cpu, queued_s, nbytes)
        built.append(Built(worker, timing, number < seats))
    takes = tuple(Take(n / rate, (n + 1) / rate, taking_s if workers else 0.0) for n in range(round(rate)))
    return Setting(workers, 1.0, takes, tuple(built), STACKS)


def said(*settings: Setting, cores: int = 8, step_s: float | None = None) -> str:
    return sentence(judged(settings, cores, step_s))


# --- numbers to a sentence ------------------------------------------------------------------------

CPU = (setting(0, 4), setting(1, 4), setting(2, 8), setting(4, 16), setting(8, 32))


def test_what_computes_is_named_with_what_feeds_the_model() -> None:
    assert said(*CPU, step_s=0.040) == (
        "CPU-bound in `_augment` (data.py:41, 71 % of the time): 7 workers feed a model step of 40 ms; "
        "more will not help beyond 8 cores."
    )
    assert said(*CPU) == (
        "CPU-bound in `_augment` (data.py:41, 71 % of the time): 8 workers build 32 batches/s; "
        "more will not help beyond 8 cores."
    )
    assert said(*CPU, step_s=0.01) == (
        "CPU-bound in `_augment` (data.py:41, 71 % of the time): 8 workers build 32 batches/s where a model step of "
        "10 ms takes 100; 25 cores would feed it, or a faster __getitem__."
    )


IO = {"build_s": 0.1, "cpu": 0.05}


def test_what_waits_wants_more_workers_than_cores() -> None:
    waiting = (setting(1, 10, **IO), setting(2, 20, **IO))
    begin = "I/O-bound in `_augment` (data.py:41, 71 % of the time): it computes 5 % of the time and waits the rest"
    assert said(*waiting, cores=2) == (
        f"{begin}; 2 workers build 20 batches/s, and more workers than the 2 cores help: try 8."
    )
    assert said(*waiting, cores=2, step_s=0.05) == f"{begin}; 2 workers feed a model step of 50 ms."
    assert said(*waiting, cores=2, step_s=0.02) == (
        f"{begin}; 2 workers build 20 batches/s where a model step of 20 ms takes 50, so try 5, also with fewer cores."
    )
    full = (setting(1, 10, **IO), setting(2, 10, **IO))
    assert said(*full, cores=2) == (
        f"{begin}, and more than 1 worker do not get more from the disk or network than 10 batches/s."
    )


def test_a_busy_machine_makes_computing_no_waiting() -> None:
    busy = [setting(1, 10, queued_s=0.09), setting(2, 12, queued_s=0.2)]
    assert judged(busy, 2).kind == "cpu"


def test_what_moves_says_how_much_and_how_long() -> None:
    big = {"build_s": 0.001, "encode_s": 0.008, "taking_s": 0.001, "nbytes": 19_267_584}
    assert said(setting(1, 100, **big), setting(2, 110, **big)) == (
        "Transport-bound: moving 19.3 MB is 90 % of the time of a batch (encode 8 ms, transport 1 ms, "
        "__getitem__ 1 ms); return fewer bytes, such as uint8 that the device scales, or build in place with "
        "self.empty."
    )
    tiny = {"build_s": 0.00001, "encode_s": 0.00003, "taking_s": 0.00006, "nbytes": 1024}
    assert said(setting(1, 100, **tiny)).endswith("10 µs); larger batches cost hardly more each.")


def test_a_model_that_is_fed_is_the_bottleneck() -> None:
    assert said(setting(0, 310), setting(1, 300), step_s=0.040) == (
        "Model-bound: this process alone builds 310 batches/s where a model step of 40 ms takes 25, so that only a "
        "faster model helps."
    )


def test_one_index_that_is_always_slow_is_named() -> None:
    slow = {"slow": {17: 0.470}}
    assert said(setting(1, 30, **slow), setting(2, 60, **slow)) == (
        "One slow index: index 17 takes 480 ms, 48 times the median of 10 ms, and the batches behind it wait; "
        "split or cache what it does, or raise prefetch."
    )
    # A quarter of them is no exception, and what was slow once was disturbed.
    assert judged([setting(1, 30, slow=dict.fromkeys(range(5), 0.47)), setting(2, 60)], 8).kind == "cpu"
    assert judged([setting(1, 30, **slow), setting(2, 60)], 8).kind == "cpu"


def test_one_worker_that_is_slow_is_named() -> None:
    slow = {"slow_workers": {1: 4.0}}
    assert said(setting(1, 90), setting(2, 110, **slow), setting(4, 200, **slow)) == (
        "One slow worker: worker 1 takes 40.1 ms for a batch where the others take 10.1 ms; look at what it opens in "
        "on_worker_start and per_worker, and at the core that it runs on."
    )
    both = {"slow_workers": {0: 4.0}}  # The worker that is alone in the first setting.
    assert judged([setting(1, 25, **both), setting(2, 110, **both)], 8).slow_worker == pytest.approx(
        (0, 0.0401, 0.0101)
    )


def test_a_worker_whose_indices_are_hard_is_not_slow() -> None:
    hard = {"slow": dict.fromkeys(range(1, 20, 2), 0.03)}
    found = judged([setting(1, 40, **hard), setting(2, 80, stride=True, **hard)], 8)
    assert (found.kind, found.slow_worker) == ("cpu", None)


def test_workers_between_those_measured_are_found() -> None:
    rates = [(0, 50.0), (1, 10.0), (2, 20.0), (4, 40.0), (8, 60.0)]
    assert [feeding(rates, 1 / rate) for rate in (5, 10, 15, 20, 30, 41, 60, 61)] == [1, 1, 2, 2, 3, 5, 8, None]
    assert [doubling(cores) for cores in (1, 2, 6, 8)] == [[0, 1], [0, 1, 2], [0, 1, 2, 4, 6], [0, 1, 2, 4, 8]]


def test_the_innermost_function_with_half_of_the_time_is_hot() -> None:
    a, b, other = Frame("d.py", "a", 5), Frame("d.py", "b", 9), Frame("d.py", "c", 12)
    b_later = b._replace(line=10)
    stacks = [((GETITEM, a, b), 30), ((GETITEM, a, b_later), 31), ((GETITEM, a), 5), ((GETITEM, other), 34)]
    assert hottest(stacks) == (b_later, 0.61)
    assert hottest([((GETITEM, a), 34), ((GETITEM, b), 33), ((GETITEM, other), 33)]) == (GETITEM, 1.0)
    assert hottest([]) is None


def test_figures_are_short() -> None:
    assert [seconds(value) for value in (0.48, 1.234, 0.0000351, 12.0, 0.9999)] == [
        "480 ms",
        "1.2 s",
        "35.1 µs",
        "12 s",
        "1 s",
    ]
    assert [nbytes(value) for value in (0, 512, 1024, 19_267_584, 3_000_000_000)] == [
        "0 B",
        "512 B",
        "1 KB",
        "19.3 MB",
        "3 GB",
    ]


# --- pipelines ------------------------------------------------------------------------------------


def profiled_with(sequence: object, step_s: float | None = None) -> Profile:
    with Loader(sequence, workers=0) as loader:
        return loader.profile(seconds=0.3, step_s=step_s, workers=[0, 1, 2])


@pytest.mark.parametrize(
    ("sequence", "step_s", "kind", "words"),
    [
        (profiled.Computing(), None, "cpu", "CPU-bound in `_augment` (tests/profiled.py:"),
        (profiled.Waiting(), None, "io", "I/O-bound in `_read` (tests/profiled.py:"),
        (profiled.Moving(), None, "transport", "Transport-bound: moving 9.6 MB is"),
        (profiled.Computing(), 0.25, "model", "where a model step of 250 ms takes 4, so"),
        (profiled.SlowIndex(), None, "slow index", f"One slow index: index {profiled.SlowIndex.SLOW} takes"),
        (profiled.SlowWorker(), None, "slow worker", f"One slow worker: worker {profiled.SlowWorker.SLOW} takes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_bottleneck_of_six_pipelines(sequence: object, step_s: float | None, kind: str, words: str) -> None:
    found = profiled_with(sequence, step_s)
    assert found.verdict.kind == kind, found.sentence
    assert words in found.sentence
    assert [one.workers for one in found.settings] == [0, 1, 2]
    assert all(one.takes and one.built for one in found.settings)
    assert (found.stepped is not None) == (step_s is not None)


# --- workers="auto" -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "workers", "why"),
    [
        (setting(1, 90), 8, "batches compute in `_augment` (data.py:41, 71 % of the time), one worker for each core"),
        (
            setting(1, 10, build_s=0.1, cpu=0.4, encode_s=0),
            20,
            "batches wait in `_augment` (data.py:41, 71 % of the time) and compute 40 % of the time, which keeps "
            "8 cores busy",
        ),
        (setting(1, 10, build_s=0.1, cpu=0.01, encode_s=0), 32, "compute 1 % of the time"),
        (
            setting(1, 900, build_s=0.0001, encode_s=0.0001, taking_s=0.0001),
            2,
            "a batch takes a worker 200 µs and the training process 100 µs, so that more idle",
        ),
    ],
    ids=["computing", "waiting", "only waiting", "moving"],
)
def test_auto_is_as_many_as_are_useful(one: Setting, workers: int, why: str) -> None:
    found = chosen(one, cores=8)
    assert found.workers == workers and why in found.why


class Long(profiled.Waiting):
    def __len__(self) -> int:
        return 100


class Hooked(Long):
    def on_epoch_begin(self) -> None:
        self.order = list(range(100))

    def __getitem__(self, index: int) -> object:
        return profiled.np.full(3, self.order[index])


def auto(sequence: object, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Return the number of workers, and what is logged of it."""
    with caplog.at_level(logging.INFO, "keras_mpseq"), Loader(sequence) as loader:
        next(iter(loader))
    (line,) = (record.getMessage() for record in caplog.records if "auto" in record.getMessage())
    return loader.stats().workers, line


def test_auto_measures_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    workers, line = auto(Long(), caplog)
    assert cores() < workers <= 4 * cores()
    assert line.startswith(f'workers="auto" is {workers}: batches wait in `_read` (tests/profiled.py:')


def test_auto_is_the_cores_where_it_cannot_measure(caplog: pytest.LogCaptureFixture) -> None:
    assert auto(profiled.Waiting(), caplog) == (
        cores(),
        f'workers="auto" is {cores()}: one worker for each core; 12 batches are too few to measure.',
    )
    caplog.clear()
    workers, line = auto(Hooked(), caplog)  # Hooks are the real epoch's, which works.
    assert workers == cores() and "a trial failed (" in line and "AttributeError" in line

"""Which trials are run, in what order, and what one trial's outcome means for the next."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass, field

from keras_mpseq.checks.lab import Lab, LoadingError, Parcel
from keras_mpseq.checks.records import Blocked, Call, Leaf, Outcome, Trial
from keras_mpseq.checks.sending import Parts
from keras_mpseq.findings import HEAVY

_ELSEWHERE = {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati"}
"""What is different in the other kind of child. The working directory is the same: workers have it, too."""


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What all trials saw."""

    parts: Parts
    timeout_s: float
    heavy: int = HEAVY
    """Bytes from which an attribute is too heavy to be pickled for every worker."""
    indices: tuple[int, ...] = ()
    length: int | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    blocked: Blocked | None = None
    not_loaded: LoadingError | None = None
    has_factory: bool = False
    hung: Blocked | None = None
    """A trial that hung in a forked process only."""
    left_out: list[str] = field(default_factory=list)
    """Trials that would have taken too long."""

    def calls(self, trial: str) -> list[Call]:
        """Return the calls of a trial in which each index was called for the first time; none if it was not run."""
        outcome = self.outcomes.get(trial)
        return [] if outcome is None else [call for call in outcome.calls if not call.repeated]

    def batches(self, trial: str) -> dict[int, tuple[Leaf, ...]]:
        """Return the batches of the first epoch of a trial, by index; those that raised are left out."""
        return {call.index: call.leaves for call in self.calls(trial) if call.raised is None and call.epoch == 0}

    def differ(self, one: str, other: str) -> list[int]:
        """Return the indices whose batches differ between two trials."""
        first, second = self.batches(one), self.batches(other)
        return [index for index in first if index in second and first[index] != second[index]]

    def is_lost_attribute(self, name: str) -> bool:
        """Tell whether the sequence has an attribute here that it lost on the way to the children."""
        return name in getattr(self.parts.sequence, "__dict__", {}) and name not in self.about.attributes

    def ambient(self) -> list[int]:
        """Return the indices that come out otherwise in a second process that makes the same calls."""
        return self.differ("again", "once more")

    def order_dependent(self) -> list[int]:
        """Return the indices whose batch depends on what was called before it."""
        first = self.batches("serial")
        repeated = {call.index: call.leaves for call in self.serial.calls if call.repeated and call.raised is None}
        differ = {index for index, leaves in repeated.items() if index in first and first[index] != leaves}
        differ |= {*self.differ("serial", "again"), *self.differ("again", "backwards")}
        return sorted(differ - set(self.ambient()))

    @property
    def serial(self) -> Outcome:
        """What the first trial saw; empty if it came to no end."""
        return self.outcomes.get("serial", Outcome())

    @property
    def trace(self) -> Outcome:
        """What the trial that looks for lines saw."""
        return self.outcomes.get("trace", Outcome())

    @property
    def about(self) -> Outcome:
        """What is known without a call."""
        return self.outcomes.get("describe", Outcome())

    def changed(self, prefix: str = "") -> list[str]:
        """Return the keys that calls changed and that begin with *prefix*."""
        keys = {
            change.key
            for call in self.serial.calls
            for change in call.changes
            # What is imported while a batch is built may draw from the global generators, once.
            if not (call.imports and change.key.startswith("rng "))
        }
        return sorted(key for key in keys if key.startswith(prefix))

    def state_changed(self) -> list[str]:
        """Return the keys that calls changed, without those of random generators."""
        return [key for key in self.changed() if not key.startswith("rng ")]


PATIENCE = 2.0
"""Time-outs from which no trial is begun that could be left out: batches take long."""
FRESH_S = 15.0
"""Seconds of a check from which no trial is begun that could be left out, where each needs a process of its own."""
_NEEDED = {"describe", "serial", "again", "once more", "backwards"}
"""Trials without which a batch would be blamed for what it did not do."""


class _StoppedError(Exception):
    """A trial came to no end: the others would not, either."""


class Plan:
    """Runs all trials of one check.

    Args:
        parts: The sequence.
        factory: Pickle of the factory; empty if there is none.
        samples: How many indices are called.
        epochs: How many epochs are looked at.
        timeout_s: Seconds for each child.
    """

    def __init__(self, parts: Parts, factory: bytes, samples: int, epochs: int, timeout_s: float) -> None:
        self._samples = samples
        self._epochs = epochs
        self._timeout_s = timeout_s
        self._factory = factory
        self._until = time.monotonic() + PATIENCE * timeout_s
        self._home: Lab | None = None
        self._elsewhere: Lab | None = None
        self.evidence: Evidence = Evidence(parts=parts, timeout_s=timeout_s, has_factory=bool(factory))

    def run(self) -> Evidence:
        """Run the trials; return what they saw, also if one of them came to no end."""
        evidence = self.evidence
        packed = None if self._factory and evidence.parts.lost else evidence.parts.packed
        if packed is None and not self._factory:
            return evidence
        parcel = Parcel(packed, self._factory)
        try:
            # Both at once: most of the time goes into starting Python and importing what the sequence needs.
            self._home = Lab(parcel, {"PYTHONHASHSEED": "0"}, self._timeout_s)
            other = {**_ELSEWHERE, "TZ": "Asia/Kathmandu"} if os.environ.get("TZ") == _ELSEWHERE["TZ"] else _ELSEWHERE
            self._elsewhere = Lab(parcel, other, self._timeout_s)
            self._trials()
        except LoadingError as error:
            evidence.not_loaded = error
        except _StoppedError:
            pass
        finally:
            for lab in (self._home, self._elsewhere):
                if lab is not None:
                    lab.close()
            parcel.close()
        return evidence

    def _try(self, trial: Trial, elsewhere: bool = False) -> None:
        lab = self._elsewhere if elsewhere else self._home
        assert lab is not None
        if trial.name not in _NEEDED and time.monotonic() > self._until:
            self.evidence.left_out.append(trial.name)
            return
        began = time.monotonic()
        outcome = lab.run(trial)
        if lab.hung is not None and self.evidence.hung is None:
            self.evidence.hung = lab.hung
            self._until = began + FRESH_S
        if isinstance(outcome, Blocked):
            self.evidence.blocked = outcome
            raise _StoppedError
        self.evidence.outcomes[trial.name] = outcome

    def _trials(self) -> None:
        evidence = self.evidence
        self._try(Trial(name="describe", calls=()))
        lengths = evidence.about.lengths
        evidence.length = lengths[0] if lengths else 0
        if evidence.length is not None and evidence.length < 1:
            return
        evidence.indices = sampled(evidence.length, self._samples)
        calls = tuple((0, index) for index in evidence.indices)
        self._try(Trial(name="serial", calls=calls, observe=True, repeat=True))
        self._trace(calls)
        self._try(Trial(name="again", calls=calls))
        self._try(Trial(name="once more", calls=calls))
        self._try(Trial(name="backwards", calls=calls[::-1]))
        self._try(Trial(name="poison", calls=calls, poison=True))
        self._try(Trial(name="ambient", calls=calls), elsewhere=True)
        self._try(Trial(name="listing", calls=calls, backwards=True), elsewhere=True)
        self._as_needed(calls)
        if self._factory:
            for name, elsewhere, backwards in (
                ("made", False, False),
                ("made again", False, False),
                ("made elsewhere", True, False),
                ("made from other listings", True, True),
            ):
                listen = name == "made"
                self._try(Trial(name=name, calls=calls, made=True, backwards=backwards, listen=listen), elsewhere)
        everything = tuple((epoch, index) for epoch in range(self._epochs) for index in evidence.indices)
        self._try(Trial(name="epochs", calls=everything, epochs=True, listen=True))

    def _trace(self, calls: tuple[tuple[int, int], ...]) -> None:
        slow = self.evidence.serial.slow
        keys = tuple(key for key in self.evidence.changed() if key not in slow)
        # Only what changes can be a cache, which a second call of the same index leaves as it is.
        self._try(Trial(name="trace", calls=calls, trace=keys, repeat=bool(keys)))

    def _as_needed(self, calls: tuple[tuple[int, int], ...]) -> None:
        evidence = self.evidence
        state, drawn = evidence.state_changed(), evidence.changed("rng ")
        if drawn:
            self._try(Trial(name="seeds", calls=calls, seed=1))
        if state or evidence.serial.large_arrays:
            self._try(Trial(name="freeze", calls=calls, freeze=True))
        if state and not drawn:
            self._try(Trial(name="threads", calls=calls, threads=True))
        if evidence.about.index_unread:
            self._try(Trial(name="one seed", calls=calls, one_seed=True))


def sampled(length: int | None, samples: int) -> tuple[int, ...]:
    """Return indices in pairs of neighbours, spread from the first to the last."""
    if length is None or length <= samples:
        return tuple(range(samples if length is None else length))
    if samples == 1:
        return (0,)
    pairs = samples // 2
    span = max(pairs - 1, 1)
    starts = [(2 * (length - 2) * number + span) // (2 * span) for number in range(pairs)]
    found = {index for start in starts for index in (start, start + 1)} | {length - 1}
    # A length may be that of a sequence without an end: what is not needed is not counted.
    spare = itertools.islice((index for index in range(length) if index not in found), max(samples - len(found), 0))
    # Two samples are the first and the last.
    found = {0, length - 1} if samples == 2 else found | set(spare)
    return tuple(sorted(found))

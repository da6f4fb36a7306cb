"""One trial, in a process of its own: call the sequence as told, and note what can be seen.

The global random generators are seeded for every call, as in our workers, so that a batch that draws from them is the
same in every trial that does not vary the seed; what differs then has another cause.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_mpseq.build import call_hook
from keras_mpseq.checks import members
from keras_mpseq.checks.interleave import interleave
from keras_mpseq.checks.listen import Console, Listener, Patches
from keras_mpseq.checks.locate import Tracer
from keras_mpseq.checks.lost import LostMemberError
from keras_mpseq.checks.memos import Memos
from keras_mpseq.checks.prints import Printed, tensors_in
from keras_mpseq.checks.records import Began, Call, Event, Outcome, Place, Raised, Trial, Written
from keras_mpseq.checks.watch import Seen, Watch, changes
from keras_mpseq.errors import MpseqError, named, users_traceback
from keras_mpseq.local import context, set_epoch
from keras_mpseq.order import seed_globals
from keras_mpseq.state.digests import digest_of_array
from keras_mpseq.state.reach import Reach, UserCode, getitem_of, leaves_index_unread

_TRACEBACK_LIMIT = 4_000
_HELD = 4
"""Batches that are kept to see whether later calls change them."""
_AMBIENT = {
    *("now", "utcnow", "today", "hash", "id", "environ", "getenv", "gethostname", "token_bytes", "token_hex"),
    *("SystemRandom", "getuser", "uname", "tzname", "localtime", "fromtimestamp", "strftime", "object"),
}
"""Names whose use may make a batch depend on its process, where no call that can be listened to did."""


class Bench:
    """What all calls of a trial share.

    Args:
        trial: What to do.
        sequence: The one that was unpickled, or None.
        factory: What makes one.
        tell: Sends a message to the parent.
    """

    def __init__(
        self, trial: Trial, sequence: Any, factory: Callable[[], Any] | None, tell: Callable[[Began], None]
    ) -> None:
        self.trial = trial
        self.outcome: Outcome = Outcome()
        self._tracer: Tracer | None = None
        self._tell = tell
        self._code = UserCode()
        self._listener = Listener(self._code)
        patches = Patches(self._listener, self._code)
        self._prepare(patches)
        if trial.made or sequence is None:
            sequence = self._make(factory, patches)
        self.sequence = sequence
        self._code.learn(sequence)
        self._start_worker()
        self._reach = Reach(sequence, self._code)
        patches.reach_into(self._reach.namespaces())
        self.watch: Watch = Watch(sequence, self._reach)
        self._before: dict[str, Seen] = {}
        if trial.name == "trace":
            self._tracer = Tracer(self.watch, trial.trace, self._listener, self._code)
        self._memos = Memos(self.watch, trial.trace)
        self._held: deque[_Held] = deque(maxlen=_HELD)
        if trial.freeze:
            for array in members.arrays(sequence).values():
                array.flags.writeable = False

    def _prepare(self, patches: Patches) -> None:
        patches.fill(rubbish=self.trial.poison)
        if self.trial.listen or self.trial.observe:
            patches.sources()
            sys.addaudithook(self._listener.audit)
            sys.stdout, sys.stderr = Console(self._listener, "stdout"), Console(self._listener, "stderr")
        if self.trial.backwards:
            patches.turn_listings()

    def _make(self, factory: Callable[[], Any] | None, patches: Patches) -> Any:
        assert factory is not None
        if isinstance(factory, types.FunctionType):
            patches.reach_into([factory.__globals__])
        seed_globals(self.trial.seed, 0, 0)
        try:
            self._tell(Began(0, 0, "The factory"))
            with self._listening():
                sequence = factory()
        except BaseException as error:  # It worked in the parent, but not here.
            raise _NotStartedError("__init__", self._raised(error)) from error
        self.outcome.hook_events += [("__init__", event) for event in self._listener.take()]
        return sequence

    def _start_worker(self) -> None:
        """Call the hook of a worker that starts; what it opens and sets is the worker's own, and not looked at."""
        seed_globals(self.trial.seed, 0, 0)
        try:
            self._tell(Began(0, 0, "on_worker_start"))
            call_hook(self.sequence, "on_worker_start", 0)
        except MpseqError as error:
            raise _NotStartedError("on_worker_start", self._raised(error.__cause__ or error)) from error

    def _stop_worker(self) -> None:
        try:
            self._tell(Began(0, 0, "on_worker_stop"))
            call_hook(self.sequence, "on_worker_stop")
        except MpseqError as error:
            self.outcome.hook_raised.append(("on_worker_stop", self._raised(error.__cause__ or error)))

    # --- running ------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Make all calls."""
        self._describe()
        if self.trial.threads:
            self._in_threads()
        else:
            for epoch in dict.fromkeys(epoch for epoch, _ in self.trial.calls):
                self._epoch(epoch)
        self._conclude()
        self._stop_worker()
        return self.outcome

    def _epoch(self, epoch: int) -> None:
        set_epoch(self.sequence, epoch)
        if self.trial.epochs:
            self._hook("on_epoch_begin")
        for index in [index for of, index in self.trial.calls if of == epoch]:
            for repeated in (False, True) if self.trial.repeat else (False,):
                self._tell(Began(epoch, index))
                call = Call(epoch=epoch, index=index, repeated=repeated)
                self.outcome.calls.append(call)
                self._observed(call) if self.trial.observe else self._call(call)
        if self.trial.epochs:
            self._hook("on_epoch_end")
            if self.outcome.no_length is None:
                self.outcome.lengths += (_length(self.sequence),)

    def _hook(self, name: str) -> None:
        """Call an epoch hook, and note which random generators it uses."""
        seed_globals(self.trial.seed, 0, 0)
        before = self.watch.look_at_generators()
        try:
            self._tell(Began(0, 0, name))
            with self._listening():
                call_hook(self.sequence, name)
        except MpseqError as error:
            self.outcome.hook_raised.append((name, self._raised(error.__cause__ or error)))
        self.outcome.hook_events += [(name, event) for event in self._listener.take()]
        for change in changes(before, self.watch.look_at_generators(), self.watch.value_of):
            self.outcome.hook_changes.append((name, change))

    def _observed(self, call: Call) -> None:
        before = self.watch.look() if not self._before else self._before
        seed_globals(self.trial.seed, call.epoch, call.index)
        before |= self.watch.look_at_generators()
        fds, loaded = _fds(), set(sys.modules)
        batch = self._call(call)
        call.fds = _fds() - fds
        imported = set(sys.modules) - loaded
        call.imports = bool(imported)
        new = sorted({"tensorflow", "jax", "torch", "keras", "tf_keras"} & imported)
        call.events += [Event("import", name, None) for name in new]
        after = self._before = self.watch.look()
        call.changes = changes(before, after, self.watch.value_of)
        call.tensors = tuple(f"{path} is a {name}" for path, name in tensors_in(batch))
        self._alias(call)

    def _call(self, call: Call) -> Any:
        """Call `__getitem__` once; nothing that the user's code does gets out."""
        seed_globals(self.trial.seed, call.epoch, 0 if self.trial.one_seed else call.index)
        context.epoch = call.epoch
        self._memos.begin()
        began = time.perf_counter()
        batch = None
        try:
            with self._listening():
                if self._tracer is not None:
                    batch = self._tracer.call(lambda: self.sequence[call.index])
                else:
                    batch = self.sequence[call.index]
            call.seconds = time.perf_counter() - began
            self._print(call, batch)
        except BaseException as error:  # The user's code: whatever it raises is what we are here to see.
            call.raised = self._raised(error)
        self._memos.end(repeated=call.repeated)
        call.events += self._listener.take()
        if self._tracer is not None:
            call.returned_at, call.swallowed = self._tracer.returned_at, self._tracer.swallowed
        return batch

    @contextmanager
    def _listening(self) -> Iterator[None]:
        trial = self.trial
        self._listener.on = trial.listen or trial.observe or trial.poison or self._tracer is not None
        try:
            yield
        finally:
            self._listener.on = False

    def _print(self, call: Call, batch: object) -> None:
        call.kind = f"{type(batch).__module__}.{type(batch).__qualname__}".removeprefix("builtins.")
        if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
            call.length = len(batch)
        try:
            printed = Printed(batch)
        except MpseqError as error:
            call.opaque = (str(error.message),)
            return
        call.leaves, call.structure = tuple(printed.leaves), printed.structure
        call.opaque, call.rows = tuple(printed.opaque), printed.rows()
        began = time.perf_counter()
        for array in printed.arrays:
            array.copy()
        call.copy_s = time.perf_counter() - began
        if self.trial.observe:
            self._compare_held(call.index)
            self._held.append(_Held(call.index, [array for array in printed.arrays if array.size]))

    def _alias(self, call: Call) -> None:
        if self._held and self._held[-1].index == call.index:
            held = self._held[-1].arrays
            call.aliases = tuple(
                path
                for path, array in members.arrays(self.sequence).items()
                if array.size and any(np.may_share_memory(array, leaf) for leaf in held)
            )

    def _raised(self, error: BaseException) -> Raised:
        place = None
        causes = [error, *_causes(error)]
        for cause in causes:  # What our own code raised says in its cause which line of the user's it was.
            for frame, line in traceback.walk_tb(cause.__traceback__) if place is None else ():
                if self._code.owns_frame(frame):
                    place = self._listener.place(frame, line)
        text = users_traceback(error)[-_TRACEBACK_LIMIT:]
        lost = error.path if isinstance(error, LostMemberError) else ""
        of_sequence = isinstance(error, AttributeError) and error.obj is getattr(self, "sequence", error)
        missing = str(error.name) if isinstance(error, AttributeError) and of_sequence else ""
        said = f"{type(error).__name__}: {error.message}" if isinstance(error, MpseqError) else named(error)
        return Raised(type(error).__name__, _first_line(said), place, text, lost, missing)

    # --- two threads --------------------------------------------------------------------------------

    def _in_threads(self) -> None:
        """Let two threads make all calls, one forwards, the other backwards."""
        calls = self.trial.calls
        interleave([lambda: self._one_thread(calls), lambda: self._one_thread(calls[::-1])], self._code)

    def _one_thread(self, calls: tuple[tuple[int, int], ...]) -> None:
        for epoch, index in calls:
            call = Call(epoch=epoch, index=index)
            self._call(call)
            self.outcome.calls.append(call)

    # --- what the sequence is -----------------------------------------------------------------------

    def _describe(self) -> None:
        outcome = self.outcome
        outcome.attributes = frozenset(getattr(self.sequence, "__dict__", {}))
        function = getitem_of(self.sequence)
        if function is not None:
            outcome.def_place = self._place_of(function)
        length = getattr(type(self.sequence), "__len__", None)
        if isinstance(length, types.FunctionType):
            outcome.length_place = self._place_of(length)
        outcome.index_unread = leaves_index_unread(self.sequence)
        outcome.names = frozenset(self._reach.names)
        outcome.ambient_at = self._reach.place_of(_AMBIENT)
        self._tell(Began(0, 0, "len(seq)"))
        try:
            outcome.lengths = (_length(self.sequence), _length(self.sequence))
        except BaseException as error:  # __len__ is the user's as well.
            outcome.no_length = self._raised(error)

    def _place_of(self, function: types.FunctionType) -> Place | None:
        code = function.__code__
        owned = self._code.owns(code.co_filename)
        return Place(code.co_filename, code.co_firstlineno, function.__qualname__) if owned else None

    def _conclude(self) -> None:
        outcome = self.outcome
        if self._tracer is not None:
            for key in self.trial.trace:
                reader = self._reach.reader_outside(key[5:]) if key.startswith("self.") else ""
                places = self._tracer.places[key]
                memo = self._memos.is_memo(key)
                outcome.written.append(Written(key=key, places=places, memo=memo, read_by=reader))
        if self.trial.observe:
            self._compare_the_slow()
            outcome.slow = tuple(sorted(self.watch.slow))
            outcome.too_large = tuple(sorted(self.watch.too_large))
            outcome.large_arrays = tuple(sorted(self.watch.large_arrays))
            outcome.objects = members.count_objects(self.sequence)

    def _compare_the_slow(self) -> None:
        """Compare what was not compared at every call, and tell it of the last."""
        slow = dict(self.watch.slow)
        if slow and self.outcome.calls:
            now = self.watch.look(list(slow), thorough=True)
            self.outcome.calls[-1].changes += changes(slow, now, self.watch.value_of)

    def _compare_held(self, index: int) -> None:
        """Note which of the last batches the call of *index* changed; its own it may, when it is called again."""
        for held in self._held:
            now = [digest_of_array(array) for array in held.arrays]
            if now != held.digests and held.index != index:
                self.outcome.overwritten += ((held.index, index),)
            held.digests = now


class _Held:
    """A batch, as long as it may be overwritten."""

    def __init__(self, index: int, arrays: list[np.ndarray[Any, Any]]) -> None:
        self.index = index
        self.arrays = arrays
        self.digests = [digest_of_array(array) for array in arrays]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    while (cause := error.__cause__ or error.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        error = cause


def _first_line(text: str) -> str:
    first, _, rest = text.strip().partition("\n")
    return f"{first.rstrip().rstrip('.')} [...]" if rest.strip() else first


def _length(sequence: Any) -> int | None:
    """Return the length as it is said, or None where there is none."""
    value = getattr(sequence, "num_batches", None)
    value = value if isinstance(value, int) else None
    return len(sequence) if hasattr(type(sequence), "__len__") else value


def _fds() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208
    except OSError:
        return 0


def load_and_run(
    trial: Trial, sequence: Any, factory: Callable[[], Any] | None, tell: Callable[[Began], None]
) -> Outcome:
    """Run *trial* in this process, which is good for nothing else afterwards."""
    gc.disable()  # What collections finalize would be blamed on the line where they happen.
    try:
        bench = Bench(trial, sequence, factory, tell)
    except _NotStartedError as error:
        return Outcome(hook_raised=[(error.hook, error.raised)])
    return bench.run()


class _NotStartedError(Exception):
    """The factory or the hook of a worker that starts raised: there is nothing to call."""

    def __init__(self, hook: str, raised: Raised) -> None:
        super().__init__(hook, raised)
        self.hook = hook
        self.raised = raised

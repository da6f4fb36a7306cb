"""Workers as actors on Ray. Ray runs, places and watches processes; the pool decides on retries, as on this machine.

Answers of calls are heard in a thread of Ray's, which puts them into a queue and writes to the wake-up pipe: there is
one wait for everything. Ray is told to restart and to repeat nothing. One call of each actor is never answered; when it
fails, the actor is gone, whether it had something to do or not.

What an actor was at when it died nobody knows: an answer may have been lost with it. So nobody is blamed, but the
batches that it held are suspects: they are sent again one by one, each when the one before was answered. A batch that
kills its worker is found that way, and no other is blamed.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import pickle
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import ray

from keras_mpseq.backend import Ended, PoolSlot, Said
from keras_mpseq.errors import MpseqError
from keras_mpseq.messages import Build, Done, Layout, Setup, Skip, Stop, Stopped, Unfit
from keras_mpseq.ray_actor import Answer, RayWorker, versions
from keras_mpseq.ray_calls import Call, Job, Kind, Layouts, Member, Suspects, late, next_late, one_by_one
from keras_mpseq.ray_cluster import Cluster, environment
from keras_mpseq.ray_ear import Ear
from keras_mpseq.ray_losses import failure, how, is_loss, never_began, not_started, other_version
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.ray_phone import Phone
from keras_mpseq.worker import dump_error

_LAST_ANSWERS_S = 1.0
"""For what an actor answered before it died."""
_LAST_S = 5.0
"""For workers to end in good order at the end of this process."""
_GONE = "the Ray cluster is gone"
log = logging.getLogger("keras_mpseq")
_backends: weakref.WeakSet[RayBackend] = weakref.WeakSet()


@atexit.register
def _close_before_ray() -> None:
    """Let workers end in good order: Ray's own exit handler, which is older and so runs later, would kill them."""
    for backend in list(_backends):
        backend.close_early()


class RayBackend:
    """Owns the actors, the connection to the head of the cluster, and the wake-up pipe. See Backend.

    Args:
        setup: What each worker is told first.
        slots: Where batches go; they stay the pool's.
        handles: Of the segments of `setup.state`; they stay the pool's.
        cluster: Where actors run.
        options: How.
    """

    def __init__(
        self,
        setup: Setup,
        slots: Sequence[PoolSlot],
        handles: Sequence[Any],
        cluster: Cluster,
        options: RayOptions,
    ) -> None:
        self._setup = setup
        self._slots: Sequence[Any] = slots
        self._handles = list(handles)
        self._cluster = cluster
        self._options = options
        self._members: dict[int, Member] = {}
        self._nodes: dict[int, str] = {}
        """Where each worker is, or was last."""
        self._layouts = Layouts()
        self._suspects = Suspects()
        self._left: list[Said | Ended] = []
        """What `close_early` heard."""
        self._ear = Ear(cluster)
        self._phone = Phone(self._ear.bell)
        self._closed = False
        self._remote: Any = ray.remote(concurrency_groups={"beside": 1, "life": 1})(RayWorker)
        _backends.add(self)

    def start(self) -> None:
        """See Backend."""
        self._cluster.check_room(self._setup.workers)
        self._ear.call()

    # --- what workers are told ---

    def spawn(self, worker: int) -> None:
        """See Backend."""
        self._nodes.pop(worker, None)
        if self._ear.gone or not self._cluster.is_joined:
            raise self._cluster.gone()
        resources = self._cluster.resources
        actor = self._remote.options(
            max_restarts=0,
            max_task_retries=0,
            runtime_env=environment(self._options.runtime_env, self._setup.threads),
            **self._cluster.of_actor(),
        ).remote(worker % self._setup.workers, self._options.share_readonly, bool(resources.get("num_gpus")), sys.path)
        member = self._members[worker] = Member(worker, actor)
        self._phone.make(Call(member, Kind.LIVE, actor.live.options(concurrency_group="life").remote))
        setup = pickle.dumps(self._setup, 5)
        self._phone.queue(Call(member, Kind.BEGIN, partial(actor.begin.remote, versions(), setup, *self._handles)))

    def send(self, worker: int, message: Any, handles: Sequence[Any] = ()) -> None:
        """See Backend."""
        member = self._members.get(worker)
        if member is None:
            return
        if not self._cluster.is_joined:
            self._ear.gone = True
            self._ear.bell.ring()
            return
        match message:
            case Build():
                self._build(member, message)
            case Skip():
                member.actor.skip.options(concurrency_group="beside").remote(message)
            case Stop():
                member.stopping = True
                self._phone.queue(Call(member, Kind.STOP, partial(member.actor.tell.remote, message)))
            case _:
                self._phone.queue(Call(member, Kind.TELL, partial(member.actor.tell.remote, message, *handles)))

    def _build(self, member: Member, message: Build) -> None:
        alone = message in self._suspects
        pieces = list(one_by_one(message)) if alone else [message]
        if member.oldest is None:
            member.since = time.monotonic()
        job = Job(message, len(pieces))
        for piece in pieces:
            self._phone.queue(Call(member, Kind.BUILD, self._building(member, piece), job, alone))

    def _building(self, member: Member, message: Build) -> Callable[[], Any]:
        return partial(member.actor.build.remote, pickle.dumps(message, 5), self._slots[message.slot].given())

    def interrupt(self, worker: int) -> None:
        """See Backend."""
        if worker in self._members:
            self._members[worker].interrupted = True
            self.ask(worker)

    def ask(self, worker: int) -> None:
        """See Backend."""
        member = self._members.get(worker)
        if member is not None and self._cluster.is_joined:
            member.stack = ""
            self._phone.make(Call(member, Kind.STACK, member.actor.stack.options(concurrency_group="beside").remote))

    def answer(self, worker: int) -> str:
        """See Backend."""
        member = self._members.get(worker)
        if member is None:
            return ""
        stack, member.stack = member.stack, ""
        return stack

    def state(self, worker: int) -> str:
        """See Backend."""
        member = self._members.get(worker)
        if member is None or member.place is not None:
            return ""
        return "Ray has not started its actor, which may wait for a node with free resources"

    def node(self, worker: int) -> str:
        """See Backend."""
        return self._nodes.get(worker, "")

    def kill(self, worker: int) -> None:
        """See Backend."""
        if worker in self._members:
            self._end(self._members[worker])

    def _end(self, member: Member) -> None:
        if self._cluster.is_joined:
            with contextlib.suppress(Exception):  # It is gone already, or Ray is.
                ray.kill(member.actor)

    # --- what is heard ---

    def wait(self, timeout_s: float | None) -> object:
        """See Backend."""
        now = time.monotonic()
        times = [left for left in (timeout_s, self._next_spare(now)) if left is not None]
        times += [one.dying_until - now for one in self._members.values() if one.dying is not None]
        if self._members and not self._cluster.is_joined:
            times.append(0.0)
        return self._ear.wait(min(times, default=None), now)

    def receive(self, ready: Any) -> list[Said | Ended]:
        """See Backend."""
        happened: list[Said | Ended] = []
        self._ear.take(ready)
        for call in self._phone.answered():
            happened += self._take(call)
        now = time.monotonic()
        for member in [one for one in self._members.values() if one.dying is not None and now >= one.dying_until]:
            assert member.dying is not None
            happened += self._lost(member, member.dying)
        if self._ear.gone or (self._members and not self._cluster.is_joined):
            self._ear.gone = True
            if self._closed and not self._cluster.is_joined:
                log.info(
                    "This process left the Ray cluster (ray.shutdown) before the pipeline was closed: workers were "
                    "ended without on_worker_stop."
                )
                happened += [Said(worker, Stopped()) for worker in self._members]
            happened += [what for member in list(self._members.values()) for what in self._bury(member, _GONE)]
        if self._options.hedge is not None:
            self._send_spares(self._options.hedge)
        return happened

    def _take(self, call: Call) -> Iterator[Said | Ended]:
        """Take in an answer, in the order in which the calls of its actor were sent."""
        member = call.member
        if self._members.get(member.worker) is not member:
            return  # It is dead and buried.
        if call.kind is Kind.STACK:
            self._take_stack(call)
        elif call.kind is Kind.LIVE:
            assert call.reply is not None
            # What it answered before may be told later than this; at the same time, as a rule.
            member.dying, member.dying_until = call.reply.error, time.monotonic() + _LAST_ANSWERS_S
        elif call.job is not None and call.job.twin is not None:
            assert call.reply is not None
            member.spares -= 1
            if call.reply.error is None:  # Of the end of a helper its other calls tell.
                yield from self._said(call, call.reply.answer)
        while member.calls and member.calls[0].reply is not None:
            yield from self._answered(member.calls[0])
            if self._members.get(member.worker) is not member:
                return
        self._phone.make_due(member)
        if member.dying is not None and (not member.calls or time.monotonic() >= member.dying_until):
            yield from self._lost(member, member.dying)

    def _answered(self, call: Call) -> Iterator[Said | Ended]:
        assert call.reply is not None
        member = call.member
        if call.reply.error is not None:
            yield from self._failed(call)
            return
        member.calls.popleft()
        member.silent = False
        answer = call.reply.answer
        if call.kind is Kind.BEGIN:
            member.place, found, answer = answer
            self._nodes[member.worker] = member.node
            if found:
                yield from self._refuse(member, other_version(member.node, found))
                return
        yield from self._said(call, answer)

    def _said(self, call: Call, answer: Answer) -> Iterator[Said | Ended]:
        """Take in what a worker said, and what follows from it."""
        member, job = call.member, call.job
        unfit = False
        for message in pickle.loads(answer.said) if answer.said else ():
            match message:
                case Layout(number, structure):
                    member.layouts[number] = structure
                case Done():
                    assert job is not None
                    job.answers.append((message, answer))
                case _:
                    unfit = unfit or isinstance(message, Unfit)
                    yield Said(member.worker, message)
        if call.kind is Kind.STOP:
            yield from self._bury(member, "", 0)
        elif unfit:
            yield from self._bury(member, "it could not go on")
        elif job is not None:
            if job.twin is None and not job.over:
                self._slots[job.message.slot].progress = job.finished
            yield from self._done(job, member)

    def _done(self, job: Job, by: Member) -> Iterator[Said]:
        """Tell the pool of *job* if it is whole, and was not answered by another."""
        to, twin = job.twin or (by, job)
        if twin.over or not job.is_whole:
            return
        twin.over = True
        to.silent = twin is not job
        to.since = time.monotonic()
        message = job.message
        self._suspects.clear(message)
        for told in self._layouts.done(job, by, to, self._slots[message.slot]):
            yield Said(to.worker, told)

    def _take_stack(self, call: Call) -> None:
        assert call.reply is not None
        if call.reply.error is None:
            call.member.stack = call.reply.answer
        if call.member.interrupted:
            self._end(call.member)

    # --- losses ---

    def _failed(self, call: Call) -> Iterator[Said | Ended]:
        """Take in that a call failed, and not the user's code in it."""
        assert call.reply is not None
        error, member, job = call.reply.error, call.member, call.job
        assert error is not None
        if is_loss(error) or job is None:
            yield from self._lost(member, error)
        else:
            member.calls.popleft()
            batches = len(job.message.indices) if job.calls == 1 else 1
            job.answers.append((Done((failure(job.message, error),) * batches, 0.0), Answer(b"")))
            yield from self._done(job, member)

    def _lost(self, member: Member, error: BaseException) -> Iterator[Said | Ended]:
        if is_loss(error) and not never_began(error):
            yield from self._bury(member, how(error))
        else:
            yield from self._refuse(member, not_started(error))

    def _refuse(self, member: Member, error: MpseqError) -> Iterator[Said | Ended]:
        """Say in the place of *member* that it cannot go on, and why."""
        yield Said(member.worker, Unfit(dump_error(error)))
        yield from self._bury(member, "it could not start")

    def _bury(self, member: Member, why: str, status: int = 1) -> Iterator[Said | Ended]:
        """Tell of the end of *member*, after what it said before."""
        if self._members.get(member.worker) is not member:
            return
        del self._members[member.worker]
        self._end(member)
        self._blame(member)
        for job in member.jobs():
            job.over = True
        node, stack = member.node, member.stack if member.interrupted else ""
        yield Ended(member.worker, status, stack, why, node)
        if why:
            self._ear.doubt()

    def _blame(self, member: Member) -> None:
        """Say in its slot how far the oldest task of *member* was; nothing where that is not certain."""
        if (job := member.oldest) is not None:
            self._slots[job.message.slot].progress = self._suspects.blame(member, self._is_built)

    def _is_built(self, call: Call) -> bool:
        """Tell whether *call* was answered, and the answer is on its way here or lost on it."""
        if call.reply is not None or not self._cluster.is_joined:
            return False
        there, _ = ray.wait([call.ref], timeout=0, fetch_local=False)
        return bool(there)

    # --- second workers ---

    def _next_spare(self, now: float) -> float | None:
        """Return in how many seconds a second worker is to be asked."""
        return next_late(self._members.values(), self._options.hedge, now)

    def _send_spares(self, hedge: float) -> None:
        """Give the oldest task of each actor that is late to another one as well, once: nothing is taken back."""
        for member, job, helper in late(self._members.values(), hedge, time.monotonic()):
            job.spare = True
            helper.spares += 1
            self._phone.make(
                Call(helper, Kind.BUILD, self._building(helper, job.message), Job(job.message, 1, (member, job)))
            )

    # --- the end ---

    def wake(self) -> None:
        """See Backend."""
        self._ear.bell.ring()

    def close_early(self) -> None:
        """Close while Ray is there, at the end of this process."""
        if not self._closed:
            self._left = self._close(_LAST_S)

    def close(self, patience_s: float) -> list[Said | Ended]:
        """See Backend."""
        left, self._left = self._left, []
        return left if self._closed else self._close(patience_s)

    def _close(self, patience_s: float) -> list[Said | Ended]:
        happened: list[Said | Ended] = []
        deadline = time.monotonic() + patience_s
        self._closed = True
        with contextlib.ExitStack() as end:  # Carried out, last first, also when Ctrl-C interrupts the wait.
            end.callback(self._ear.close)
            end.callback(self.let_go)
            for worker in list(self._members):
                self.send(worker, Stop())
            while self._members and (left := deadline - time.monotonic()) > 0:
                happened += self.receive(self.wait(left))
        return happened

    def let_go(self) -> None:
        """See Backend."""
        for member in self._members.values():
            self._end(member)
        self._members.clear()

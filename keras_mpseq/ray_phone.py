"""Makes the calls of actors, and hears their answers: in a thread of Ray's, which queues them and rings the bell."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_mpseq.ray_calls import Call, Member, Reply
from keras_mpseq.ray_ear import Bell

if TYPE_CHECKING:
    from concurrent.futures import Future


class Phone:
    """Calls actors.

    Args:
        bell: Rung whenever an answer is there.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._heard: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def queue(self, call: Call) -> None:
        """Have *call* made after those before it."""
        call.member.calls.append(call)
        self.make_due(call.member)

    def make_due(self, member: Member) -> None:
        """Make the calls of *member* that wait for no other."""
        for call in member.due():
            self.make(call)

    def make(self, call: Call) -> None:
        """Make *call* now, and have its answer queued."""

        def hear(future: Future[Any]) -> None:
            error = future.exception()
            call.reply = Reply(error, None if error else future.result())
            self._heard.put(call)
            self._bell.ring()

        call.ref = call.send()
        call.ref.future().add_done_callback(hear)

    def answered(self) -> Iterator[Call]:
        """Yield the calls whose answers are there, in the order in which these came."""
        while not self._heard.empty():
            yield self._heard.get()

"""The actor that a worker is on Ray: what it is told becomes messages to the same `Worker` as on this machine.

Three kinds of calls, each on a thread of its own. What concerns the user's code runs on one thread, in the order in
which it was sent. Beside it, `skip` and `stack` are answered while a batch is being built. `live` is never answered:
that it fails is how the pool hears of this process's end, also while nothing is being built.

Batches are built in a slot of this process. What is returned of it Ray copies into its object store: one copy.
"""

from __future__ import annotations

import os
import pickle
import platform
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras_mpseq
from keras_mpseq import role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from keras_mpseq.messages import Build, Setup, Skip, State


_IMPORTS = (
    "Install the module on every node, or name it in runtime_env of RayOptions, as in "
    '{"py_modules": ["folder/my_package"]}.'
)


class Place(NamedTuple):
    """Where the actor is."""

    node: str
    """Its address."""
    node_id: str
    pid: int


class Answer(NamedTuple):
    """What a call of the actor returns."""

    said: bytes
    """The pickled messages of the worker."""
    pieces: tuple[tuple[int, NDArray[np.uint8]], ...] = ()
    """The batches: memory, and where in the slot it is."""


Begun: TypeAlias = tuple[Place, tuple[str, str] | None, Answer]


def versions() -> tuple[str, str]:
    """Return the versions that have to be the same everywhere: of Python, without the last number, and of ours."""
    return ".".join(platform.python_version_tuple()[:2]), keras_mpseq.__version__


class Mailbox:
    """Stands in the place of a channel: keeps what the worker says until the call is answered."""

    ended = False

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.skipped: set[int] = set()
        """Runs that were given up, of which tasks may still arrive."""
        self._skips: list[Skip] = []

    def send(self, message: Any) -> None:
        """Say *message*."""
        self.said.append(message)

    def skip(self, message: Skip) -> None:
        """Let the worker find *message* when it looks; from another thread."""
        self.skipped.add(message.run)
        self._skips.append(message)

    def receive_ready(self) -> list[tuple[Any, Sequence[Any]]]:
        """Return what has arrived."""
        skips, self._skips = self._skips, []
        return [(message, ()) for message in skips]


class RayWorker:
    """A worker on Ray.

    Args:
        number: Of the worker.
        share: The large arrays of the sequence stay in the object store.
        gpus: Ray gave it some, which stay visible.
        path: Where the training process finds modules.
    """

    def __init__(self, number: int, share: bool, gpus: bool, path: list[str]) -> None:
        role.in_worker = True  # Before anything imports the user's code.
        self._number = number
        self._share = share
        self._gpus = gpus
        # What Ray has put there comes first; what follows is there where the machine is the same, or its disks are.
        sys.path += [entry for entry in path if entry not in sys.path and Path(entry).exists()]
        self._mailbox = Mailbox()
        self._builder = 0

    def begin(self, expected: tuple[str, str], setup: bytes, *pieces: Any) -> Begun:
        """Load the sequence.

        Args:
            expected: The versions of the training process. With others nothing is loaded: they are the second part of
                what is returned.
            setup: What the pool says of itself, pickled.
            *pieces: The segments of its first version.
        """
        import ray

        context = ray.get_runtime_context()
        place = Place(ray.util.get_node_ip_address(), context.get_node_id(), os.getpid())
        if versions() != expected:
            return place, versions(), Answer(b"")
        self._builder = threading.get_ident()
        return place, None, self._loaded(pickle.loads(setup), pieces)

    def _loaded(self, setup: Setup, pieces: Sequence[Any]) -> Answer:
        from keras_mpseq.errors import MpseqError
        from keras_mpseq.launcher import child_environment
        from keras_mpseq.messages import Unfit
        from keras_mpseq.ray_slot import StoreSlot
        from keras_mpseq.worker import Worker, dump_error

        hidden = child_environment(setup.threads)
        os.environ.update({k: v for k, v in hidden.items() if not (self._gpus and "VISIBLE_DEVICES" in k)})
        self._slot = slot = StoreSlot.new()
        try:
            sequence = self._load(setup.state, pieces)
        except MpseqError as error:
            return Answer(pickle.dumps([Unfit(dump_error(error))], 5))
        # All tasks are built in the one slot: what is returned has been copied when the next one begins.
        slots = [slot] * setup.slots
        self._worker = Worker(self._number, self._mailbox, setup, slots, sequence, self._load)
        return Answer(b"")

    def _load(self, state: State, pieces: Sequence[Any]) -> Any:
        import numpy as np

        from keras_mpseq.errors import PayloadError
        from keras_mpseq.worker import unpacked

        del state
        buffers = []
        for number, piece in enumerate(pieces):
            # The pickle is read once; what is shared is pinned in the store for as long as the arrays live.
            buffer = np.array(piece) if number and not self._share else np.asarray(piece)
            buffer.flags.writeable = False
            buffers.append(buffer.data)
        try:
            return unpacked(buffers)
        except PayloadError as error:
            if isinstance(error.__cause__, ImportError):
                error.remedy = f"{_IMPORTS} {error.remedy}"
            raise

    def tell(self, message: Any, *pieces: Any) -> Answer:
        """Obey *message*, which comes with the segments *pieces* of a version."""
        self._worker.obey(message, pieces)
        return self._answer()

    def build(self, task: bytes, given: Any = None) -> Answer:
        """Build the batches of the pickled *task*, made of what is *given*, if they are made of something."""
        from keras_mpseq.messages import Batch, Done

        message: Build = pickle.loads(task)
        if message.run in self._mailbox.skipped:
            message = message._replace(indices=(), inputs=())
        if given is not None:
            self._slot.begin(message.room)
            self._slot.empty(given.shape, given.dtype)[...] = given
        self._slot.alone = len(message.indices) == 1
        self._worker.obey(message)
        outcomes = (outcome for said in self._mailbox.said if isinstance(said, Done) for outcome in said.outcomes)
        leaves = [leaf for outcome in outcomes if isinstance(outcome, Batch) for leaf in outcome.leaves]
        return self._answer()._replace(pieces=self._slot.pieces(leaves))

    def _answer(self) -> Answer:
        said, self._mailbox.said = self._mailbox.said, []
        return Answer(pickle.dumps(said, 5))

    # --- beside it ---

    def skip(self, message: Skip) -> None:
        """Let go of a run."""
        self._mailbox.skip(message)

    def stack(self) -> str:
        """Return where the user's code is, as faulthandler writes it; "" if it has not begun."""
        frame = sys._current_frames().get(self._builder)
        lines = [
            f'  File "{frame.f_code.co_filename}", line {line} in {frame.f_code.co_name}'
            for frame, line in traceback.walk_stack(frame)
        ]
        return "\n".join(["Stack (most recent call first):", *lines]) if frame else ""

    def live(self) -> None:
        """Never return."""
        threading.Event().wait()

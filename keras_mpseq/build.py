"""Call the user's `__getitem__` for one batch: seeded, watched, and with every way to fail told apart.

The same code runs in a worker and, with `workers=0`, in the training process. That is what makes the batches equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_mpseq.errors import MpseqError, StatefulGetitemError, is_interrupt, user_error, users_traceback
from keras_mpseq.local import Allocator, context
from keras_mpseq.order import seed_globals
from keras_mpseq.state.blame import last_of_user, where
from keras_mpseq.streams import Streamed

_LARGE_SHARED = (
    "those of 1 MiB and more are shared by all workers, where a change would be lost",
    "Copy what you change (x = self.x[a:b].copy()), or change it in on_epoch_begin or on_epoch_end.",
)
_SHARED = "its arguments lie in shared memory, and another attempt may need them", "Copy what you change: x = x.copy()."


class Job(NamedTuple):
    """Which batch to build."""

    seed: int
    epoch: int
    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls


def build(sequence: Any, job: Job, allocator: Allocator | None = None) -> Any:
    """Return `sequence[job.index]`, with `random`, `np.random` and `self.rng` keyed by the job.

    Raises:
        UserCodeError: The user's code raised; its exception is the cause.
        StatefulGetitemError: It wrote to a shared, read-only array.
    """
    seed_globals(job.seed, job.epoch, job.index)
    before = context.seed, context.epoch, context.allocator
    context.seed, context.epoch, context.allocator = job.seed, job.epoch, allocator
    try:
        return sequence[job.index]
    except MpseqError as error:
        raise placed(error, job) from error.__cause__
    # The wall between the user's code and ours; sys.exit() is a mistake of a batch, not the worker's end.
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise _explained(sequence, error, job) from error
    finally:
        context.seed, context.epoch, context.allocator = before


def placed(error: MpseqError, job: Job) -> MpseqError:
    """Fill in which batch *error* is about."""
    error.index, error.epoch = job.index, job.epoch
    return error


def call_hook(sequence: Any, name: str, *args: Any) -> None:
    """Call a hook of the user's, if the sequence has it.

    Raises:
        UserCodeError: It raised; its exception is the cause.
    """
    hook = getattr(sequence, name, None)
    if callable(hook):
        try:
            hook(*args)
        except BaseException as error:  # The wall around the user's code, as in build().
            if is_interrupt(error):
                raise
            raise user_error(name, error) from error


def _explained(sequence: Any, error: BaseException, job: Job) -> MpseqError:
    # NumPy says it in a dozen ways, such as "assignment destination is read-only" and "sort array is read-only".
    if isinstance(error, ValueError) and str(error).endswith("read-only"):
        why, remedy = _SHARED if isinstance(sequence, Streamed) else _LARGE_SHARED
        return StatefulGetitemError(
            f"__getitem__ wrote to a read-only array ({where('SEQ209', last_of_user(error.__traceback__))}): {why}",
            index=job.index,
            epoch=job.epoch,
            remedy=remedy,
            traceback=users_traceback(error),
        )
    found = user_error("__getitem__", error)
    found.index, found.epoch = job.index, job.epoch
    return found

"""What Ray says of what went wrong, in our words."""

from __future__ import annotations

import re
from typing import Any

from ray import exceptions

from keras_mpseq.errors import MpseqError, PayloadError, named
from keras_mpseq.messages import Build, Failure
from keras_mpseq.ray_actor import versions
from keras_mpseq.worker import dump_error

_LOSSES = (
    exceptions.RayActorError,
    exceptions.ObjectLostError,
    exceptions.LocalRayletDiedError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
    exceptions.TaskCancelledError,
    exceptions.OutOfMemoryError,
)
_FULL = (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError)
_NEVER_BEGAN = (exceptions.RuntimeEnvSetupError, exceptions.ActorUnschedulableError)
_EXIT = re.compile(r"Worker exit type: (\w+)")


def is_loss(error: BaseException) -> bool:
    """Tell whether *error* says that an actor is gone, or what it returned."""
    return isinstance(error, _LOSSES) and not isinstance(error, exceptions.RayTaskError)


def never_began(error: BaseException) -> bool:
    """Tell whether *error* says that an actor could not be made, and another would not be either."""
    return isinstance(error, _NEVER_BEGAN) or (isinstance(error, exceptions.RayActorError) and error.actor_init_failed)


def how(error: BaseException) -> str:
    """Return how an actor ended, as the brackets of a message have it."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or "memory usage threshold" in text:
        return "Ray killed it: the memory of its node was used up"
    if "node has died" in text or "node was terminated" in text or isinstance(error, exceptions.NodeDiedError):
        return "its node died"
    if isinstance(error, exceptions.ObjectLostError):
        return "what it returned was lost with a node"
    found = _EXIT.search(text)
    return f"its process ended, {found[1]}" if found else f"its process ended, {type(error).__name__}"


def not_started(error: BaseException) -> PayloadError:
    """Return the error for a worker that cannot be started, for a reason that will not go away."""
    what = _last_line(error)
    if "No module named 'keras_mpseq'" in str(error):
        return PayloadError(
            "keras_mpseq cannot be imported on a node of the Ray cluster",
            remedy="Install it there, in the version that this process has, or name it in runtime_env of RayOptions: "
            '{"pip": ["keras_mpseq"]}.',
            traceback=str(error),
        )
    return PayloadError(f"Ray cannot start a worker: {what}", traceback=str(error))


def other_version(node: str, found: tuple[str, str]) -> PayloadError:
    """Return the error for a node that has other versions than this process."""
    theirs, ours = (f"Python {python} and keras_mpseq {package}" for python, package in (found, versions()))
    return PayloadError(
        f"The node {node} has {theirs}, and this process has {ours}",
        remedy="Install the same versions on all nodes: what was pickled for one may mean something else to another.",
    )


def failure(message: Build, error: BaseException) -> Failure:
    """Return the outcome of batches that were built and could not be returned."""
    if isinstance(error, _FULL) or isinstance(getattr(error, "cause", None), _FULL):
        told = MpseqError(
            "Ray's object store had no room for the batch, nor had the disk that it falls back to",
            remedy="Lower max_bytes, workers or the batch size, or start Ray with a larger object store "
            "(ray start --object-store-memory).",
        )
    else:
        told = MpseqError(f"Ray could not return the batch: {_last_line(error)}", traceback=str(error))
    told.index, told.epoch = message.indices[0], message.epoch
    return Failure(dump_error(told))


def _last_line(error: BaseException) -> str:
    """Return what *error* says of its cause."""
    cause: Any = getattr(error, "cause", None)
    text = named(cause) if isinstance(cause, BaseException) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")

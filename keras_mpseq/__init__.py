"""Data loading for Keras in several processes: safe, fast, and the same batches every time.

Names are resolved on first use, so that `import keras_mpseq` loads neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_mpseq import role

if TYPE_CHECKING:
    from keras_mpseq.batched import BatchedSequence
    from keras_mpseq.checks.api import check
    from keras_mpseq.dataset import to_dataset
    from keras_mpseq.errors import (
        CheckError,
        InternalError,
        MpseqError,
        PayloadError,
        PoolClosedError,
        SequenceLengthError,
        SlotTooSmallError,
        SpecMismatchError,
        StatefulGetitemError,
        UnsupportedLeafError,
        UserCodeError,
        WorkerLostError,
        WorkerTimeoutError,
    )
    from keras_mpseq.interleaving import generator_dataset
    from keras_mpseq.keras_bridge import fit, install, uninstall
    from keras_mpseq.loader import Loader
    from keras_mpseq.local import get_worker_info, per_worker
    from keras_mpseq.mapping import process_map
    from keras_mpseq.monitor import PipelineMonitor
    from keras_mpseq.ray_options import RayOptions
    from keras_mpseq.resume_data import ResumeData
    from keras_mpseq.sequence import SafeSequence

__version__ = "0.1.0"

_HOME = {
    "SafeSequence": "sequence",
    "BatchedSequence": "batched",
    "per_worker": "local",
    "get_worker_info": "local",
    "Loader": "loader",
    "to_dataset": "dataset",
    "generator_dataset": "interleaving",
    "process_map": "mapping",
    "fit": "keras_bridge",
    "install": "keras_bridge",
    "uninstall": "keras_bridge",
    "PipelineMonitor": "monitor",
    "RayOptions": "ray_options",
    "ResumeData": "resume_data",
    "check": "checks.api",
}
_JOINED = ("SafeSequence", "BatchedSequence", "fit", "install", "uninstall")
"""Names on whose first use Keras is joined."""

__all__ = [
    "BatchedSequence",
    "CheckError",
    "InternalError",
    "Loader",
    "MpseqError",
    "PayloadError",
    "PipelineMonitor",
    "PoolClosedError",
    "RayOptions",
    "ResumeData",
    "SafeSequence",
    "SequenceLengthError",
    "SlotTooSmallError",
    "SpecMismatchError",
    "StatefulGetitemError",
    "UnsupportedLeafError",
    "UserCodeError",
    "WorkerLostError",
    "WorkerTimeoutError",
    "check",
    "fit",
    "generator_dataset",
    "get_worker_info",
    "install",
    "per_worker",
    "process_map",
    "to_dataset",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
    module = importlib.import_module(f"{__name__}.{_HOME.get(name, 'errors')}")
    value = globals()[name] = getattr(module, name)
    if name in _JOINED and not role.in_worker:
        importlib.import_module(f"{__name__}.keras_bridge").join()
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

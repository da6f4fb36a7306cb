"""SEQ6xx: what the sequence and its batches cost."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from keras_mpseq.checks.members import OBJECTS_LIMIT
from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.sending import setting
from keras_mpseq.checks.verdicts import found
from keras_mpseq.findings import Finding

_WIDE = ("float64", "int64", "uint64", "complex128")
_PARALLEL = {"@", "dot", "matmul", "einsum", "tensordot", "linalg", "cv2"}
"""What runs in threads of BLAS or OpenCV."""
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_HANDOVER_S = 100e-6
"""Seconds that a batch takes from worker to consumer besides copying it, in our own pool."""


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what costs more than it need."""
    yield from _weight(evidence)
    yield from _dtypes(evidence)
    yield from _transport(evidence)
    yield from _threads(evidence)


def _weight(evidence: Evidence) -> Iterator[Finding]:
    parts = evidence.parts
    mapped = [] if parts.safe else parts.memmaps
    for path in mapped:
        message = f"{path} is a memory-mapped file, which pickling copies as a whole"
        yield found(evidence, "SEQ601", message, parts.stored_at(path), proof=_bytes(parts.sizes.get(path, 0)))
    for path, nbytes in parts.sizes.items():
        if nbytes >= evidence.heavy and path not in mapped:
            message = f"{path} is pickled for every worker ({_bytes(nbytes)})"
            yield found(evidence, "SEQ601", message, parts.stored_at(path))
    if evidence.serial.objects > OBJECTS_LIMIT:
        message = f"The sequence holds more than {OBJECTS_LIMIT:,} Python objects"
        yield found(evidence, "SEQ602", message)


def _bytes(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB" if nbytes >= 1 << 20 else f"{nbytes:,} bytes"


def _dtypes(evidence: Evidence) -> Iterator[Finding]:
    calls = [call for call in evidence.calls("serial") if call.leaves]
    for leaf in calls[0].leaves if calls else ():
        if leaf.dtype in _WIDE:
            yield found(evidence, "SEQ604", f"Leaf {leaf.path} is {leaf.dtype}, twice what Keras computes with")


def _transport(evidence: Evidence) -> Iterator[Finding]:
    calls = [call for call in evidence.calls("again") if call.leaves]
    if calls:
        building = statistics.median(call.seconds for call in calls)
        carrying = statistics.median(call.copy_s for call in calls) + _HANDOVER_S
        if building < carrying:
            proof = f"{building * 1e6:.0f} µs to build, {carrying * 1e6:.0f} µs to hand over"
            yield found(evidence, "SEQ605", "Building a batch takes less time than handing it over", proof=proof)


def _threads(evidence: Evidence) -> Iterator[Finding]:
    """Yield threads of libraries in every worker; our own workers have one each."""
    workers, cores = setting(evidence.parts.sequence, "workers", 1) or 1, os.cpu_count() or 1
    used = sorted(_PARALLEL & evidence.about.names)
    stated = next((os.environ[name] for name in _LIMITS if os.environ.get(name, "").isdigit()), None)
    threads = int(stated) if stated else cores
    if used and not evidence.parts.safe and workers > 1 and threads > 1 and workers * threads > cores:
        message = f"{workers} workers with {threads} threads each, as for {used[0]}, are more than {cores} cores"
        yield found(evidence, "SEQ606", message)

"""A process that runs scripts, one after the other: a seed a line on stdin, a report a line on stdout."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import resource
import sys
import warnings

from tests.chaos.run import run
from tests.chaos.script import script_of

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Answer each line."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # What a dead template leaves is found among ours.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.getLogger("keras_mpseq").setLevel(logging.ERROR)  # Skipped batches are counted, not told.
    warnings.simplefilter("error")
    import tensorflow as tf

    # TensorFlow opens what it opens once, before anything is counted.
    list(tf.data.Dataset.range(3).map(lambda x: x, num_parallel_calls=2).shuffle(2).prefetch(1))
    gc.collect()
    gc.freeze()  # A collection looks through what scripts leave, not through TensorFlow: 0.3 s each.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What processes print is no answer.
    for line in sys.stdin:
        print(json.dumps(vars(run(script_of(int(line))))), file=answers)


if __name__ == "__main__":
    main()

"""Whether this process is one of ours, said before anything else of the package is imported.

The bootstrap of a template or worker process sets `in_worker`; `sequence.py` reads it to decide whether
`SafeSequence` stands on Keras's class (the training process) or on a light one of its own (decision S4).
"""

from __future__ import annotations

in_worker = False

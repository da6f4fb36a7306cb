"""What elements are made of, where that comes from the pool: into the slot of their task, once.

It stays there until the task is built, so that another worker finds it when the first is lost.
"""

from __future__ import annotations

import cloudpickle

from keras_mpseq.delivery import Delivery
from keras_mpseq.errors import MpseqError
from keras_mpseq.messages import Build, Input, Task
from keras_mpseq.run import Run
from keras_mpseq.slots import aligned
from keras_mpseq.streams import Supply, in_its_words


def place(supply: Supply, run: Run, task: Task, delivery: Delivery, sequence: object) -> None:
    """Put what the elements of *task* are made of into its slot, unless it lies there or there is nothing."""
    if task.positions[0] in run.inputs:
        return
    elements = [supply.element(position) for position in task.positions]
    if elements[0] is None:
        return
    delivery.slots[task.slot].begin(delivery.room)
    for position, index, parts in zip(task.positions, task.indices, elements, strict=True):
        try:
            run.inputs[position] = delivery.place(task.slot, parts)
        except MpseqError as error:  # Too large, or there is no memory. Workers hand it on.
            error.index, error.epoch = index, run.begun.number
            run.inputs[position] = cloudpickle.dumps((in_its_words(error, sequence), b""), 5)


def with_inputs(message: Build, run: Run, task: Task) -> Build:
    """Return *message* with what was placed for *task*."""
    if not run.inputs:
        return message
    inputs = tuple([run.inputs[position] for position in task.positions])
    leaves = (leaf for given in inputs if isinstance(given, Input) for leaf in given.leaves)
    return message._replace(used=aligned(max((leaf.offset + leaf.nbytes for leaf in leaves), default=0)), inputs=inputs)

"""Pipeline: a sequence as a trainer of Keras consumes it, epoch by epoch, whichever Keras it is.

An epoch of Keras runs the hooks once. It is a whole pass over the sequence unless `steps_per_epoch` says otherwise;
then the pass goes on in the next epoch, as in Keras with one process (decision S12), and what the hooks changed counts
from that epoch's first batch.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import numpy as np
import optree

from keras_mpseq import fitting
from keras_mpseq.build import call_hook
from keras_mpseq.codec import leaf_name
from keras_mpseq.elements import Elements
from keras_mpseq.errors import Failure, SpecMismatchError, UserCodeError
from keras_mpseq.loader import feed_of
from keras_mpseq.local import Safe, set_epoch
from keras_mpseq.options import Options, check_sequence, checked, length_of, steps_of
from keras_mpseq.resuming import State, restore, snapshot
from keras_mpseq.run import Stats
from keras_mpseq.spec import ElementSpec, lists_to_tuples

log: logging.Logger = logging.getLogger("keras_mpseq")
_PROBE = 2
"""Batches from which the spec is learned, as in Keras: dimensions in which they differ vary."""


class Pipeline:
    """The workers for one sequence in one call of fit, evaluate or predict, and the state of its epochs.

    Args:
        x: The sequence. Its attribute `element_spec`, if it has one, declares its batches, as in `to_dataset`.
        workers: Processes; 0 means this one.
        ahead: Batches ready ahead; 0 means two for each worker.
        shuffle: Permute the batches of each pass, keyed by (seed, epoch); not if *x* is infinite.
        floatx: What doubles become, as in Keras.
    """

    resumes = False
    """The trainer can begin in the middle of an epoch."""

    def __init__(self, x: Any, *, workers: int, ahead: int, shuffle: bool, floatx: str) -> None:
        """Start the workers."""
        check_sequence(x)
        session = fitting.current_session()
        options = checked(
            x,
            workers=workers,
            prefetch=ahead or None,
            shuffle=shuffle and length_of(x) is not None,
            element_spec=getattr(x, "element_spec", None),
            **({**x._limits._asdict(), "backend": x._backend, "ray": x._ray} if isinstance(x, Safe) else {}),
        )
        doubles = np.dtype(floatx)
        first = session.first_epoch(x) if session else 0
        resume = session.resume_of(x) if session else None
        self._resumed = self._restored(x, options, resume) if resume else None
        """The state with which the epoch under way began, that was resumed."""
        self._first_step = int(resume["step"]) if resume else 0
        self._within = False
        self._early = self._resumed is not None and self._resumed.begun and self._resumed.sequence is not None
        """The hook of the coming epoch has run."""
        self.ended_once: bool = False
        """An epoch of Keras has ended."""
        self._failure = session.failure if session else Failure()
        with self._failure.watched():
            self._feed = feed_of(
                x,
                dataclasses.replace(
                    options,
                    hooks=False,
                    first_epoch=first,
                    doubles=doubles,
                    element_spec=options.element_spec and options.element_spec.with_doubles(doubles),
                ),
                fixed=None,
            )
        if self._resumed:
            self._feed.begin_at(self._resumed)
        self._sequence = self._feed.source.sequence  # Of Keras's image iterators what wraps them, whose hooks count.
        self.elements: Elements = Elements(self._feed, None, _PROBE, self._failure)
        self.elements.may_begin_again = True
        if session:
            session.add(self, x)

    def _restored(self, x: Any, options: Options, resume: dict[str, Any]) -> State:
        if not self.resumes:
            raise ValueError(
                "fit of tf_keras cannot go on in the middle of an epoch: use a model of Keras 3, or a loop of your own "
                "with Loader.load_state_dict."
            )
        if "step" not in resume:
            raise ValueError(
                "The state is that of a Loader, and fit needs one that a callback saved in fit, by state_dict() of "
                "its sequence."
            )
        state = restore(x, options, resume)
        if state.position and state.position == state.length:
            raise ValueError(
                "The state is that of an epoch all of whose batches were trained on, and that had not ended: load one "
                "that was saved before, or in on_epoch_end."
            )
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is."""
        raise NotImplementedError

    def _state(self, epoch: int, position: int, step: int) -> dict[str, Any]:
        """Return the state, given the pass and what was trained of it, and the steps of the epoch of Keras."""
        source = self._feed.source
        state = snapshot(
            self._sequence,
            source.options,
            self._feed.spec_to_save,
            epoch=epoch,
            position=position,
            begun=self._within or self._early,
        )
        return {**state.as_json(), "step": step}

    @property
    def coming_epoch(self) -> int:
        """Number of the epoch that would begin next."""
        return self._feed.source.epochs.coming

    @property
    def length(self) -> int | None:
        """Batches of an epoch now, on this shard; None if the sequence is infinite."""
        length = length_of(self._sequence)
        return None if length is None else steps_of(self._sequence, length, self._feed.source.options)

    @property
    def within(self) -> bool:
        """An epoch of Keras has begun and not ended."""
        return self._within

    def stats(self) -> Stats:
        """Return what was done so far."""
        return self._feed.source.stats()

    def close(self) -> None:
        """End the workers."""
        self._feed.close()

    # --- epochs of Keras ---

    def begin_epoch(self) -> None:
        """Run the hook, and let the workers have what it changed."""
        self._within = True
        if self._early:
            self._early = False
        else:
            self._call("on_epoch_begin")
        if iteration := self.elements.under_way:
            iteration.stale = True

    def end_epoch(self) -> None:
        """Run the hook, if an epoch has begun."""
        if not self._within:
            return
        self._within, self.ended_once = False, True
        self.elements.may_begin_again = False
        self._call("on_epoch_end")

    def begin_again(self) -> None:
        """Let the epoch that began begin once more: only a batch to build the model by was taken."""
        self._within = False
        self.elements.rewind()
        self._early = True

    def _call(self, hook: str) -> None:
        iteration = self.elements.under_way
        number = iteration.epoch if iteration else self.coming_epoch
        if hook == "on_epoch_end" and not iteration:
            number -= 1
        set_epoch(self._sequence, number)
        with self._failure.watched():
            try:
                call_hook(self._sequence, hook)
            except UserCodeError as error:
                error.epoch = number
                raise

    # --- batches ---

    def dataset(self, weighted: bool) -> Any:
        """Return a `tf.data.Dataset` of tuples or dicts; each iteration is a pass."""
        from keras_mpseq.dataset import dataset_of, mapped

        if not self._within and not self._early:
            # The first batches are built now, to learn the spec; the hook is to come before them.
            self._early = True
            self._call("on_epoch_begin")
        dataset = dataset_of(self.elements)
        spec = self.checked_spec(weighted)
        return mapped(dataset, lambda x: (x,)) if spec.tree.num_nodes == 1 else dataset

    def checked_spec(self, weighted: bool) -> ElementSpec:
        """Return the spec, once a batch was built.

        Args:
            weighted: With `class_weight`.

        Raises:
            SpecMismatchError: Keras cannot train on such batches.
            ValueError: There are class weights and sample weights.
        """
        spec = self._feed.spec
        assert spec is not None
        batch = lists_to_tuples(optree.tree_unflatten(spec.tree, spec.leaves))
        if isinstance(batch, tuple) and not 1 <= len(batch) <= 3:
            raise SpecMismatchError(
                f"The batch is a tuple of {len(batch)}, and Keras takes (x,), (x, y) or (x, y, sample_weight)",
                remedy="Put several inputs or targets into a dict or a tuple of their own, as in ((x1, x2), y).",
            )
        if weighted and isinstance(batch, tuple) and len(batch) == 3:
            raise ValueError(
                "class_weight cannot be given for batches that have a sample_weight already: leave one of them out."
            )
        for number, leaf in enumerate(spec.leaves):
            if leaf.shape == ():
                raise SpecMismatchError(
                    f"{leaf_name(spec.tree, number)} has no batch dimension",
                    remedy="Return an array with one value for each sample.",
                )
        return spec


def worker_count(sequence: Any) -> int:
    """Return how many processes *sequence* asks for; 0 means this one (decision S15)."""
    workers = int(sequence.workers)
    if workers > 1 and sequence.use_multiprocessing is False:
        _say_processes()
    return workers if workers > 1 or (workers == 1 and sequence.use_multiprocessing) else 0


@functools.cache  # Once.
def _say_processes() -> None:
    log.warning(
        "use_multiprocessing=False with workers above 1: keras_mpseq uses processes all the same, because threads "
        "would share the state of the sequence. The batches are the same; workers=0 builds them in this process."
    )

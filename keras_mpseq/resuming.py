"""The state of a pipeline as JSON: where its consumer is, and all that must be the same for the rest to be the same.

A state says nothing of workers: the order of an epoch and every batch follow from (seed, epoch, index), so that a
position is enough. What a sequence itself changes from epoch to epoch travels through its hooks `on_save_state` and
`on_load_state`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_mpseq.codec import path_of
from keras_mpseq.errors import SpecMismatchError, cut, is_interrupt, user_error
from keras_mpseq.options import Options, length_of
from keras_mpseq.spec import ElementSpec

FORMAT = 1
"""Of the state; a later one will be able to read this one."""
SavedSpec = Mapping[str, Any]
"""Kind and dtype, and shape, of each leaf by its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a pipeline stands. `as_json` and `of_json` are each other's inverse."""

    epoch: int
    position: int
    """Batches of this shard's share that are over: those that the consumer received, and those skipped before them."""
    begun: bool
    """The epoch's `on_epoch_begin` has run."""
    skipped: int
    """Of the positions."""
    seed: int
    shuffle: bool
    shard: tuple[int, int]
    uneven: str
    length: int | None
    """Of the sequence; None if it is infinite."""
    spec: SavedSpec | None
    """Of the batches; None before the first one."""
    sequence: Any
    """What `on_save_state` returned."""

    def as_json(self) -> dict[str, Any]:
        """Return the state as a dict of what JSON knows."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"format": FORMAT, **values, "shard": list(self.shard)}

    @classmethod
    def of_json(cls, data: object) -> State:
        """Return the state that *data* holds; whatever else it holds is left alone.

        Raises:
            ValueError: It is no state, or one of a newer release.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(data, Mapping) or not {"format", *names} <= set(data):
            raise ValueError(f"The state must be what state_dict() returned, got {cut(repr(data))}.")
        if data["format"] != FORMAT:
            raise ValueError(
                f"The state has the format {data['format']!r}, and this release of keras_mpseq reads {FORMAT}: use the "
                "release that saved it."
            )
        return cls(**{name: data[name] for name in names} | {"shard": tuple(data["shard"])})


def snapshot(
    sequence: Any,
    options: Options,
    spec: SavedSpec | None,
    *,
    epoch: int,
    position: int,
    begun: bool,
    skipped: int = 0,
) -> State:
    """Return the state of a pipeline over *sequence* now.

    Raises:
        UserCodeError: `on_save_state` raised.
        TypeError: It returned what JSON cannot hold.
        ValueError: Batches are delivered out of order, so that no position says what is left.
    """
    if not options.ordered:
        raise ValueError("state_dict() needs ordered=True: out of order no position says which batches are left.")
    return State(
        epoch=epoch,
        position=position,
        begun=begun,
        skipped=skipped,
        seed=options.seed,
        shuffle=options.shuffle,
        shard=options.shard,
        uneven=options.uneven,
        length=length_of(sequence),
        spec=spec,
        sequence=_own_state(sequence),
    )


def restore(sequence: Any, options: Options, data: object) -> State:
    """Return the state in *data*, after *sequence* has got back what it saved of itself.

    Raises:
        ValueError: It is of another sequence, or of other options.
        UserCodeError: `on_load_state` raised.
    """
    state = State.of_json(data)
    name = type(sequence).__name__
    for what in ("seed", "shuffle", "shard", "uneven"):
        saved, here = getattr(state, what), getattr(options, what)
        if saved != here:
            raise ValueError(
                f"The state was saved with {what}={saved!r}, and here {what} is {here!r}: the rest of the epoch would "
                "be another one. Use the same options, or begin anew."
            )
    if not options.ordered:
        raise ValueError("load_state_dict() needs ordered=True: out of order no position says which batches are left.")
    if state.sequence is not None:
        _give_back(sequence, state.sequence)
    if (length := length_of(sequence)) != state.length:
        raise ValueError(
            f"The state is of a sequence of {state.length} batches, and {name} has {length}: load it into the same "
            "sequence, or begin anew. A length that changes from epoch to epoch belongs into on_save_state."
        )
    return state


def _own_state(sequence: Any) -> Any:
    hook = getattr(sequence, "on_save_state", None)
    if not callable(hook):
        return None
    try:
        own = hook()
    except BaseException as error:  # The wall around the user's code, as around other hooks.
        if is_interrupt(error):
            raise
        raise user_error("on_save_state", error) from error
    try:
        return json.loads(json.dumps(own))  # A copy: the sequence goes on.
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"on_save_state of {type(sequence).__name__} must return what JSON can hold, got {cut(repr(own))}: return "
            "numbers, strings, lists and dicts, as in self.order.tolist()."
        ) from error


def _give_back(sequence: Any, own: Any) -> None:
    hook = getattr(sequence, "on_load_state", None)
    if not callable(hook):
        raise ValueError(
            f"The state holds what on_save_state returned, and {type(sequence).__name__} has no on_load_state: define "
            "it."
        )
    try:
        hook(own)
    except BaseException as error:  # As above.
        if is_interrupt(error):
            raise
        raise user_error("on_load_state", error) from error


# --- the spec ---


def saved_spec(spec: ElementSpec) -> dict[str, Any]:
    """Return a spec as JSON."""
    return {
        path_of(spec.tree, number).removeprefix("batch"): [
            str(dataclasses.replace(leaf, shape=())).removesuffix("()"),
            None if leaf.shape is None else list(leaf.shape),
        ]
        for number, leaf in enumerate(spec.leaves)
    }


def restored_spec(spec: ElementSpec, saved: SavedSpec) -> ElementSpec:
    """Return *spec*, that of a first batch, with the sizes of the spec that was saved.

    A resumed epoch begins with another batch, from which another spec would follow.

    Raises:
        SpecMismatchError: The batches differ in structure, kind, dtype or rank.
    """
    here = saved_spec(spec)
    for path in [*here, *saved]:
        mine, other = here.get(path), saved.get(path)
        if mine is None or other is None or mine[0] != other[0] or _rank(mine) != _rank(other):
            raise SpecMismatchError(
                f"The state was saved with {_told(path, other)}, and now there is {_told(path, mine)}",
                remedy="Load it into the same sequence, or begin anew.",
            )
    leaves = [
        dataclasses.replace(leaf, shape=None if shape is None else tuple(shape))
        for leaf, (_, shape) in zip(spec.leaves, (saved[path] for path in here), strict=True)
    ]
    return ElementSpec(spec.tree, tuple(leaves), spec.declared)


def _rank(leaf: Any) -> int | None:
    return None if leaf[1] is None else len(leaf[1])


def _told(path: str, leaf: Any) -> str:
    return f"no leaf batch{path}" if leaf is None else f"{leaf[0]}{tuple(leaf[1] or ())} as batch{path}"

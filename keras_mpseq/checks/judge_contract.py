"""SEQ5xx: what Keras expects of a sequence, and calls that raise, hang or end their process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keras_mpseq.checks.lab import LoadingError
from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.records import Call, Leaf, Place
from keras_mpseq.checks.verdicts import batches, found
from keras_mpseq.errors import describe_exit
from keras_mpseq.findings import Finding
from keras_mpseq.state.reach import UserCode

_LONGEST_BATCH = 3
"""Inputs, targets, weights."""
_USED_UP = ("generator", "map", "filter", "zip", "iterator", "coroutine", "async_generator", "range_iterator")
_FRAMEWORKS = ("/tensorflow/", "/keras/", "/jax/", "/jaxlib/", "/torch/", "/tf_keras/")
_STOPS = "training stops with this error"
_LET_RETURN = "let every index from 0 to `len(seq) - 1` give a batch"
_OURS = f'File "{Path(__file__).parents[1]}'
_BOOT = 'File "<string>", line 1 in <module>'
_PARALLEL = ("/multiprocessing/", "/concurrent/", "/threading.py", "/queue.py", "/joblib/")


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with the contract."""
    yield from _length(evidence)
    yield from _raised(evidence)
    yield from _hooks(evidence)
    yield from _returned(evidence)
    yield from _signature(evidence)
    yield from _rows(evidence)
    yield from _uninitialised(evidence)
    if evidence.parts.super_missing and not evidence.parts.safe:
        yield found(evidence, "SEQ505", "__init__ does not call super().__init__(**kwargs)", confidence="certain")


# --- ends -------------------------------------------------------------------------------------------


def ends(evidence: Evidence) -> Iterator[Finding]:
    """Yield what ended the check before its time: it is told whatever was selected, as nothing else is known."""
    blocked, unloaded = evidence.blocked, evidence.not_loaded
    if unloaded is not None:
        yield _not_loaded(evidence, unloaded)
    if blocked is not None:
        what = blocked.began.what or f"seq[{blocked.began.index}]" if blocked.began is not None else "The sequence"
        stack = _of_the_user(blocked.stack)
        place = _deepest(evidence, stack)
        if blocked.late:
            message = f"{what} does not return within {evidence.timeout_s:g} s"
            why, fix = "training waits for it", "let it return, or raise; the stack says where it waits"
        else:
            name, remedy = describe_exit(blocked.status)
            message = f"{what} ends its process ({name})"
            why, fix = "the worker is lost, and its batch with it", remedy.removesuffix(".")
        code = "SEQ503" if what == "len(seq)" else _code_of(stack)
        yield found(evidence, code, message, place, severity="error", proof=stack, why=why, fix=fix)


def _not_loaded(evidence: Evidence, unloaded: LoadingError) -> Finding:
    text = _of_the_user(unloaded.text)
    last = text.rpartition("\n")[2]
    missing = last.startswith(("ModuleNotFoundError", "ImportError", "AttributeError: Can't"))
    if unloaded.late:
        message = f"Loading the sequence in another process does not end within {evidence.timeout_s:g} s"
    elif unloaded.status is not None:
        message = f"Another process dies while it loads the sequence ({describe_exit(unloaded.status)[0]})"
    else:
        message = f"The sequence cannot be loaded in another process: {last.rstrip('.')}"
    code = "SEQ103" if missing else "SEQ101"
    why = "no worker gets the sequence"
    fix = "let the modules it needs be importable everywhere" if missing else "correct `__setstate__` or `__reduce__`"
    return found(evidence, code, message, _deepest(evidence, text), proof=text, why=why, fix=fix)


def _code_of(stack: str) -> str:
    if any(name in stack for name in _FRAMEWORKS):
        return "SEQ304"
    return "SEQ306" if any(name in stack for name in _PARALLEL) else "SEQ501"


def _of_the_user(stack: str) -> str:
    """Return a stack, as faulthandler writes it, without the lines of our own and without what is no line."""
    kept = [line for line in stack.strip().splitlines() if _OURS not in line and not line.startswith("Extension mod")]
    return "\n".join(line for line in kept if line.strip() and line.strip() != _BOOT)


def _deepest(evidence: Evidence, stack: str) -> Place | None:
    """Return the innermost line of the user's in a stack as faulthandler writes it."""
    code = UserCode()
    code.learn(evidence.parts.sequence)
    for line in stack.splitlines():
        head, found_line, rest = line.strip().partition('", line ')
        path = head.removeprefix('File "')
        number, _, function = rest.partition(" in ")
        if found_line and number.isdigit() and code.owns(path):
            return Place(path, int(number), function)
    return None


def _length(evidence: Evidence) -> Iterator[Finding]:
    about = evidence.about
    if about.no_length is not None:
        raised = about.no_length
        yield found(evidence, "SEQ503", f"len(seq) raises {raised.text}", raised.place or about.length_place)
    elif evidence.length is not None and evidence.length < 1:
        if about.lengths:  # Else it did not come to that.
            yield found(evidence, "SEQ503", f"len(seq) is {evidence.length}", about.length_place)
    elif len(set(about.lengths)) > 1:
        message = f"len(seq) is {about.lengths[0]}, and {about.lengths[1]} the next time"
        yield found(evidence, "SEQ503", message, about.length_place)


def _raised(evidence: Evidence) -> Iterator[Finding]:
    told: set[tuple[str, Place | None]] = set()
    calls = [*evidence.calls("serial"), *[call for call in evidence.calls("epochs") if call.epoch]]
    failed = [call for call in calls if call.raised is not None]
    only_last = evidence.length is not None and {call.index for call in failed} == {evidence.length - 1}
    for call in failed:
        raised = call.raised
        assert raised is not None
        if raised.kind == "StopIteration" and _uses_up(evidence):
            continue  # The calls of a check are more than those of an epoch; what is used up is told by itself.
        if raised.lost or (raised.kind, raised.place) in told or evidence.is_lost_attribute(raised.attribute):
            continue
        told.add((raised.kind, raised.place))
        if "CUDA" in raised.text or "cuda" in raised.text:
            message = f"seq[{call.index}] needs an accelerator, which workers do not have: {raised.text}"
            yield found(evidence, "SEQ305", message, raised.place)
        elif only_last and len(evidence.indices) > 1:
            message = f"seq[{call.index}], the last by len(seq), raises {raised.text}"
            yield found(evidence, "SEQ503", message, raised.place, proof=raised.traceback)
        else:
            epoch = f" in epoch {call.epoch}" if call.epoch else ""
            message = f"seq[{call.index}] raises {raised.text}{epoch}"
            yield found(evidence, "SEQ501", message, raised.place, proof=raised.traceback, why=_STOPS, fix=_LET_RETURN)


def _hooks(evidence: Evidence) -> Iterator[Finding]:
    for name in ("describe", "made", "epochs"):
        outcome = evidence.outcomes.get(name)
        for hook, raised in outcome.hook_raised if outcome is not None else ():
            # A worker that never built a batch stops as well, but that is rare, and hooks seldom think of it.
            if raised.lost or (hook == "on_worker_stop" and name != "epochs"):
                continue  # Told of the member.
            where = "The factory" if hook == "__init__" else hook
            message = f"{where} raises {raised.text} in another process"
            fix = "let it work in a process of its own, with what pickling brings there"
            yield found(evidence, "SEQ501", message, raised.place, proof=raised.traceback, why=_STOPS, fix=fix)


def _uses_up(evidence: Evidence) -> bool:
    return any(change.shrank for call in evidence.serial.calls for change in call.changes)


# --- batches ----------------------------------------------------------------------------------------


def _returned(evidence: Evidence) -> Iterator[Finding]:
    calls = [call for call in evidence.calls("serial") if call.raised is None]
    nothing = [call.index for call in calls if call.kind == "NoneType"]
    if nothing:
        traced = next((call for call in evidence.trace.calls if call.index == nothing[0]), Call(epoch=0, index=0))
        if traced.swallowed is not None:
            kind, place = traced.swallowed
            yield found(evidence, "SEQ508", f"seq[{nothing[0]}] is None because a {kind} was swallowed", place)
        else:
            yield found(
                evidence,
                "SEQ501",
                batches(nothing, "is None, and no batch", "are None, and no batches"),
                traced.returned_at,
            )
    refused = [call for call in calls if call.opaque and evidence.parts.safe and call.kind != "NoneType"]
    if refused:
        message = f"seq[{refused[0].index}] cannot be sent: {refused[0].opaque[0].rstrip('.')}"
        yield found(evidence, "SEQ501", message, why="the workers of a SafeSequence refuse such a batch")
    used_up = [call for call in calls if call.kind.rpartition(".")[2] in _USED_UP]
    if used_up:
        yield found(evidence, "SEQ501", f"seq[{used_up[0].index}] is a {used_up[0].kind}, and no batch")
    long = [call for call in calls if call.kind == "tuple" and call.length > _LONGEST_BATCH]
    if long and evidence.parts.keras:
        message = f"seq[{long[0].index}] is a tuple of {long[0].length}, where Keras takes inputs, targets and weights"
        yield found(evidence, "SEQ501", message, evidence.trace.calls[0].returned_at if evidence.trace.calls else None)
    empty = [call.index for call in calls if call.kind != "NoneType" and call.leaves and not call.leaves[0].nbytes]
    if empty and all(0 in call.leaves[0].shape for call in calls if call.index in empty):
        yield found(
            evidence,
            "SEQ503",
            batches(empty, "has no rows, though len(seq) counts it", "have no rows, though len(seq) counts them"),
        )


def _signature(evidence: Evidence) -> Iterator[Finding]:
    calls = [call for call in evidence.calls("serial") if call.raised is None and call.leaves]
    for call in calls[1:]:
        difference = _difference(calls[0], call)
        if difference:
            message = f"seq[{calls[0].index}] and seq[{call.index}] differ in kind"
            yield found(evidence, "SEQ502", message, proof=difference)
            return
    for call in calls if evidence.parts.keras else ():
        # Without rows of their own, leaves have no number of samples that could be compared.
        sizes = {leaf.shape[0] for leaf in call.leaves if leaf.shape}
        if call.kind in ("tuple", "list") and len(call.leaves[0].shape) > 1 and len(sizes) > 1:
            shapes = ", ".join(f"{leaf.path} {leaf.shape}" for leaf in call.leaves)
            message = f"The leaves of seq[{call.index}] have different numbers of samples"
            yield found(evidence, "SEQ502", message, proof=shapes)
            return


def _difference(first: Call, other: Call) -> str:
    if first.structure != other.structure:
        return f"structure {first.structure}, then {other.structure}"
    for one, two in zip(first.leaves, other.leaves, strict=True):
        if (one.dtype, len(one.shape)) != (two.dtype, len(two.shape)):
            return f"{one.path} is {_shown(one)}, then {_shown(two)}"
    return ""


def _shown(leaf: Leaf) -> str:
    return f"{leaf.dtype} of rank {len(leaf.shape)}"


def _rows(evidence: Evidence) -> Iterator[Finding]:
    """Yield neighbours of which one begins with the rows that the other ends with."""
    rows = {call.index: call.rows for call in evidence.calls("serial") if call.rows}
    shared = [index for index in rows if index + 1 in rows and _overlap(rows[index], rows[index + 1])]
    if shared:
        first = shared[0]
        count = _overlap(rows[first], rows[first + 1])
        message = f"seq[{first}] and seq[{first + 1}] share {count} of {len(rows[first])} rows"
        yield found(evidence, "SEQ504", message, proof="rows were compared by their bytes")


def _overlap(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    """Return how many rows at the end of *one* are those at the beginning of *other*; 0 where rows repeat anyway."""
    if len(set(one)) < len(one) or one == other:
        return 0
    longest = min(len(one), len(other))
    return next((count for count in range(longest, 0, -1) if one[-count:] == other[:count] and 2 * count >= longest), 0)


def _uninitialised(evidence: Evidence) -> Iterator[Finding]:
    spoiled = [index for index in evidence.differ("again", "poison") if index not in evidence.ambient()]
    if spoiled:
        calls = evidence.calls("poison")
        place = next(
            (event.place for call in calls if call.index in spoiled for event in call.events if event.kind == "empty"),
            None,
        )
        proof = batches(spoiled, "shows what the memory held before", "show what the memory held before")
        yield found(evidence, "SEQ507", "An array of np.empty is returned without being filled", place, proof=proof)

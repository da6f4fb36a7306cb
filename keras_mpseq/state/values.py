"""The state that a batch may change, by key: `self.n`, `class Batches.total`, `global data.CACHE`, `free make.<n>`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_mpseq.state.reach import Reach, content_of, is_code, is_library


def values_of(sequence: Any, reach: Reach) -> Iterator[tuple[str, Any]]:
    """Yield key and value of all that *sequence* holds and may reach, as they are now."""
    for name, value in list(getattr(sequence, "__dict__", {}).items()):
        if name != "_mpseq":
            yield f"self.{name}", value
    for cls in type(sequence).__mro__:
        for name, value in list(vars(cls).items()) if not is_library(cls) else ():
            if not name.startswith(("__", "_abc_")) and not is_code(value) and not hasattr(type(value), "__get__"):
                yield f"class {cls.__name__}.{name}", value
    for label, (namespace, name) in reach.globals.items():
        yield f"global {label}", namespace.get(name)
    for label, cell in reach.cells.items():
        yield f"free {label}", content_of(cell)


def name_of(key: str) -> str:
    """Return how a sentence names what a key stands for."""
    kind, _, rest = key.partition(" ")
    return rest.replace("<locals>.", "") if kind in ("class", "global", "free", "cache") else key

"""What stands in a child in the place of a member that could not be sent there."""

from __future__ import annotations

import threading
from typing import Any, NoReturn


class LostMemberError(AttributeError):
    """Code asked something of a member that could not be sent; an AttributeError, so that `hasattr` says no.

    Args:
        path: Of the member.
    """

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} could not be sent to this process")
        self.path = path


class Lost:
    """Raises when anything is asked of it.

    Args:
        path: Of the member.
    """

    def __init__(self, path: str) -> None:
        self.__dict__["path"] = path

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise LostMemberError(self.__dict__["path"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Pickling, copying and NumPy ask for these; it has none.
            raise AttributeError(name)
        self._refuse()

    __call__: Any = _refuse
    __iter__: Any = _refuse
    __next__: Any = _refuse
    __enter__: Any = _refuse
    __len__: Any = _refuse
    __getitem__: Any = _refuse
    __setitem__: Any = _refuse
    __contains__: Any = _refuse
    __exit__: Any = _refuse
    __setattr__: Any = _refuse


_LOCKS: dict[str, Any] = {"lock": threading.Lock, "RLock": threading.RLock}


def substitute(path: str, value: object) -> tuple[Any, ...]:
    """Return how to rebuild what stands for *value*: a lock of its own for a lock, else a `Lost`."""
    maker = _LOCKS.get(type(value).__name__) if type(value).__module__ == "_thread" else None
    return (maker, ()) if maker is not None else (Lost, (path,))

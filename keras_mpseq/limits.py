"""What a worker may take, in time and in batches, and how it is checked: one sentence for each way to be wrong."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import numpy as np

SLOW_WARNING_S = 60.0
_SECONDS_MOST = 1_000_000
"""epoll takes no more than 2,147,483."""


class Limits(NamedTuple):
    """Checked limits; see `Loader` for what they mean."""

    timeout: float | None = None
    slow_warning_s: float | None = SLOW_WARNING_S
    max_tasks_per_worker: int | None = None

    @classmethod
    def checked(cls, timeout: Any, slow_warning_s: Any, max_tasks_per_worker: Any) -> Limits:
        """Return the limits, or raise ValueError on the first that is wrong."""
        check_seconds("timeout", timeout, "no limit")
        check_seconds("slow_warning_s", slow_warning_s, "no warning")
        most = max_tasks_per_worker
        if most is not None and (isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1):
            raise ValueError(f"max_tasks_per_worker must be an int of 1 or more, or None for no limit, got {most!r}.")
        return cls(timeout, slow_warning_s, None if most is None else int(most))


def check_seconds(name: str, seconds: object, none: str) -> None:
    """Raise ValueError unless *seconds* is None, which means *none*, or a number in range."""
    if seconds is not None and not (_is_number(seconds) and 0 < seconds <= _SECONDS_MOST):
        raise ValueError(
            f"{name} must be a number of seconds above 0 and up to {_SECONDS_MOST:,}, or None for {none}, "
            f"got {seconds!r}."
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_among(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """Raise ValueError unless *value* is one of *accepted*."""
    if not isinstance(value, str) or value not in accepted:
        known = ", ".join(f'"{one}"' for one in accepted)
        raise ValueError(f"{name} must be one of {known}, got {value!r}.")

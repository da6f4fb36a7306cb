"""The runtime engine: run a sequence in throw-away processes, and prove what goes wrong.

`check` (in `api`) looks at the sequence here without calling it (`sending`), lets children run it in different ways
(`plan`, `lab`; in the child `process`, `trial`), and turns what they saw into findings (the judges). Children import
this package too, so that names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_mpseq.checks.api import check
    from keras_mpseq.checks.report import Report

__all__ = ["Report", "check"]

_HOME = {"check": "api", "Report": "report"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value

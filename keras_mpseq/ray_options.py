"""What a pipeline on Ray can be told, checked: one sentence for each way to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mpseq.limits import check_among

_CALLED_OTHERWISE = {"CPU": "num_cpus", "GPU": "num_gpus"}
_MISSING = 'backend="ray" needs keras_mpseq[ray]: pip install "keras_mpseq[ray]", or use backend="local".'
_CLIENT = "ray://"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """How `backend="ray"` uses a cluster of Ray.

    Args:
        address: Of the cluster, as "10.0.0.1:6379"; None joins the one that `ray.init` has joined, or that
            `RAY_ADDRESS` names, or that runs on this machine, and else starts Ray on this machine; "local" starts it in
            any case.
        resources: What one worker takes of its node: `num_cpus`, `num_gpus`, `memory` (bytes) and custom resources by
            their names. None means {"num_cpus": 1}.
        runtime_env: Of the workers, as in `ray.init`, such as {"working_dir": "."} or {"py_modules": ["my_package"]}.
        share_readonly: The workers of a node share the large arrays of the sequence in Ray's object store; otherwise
            each has a copy of its own. They are read-only in both cases.
        hedge: Seconds after which a task that was not answered is given to a second worker as well; the first answer
            counts. At least ten times what slow batches take; None means never.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range, or *address* is one of Ray Client.

    Example:
        ```python
        from keras_mpseq import RayOptions

        options = RayOptions(resources={"num_cpus": 2}, runtime_env={"py_modules": ["my_package"]})
        ```
    """

    address: str | None = None
    resources: Mapping[str, float] | None = None
    runtime_env: Mapping[str, Any] | None = None
    share_readonly: bool = False
    hedge: float | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.address is not None:
            check_address("address", self.address)
        if self.resources is not None:
            _check_resources(self.resources)
        if self.runtime_env is not None and not isinstance(self.runtime_env, Mapping):
            raise TypeError(f"runtime_env must be a dict as ray.init takes it, or None, got {self.runtime_env!r}.")
        if not isinstance(self.share_readonly, (bool, np.bool_)):
            raise TypeError(f"share_readonly must be True or False, got {self.share_readonly!r}.")
        if self.hedge is not None and not (_is_number(self.hedge) and self.hedge > 0):
            raise ValueError(f"hedge must be a number of seconds above 0, or None for never, got {self.hedge!r}.")


def check_address(name: str, address: object) -> None:
    """Raise unless *address* may be one of a cluster that this process can join."""
    if not isinstance(address, str) or not address:
        raise TypeError(f'{name} must be a str such as "10.0.0.1:6379", or None, got {address!r}.')
    if address.startswith(_CLIENT):
        raise ValueError(
            f"{name} must not be one of Ray Client, got {address!r}: batches would cross one more process and come "
            "back 15 times as slow and unaligned, so that TensorFlow copies them. Run this program on a node of the "
            'cluster, as with `ray job submit -- python train.py`, with address="auto".'
        )


def _check_resources(resources: object) -> None:
    if not isinstance(resources, Mapping):
        raise TypeError(f'resources must be a dict such as {{"num_cpus": 1}}, or None, got {resources!r}.')
    for name, amount in resources.items():
        if name in _CALLED_OTHERWISE:
            raise ValueError(f"resources must call it {_CALLED_OTHERWISE[name]!r}, as in ray.remote, got {name!r}.")
        if not isinstance(name, str) or not _is_number(amount) or amount < 0:
            raise ValueError(f"resources must give a number of 0 or more for each name, got {name!r}: {amount!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def checked_for(backend: str, options: RayOptions | None) -> RayOptions | None:
    """Return the options for *backend*: None unless it is "ray".

    Raises:
        TypeError: *options* are none of ours.
        ValueError: There is no such backend, or there are options and it is another.
        ImportError: Ray is not installed.
    """
    check_among("backend", backend, ("local", "ray"))
    if options is not None and not isinstance(options, RayOptions):
        raise TypeError(f"ray must be a keras_mpseq.RayOptions, or None, got {options!r}.")
    if backend != "ray":
        if options is not None:
            raise ValueError(f'ray must be None with backend="{backend}", got {options!r}: pass backend="ray".')
        return None
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return options or RayOptions()

"""Runs tests of other files on Ray: a plugin of pytest, `-p tests.on_ray`, for test_ray.py.

What would run in processes of this machine runs on actors of one cluster, which is started once. Nothing else changes:
the tests are the contract. Those that are about launchers run once, without one.
"""

from __future__ import annotations

from typing import Any

import pytest
import ray

from keras_mpseq import RayOptions, options

CPUS = 8
STORE_BYTES = 512 << 20
_checked = options.checked


def _on_ray(sequence: object, **given: Any) -> Any:
    if given.get("backend", "local") == "local" and given.get("workers") != 0:
        given.update(backend="ray", ray=RayOptions(), launcher=None)
    return _checked(sequence, **given)


def pytest_configure(config: pytest.Config) -> None:
    """Start Ray, before anything imports the checks of options."""
    from keras_mpseq.ray_calls import Member

    options.checked = _on_ray
    Member.node = ""  # So that errors are the same in every word; tests of a cluster read it.
    start_ray()


def start_ray(**settings: Any) -> None:
    """Start Ray as a program might do; many actors may share a core."""
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES, **settings)


def pytest_unconfigure() -> None:
    """End Ray."""
    ray.shutdown()

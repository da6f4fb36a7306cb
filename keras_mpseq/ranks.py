"""Which of how many training processes this one is, for `shard="auto"`: asked of whatever runs several.

Nothing is imported, and no backend of JAX is started: a framework that the user has not imported, or not made ready,
has nothing to say. Where a framework was told that it is alone, that is an answer too, whatever a launcher's variables
say: several trainings that have nothing to do with each other may run under one launcher.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

log: logging.Logger = logging.getLogger("keras_mpseq")
_TRAINERS = ("chief", "master", "worker")
"""Jobs of a TensorFlow cluster that train, in the order of their numbers."""
_ALONE = (0, 1)


class Found(NamedTuple):
    """An answer."""

    shard: tuple[int, int]
    source: str
    """Who gave it."""


def shard_here() -> tuple[int, int]:
    """Return (number of this process, number of processes), and log who said so."""
    found = found_in(sys.modules, os.environ)
    log.info('shard="auto" is (%d, %d): %s.', *found.shard, found.source)
    return found.shard


def found_in(modules: Mapping[str, ModuleType], environment: Mapping[str, str]) -> Found:
    """Return the first answer.

    Args:
        modules: As `sys.modules`.
        environment: As `os.environ`.

    Raises:
        ValueError: A variable of the environment makes no sense.
    """
    for look in (_tensorflow, _keras, _torch, _jax):
        if found := look(modules):
            return found
    for read in (_tf_config, _slurm, _open_mpi):
        if found := read(environment):
            return found
    return Found(_ALONE, "no framework and no launcher says that there are several processes")


# --- frameworks ---


def _tensorflow(modules: Mapping[str, ModuleType]) -> Found | None:
    distribute: Any = getattr(modules.get("tensorflow"), "distribute", None)
    if distribute is None or not distribute.has_strategy():
        return None
    strategy = distribute.get_strategy()
    source = f"{type(strategy).__name__} of tf.distribute"
    resolver = strategy.cluster_resolver
    if resolver is None:
        return Found(_ALONE, f"{source}, which is of one process")
    cluster = resolver.cluster_spec().as_dict()
    return Found(_in_cluster(cluster, resolver.task_type, resolver.task_id), source)


def _keras(modules: Mapping[str, ModuleType]) -> Found | None:
    api: Any = getattr(modules.get("keras"), "distribution", None)
    distribution: Any = api.distribution() if api is not None else None
    # Noted when it was made, as is its mesh of devices: asking JAX could start its backend.
    count = getattr(distribution, "_num_processes", None)
    if distribution is None or count is None:
        return None
    replicas = min(count, distribution.num_model_replicas) if hasattr(distribution, "data_shard_id") else count
    number = getattr(distribution, "data_shard_id", distribution._process_id)
    return Found((number, replicas), f"{type(distribution).__name__} of keras.distribution")


def _torch(modules: Mapping[str, ModuleType]) -> Found | None:
    distributed: Any = modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return Found((distributed.get_rank(), distributed.get_world_size()), "torch.distributed")


def _jax(modules: Mapping[str, ModuleType]) -> Found | None:
    state: Any = getattr(modules.get("jax._src.distributed"), "global_state", None)
    if getattr(state, "client", None) is not None:
        return Found((state.process_id, state.num_processes), "jax.distributed")
    # Some clusters of TPUs need no jax.distributed: then only the backend knows, once it runs.
    started: Callable[[], bool] | None = getattr(modules.get("jax._src.xla_bridge"), "backends_are_initialized", None)
    jax: Any = modules.get("jax")
    if jax is None or started is None or not started() or jax.process_count() == 1:
        return None
    return Found((jax.process_index(), jax.process_count()), "the processes of JAX")


# --- launchers ---


def _tf_config(environment: Mapping[str, str]) -> Found | None:
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        if not cluster:
            return None
        return Found(_in_cluster(cluster, task["type"], int(task["index"])), "TF_CONFIG")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG must be JSON with a cluster and a task that has type and index, got {text!r}: correct it, or "
            'pass shard=(i, n) in the place of "auto".'
        ) from error


def _in_cluster(cluster: Mapping[str, Any], job: str | None, number: int | None) -> tuple[int, int]:
    """Return the shard of a task; an evaluator or a parameter server has all data to itself."""
    counts = {name: len(cluster.get(name, ())) for name in _TRAINERS}
    if job not in counts or number is None:
        return _ALONE
    before = _TRAINERS[: _TRAINERS.index(job)]
    return sum(counts[name] for name in before) + number, sum(counts.values())


def _slurm(environment: Mapping[str, str]) -> Found | None:
    # SLURM_NTASKS is there in a batch script too, which runs once; only srun sets that of the step.
    return _counted(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


def _open_mpi(environment: Mapping[str, str]) -> Found | None:
    return _counted(environment, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


def _counted(environment: Mapping[str, str], number: str, count: str) -> Found | None:
    i, n = environment.get(number), environment.get(count)
    if i is None or n is None:
        return None
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise ValueError(
            f"{number} and {count} must be i and n with 0 <= i < n, got {i!r} and {n!r}: correct them, or pass "
            'shard=(i, n) in the place of "auto".'
        )
    return Found((int(i), int(n)), f"{number} and {count}")

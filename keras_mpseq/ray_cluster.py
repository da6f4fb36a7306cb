"""The cluster of Ray: join one, or start one on this machine; what it has, and whether it is still there."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray

from keras_mpseq.errors import MpseqError
from keras_mpseq.launcher import child_environment
from keras_mpseq.machine import cores
from keras_mpseq.ray_options import RayOptions, check_address

_JOIN_S = 5.0
"""For a cluster that is there to take a connection."""
_OWN = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Resources that have arguments of their own, and what a node calls them."""
SYSTEM_CONFIG = {"free_objects_period_milliseconds": 50}
"""Where we start Ray it frees batches that were let go so often, not once in a second: their memory is used again
while it is warm, and a second's batches, of 19 MB some 4 GB, do not have to fit into the store. Measured: 4.9 ms a
batch instead of 11.3 in the first 200, where all of a store of 2 GB is touched for the first time."""
_NOWHERE = "Look for its head node, or leave address out to start Ray on this machine."
log: logging.Logger = logging.getLogger("keras_mpseq")


class Cluster:
    """The cluster that this process has joined. It stays joined until `ray.shutdown`, or the end of the process.

    Args:
        options: Which one, and what a worker takes of it.
        workers: How many are to run at a time, for a cluster that is started for them.

    Raises:
        MpseqError: There is no such cluster, or it cannot be joined.
        ValueError: This process has joined another one, or one by Ray Client.
    """

    def __init__(self, options: RayOptions, workers: int) -> None:
        self.resources: Mapping[str, float] = options.resources if options.resources is not None else {"num_cpus": 1}
        _join(options, workers * max(1, round(self.resources.get("num_cpus", 1))))
        context = ray.get_runtime_context()
        self.address: str = context.gcs_address
        self.node_id: str = context.get_node_id()
        self._line: socket.socket | None = None

    @property
    def store_bytes(self) -> int:
        """Bytes of the object store of this machine."""
        return int(next(node["Resources"].get("object_store_memory", 0) for node in _nodes() if self._is_here(node)))

    def _is_here(self, node: Mapping[str, Any]) -> bool:
        return bool(node["NodeID"] == self.node_id)

    def check_room(self, workers: int) -> None:
        """Log it when there is room for fewer than *workers* now.

        Raises:
            MpseqError: No node of the cluster could hold a single one.
        """
        wanted = {_OWN.get(name, name): amount for name, amount in self.resources.items() if amount}
        room = 0
        for node in _nodes():
            has = node["Resources"]
            room += int(min((has.get(name, 0) // amount for name, amount in wanted.items()), default=workers))
        told = ", ".join(f"{name}={amount:g}" for name, amount in self.resources.items())
        if not room:
            raise MpseqError(
                f"No node of the Ray cluster at {self.address} has room for a worker, which takes {told}",
                remedy="Lower resources of RayOptions, or add such a node before the pipeline starts.",
            )
        if room < workers:
            log.warning(
                "The Ray cluster at %s has room for %d of %d workers, which take %s each; the others start when nodes "
                "are added.",
                self.address,
                room,
                workers,
                told,
            )

    def of_actor(self) -> dict[str, Any]:
        """Return what is asked for in the options of an actor."""
        own = {name: amount for name, amount in self.resources.items() if name in _OWN}
        custom = {name: amount for name, amount in self.resources.items() if name not in _OWN}
        return {"num_cpus": 0, **own, "resources": custom}

    # --- whether it is there ---

    @property
    def is_joined(self) -> bool:
        """This process has not left it."""
        return bool(ray.is_initialized())

    def line(self) -> socket.socket | None:
        """Return a new connection to the head, which ends when the head does; None if it is gone."""
        self.hang_up()
        with contextlib.suppress(OSError):
            self._line = _connected(self.address)
            self._line.setblocking(False)
        return self._line

    def hang_up(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def gone(self) -> MpseqError:
        """Return the error for a cluster that is there no more."""
        return MpseqError(
            f"The Ray cluster at {self.address} is gone"
            + ("" if self.is_joined else ": this process has left it (ray.shutdown)"),
            remedy="Make a new Loader or dataset when there is a cluster again.",
        )


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), _JOIN_S)


def _join(options: RayOptions, cpus: int) -> None:
    """Join the cluster of *options*, or start one with at least *cpus* for workers."""
    if ray.is_initialized():
        _check_joined(options.address)
        return
    named = options.address or os.environ.get("RAY_ADDRESS", "")
    if named:
        check_address("address" if options.address else "RAY_ADDRESS", named)
    settings = {"include_dashboard": False, "num_cpus": max(cpus, cores()), "_system_config": SYSTEM_CONFIG}
    if named == "local":
        _start(named, **settings)
    elif named:
        _join_named(named)
    else:
        try:
            _start(None, **settings)
        except ValueError:  # One runs on this machine: it has its CPUs already.
            _join_named("auto")


def _check_joined(address: str | None) -> None:
    from ray.util.client import ray as client

    if client.is_connected():
        check_address("The cluster that this process has joined", "ray://")
    joined = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", "local", joined):
        raise ValueError(
            f"address must be that of the cluster that this process has joined, {joined}, or None, got {address!r}: "
            "leave the other with ray.shutdown() first."
        )


def _start(address: str | None, **settings: Any) -> None:
    context = ray.init(address, **settings)
    log.info(
        "Ray was started on this machine (%s), and ends with this process; it listens on all network interfaces.",
        context.address_info["address"],
    )


def _join_named(address: str) -> None:
    if address != "auto":
        try:
            _connected(address).close()
        except (OSError, ValueError) as error:
            raise MpseqError(f"No Ray cluster answers at {address}: {error}", remedy=_NOWHERE) from error
    try:
        context = ray.init(address)
    except (ConnectionError, RuntimeError, ValueError) as error:  # None there; of another version of Ray or Python.
        what = " ".join(str(error).split()).rstrip(".")
        raise MpseqError(f"The Ray cluster at {address} cannot be joined: {what}", remedy=_NOWHERE) from error
    log.info("Joined the Ray cluster at %s.", context.address_info["address"])


def environment(given: Mapping[str, Any] | None, threads: int) -> dict[str, Any] | None:
    """Return the runtime environment: threads have to be counted before NumPy is imported, which Ray does.

    Args:
        given: What the user asks for.
        threads: That libraries may start in a worker; 1 is what Ray says by itself.
    """
    found = dict(given or {})
    if threads == 1:
        return found or None
    wanted = {name: value for name, value in child_environment(threads).items() if "_THREADS" in name}
    counts = {name: value for name, value in wanted.items() if name not in os.environ}
    return {**found, "env_vars": {**counts, **found.get("env_vars", {})}}

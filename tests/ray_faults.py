"""Kill actors and nodes of a Ray cluster in the middle of an epoch, add a node, and compare every batch.

    python -m tests.ray_faults [--trials 10] [--seed 0] [--only actor,node,added,cramped] [--slow-detection]

Each trial is one epoch on a cluster of three nodes on this machine (`ray.cluster_utils.Cluster`), in a network
namespace that has only the loopback. What happens, to whom and after which batch follows from the seed. Every batch has
to come once, in order, bit for bit as without workers. The stall is the longest wait for a batch after the fault. A
node that is added has to take part: epochs go on until its worker builds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from keras_mpseq import Loader, RayOptions
from tests.namespaces import in_namespace, why_no_namespace
from tests.sequences import LargeDraws, frozen

BATCHES = 60
_EPOCHS_MOST = 60
"""For the worker on a node that was added to begin: some seconds."""
STORE_BYTES = 150 << 20
QUICK_DETECTION = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""Settings of the head: it finds a silent node dead after 2 s, where by default it takes some 15 s."""


class Paced(LargeDraws):
    """Batches of 5 ms of work, so that an epoch has a middle."""

    def __getitem__(self, index: int) -> Any:
        end = time.monotonic() + 0.005
        while time.monotonic() < end:
            pass
        return super().__getitem__(index)


class Outcome(NamedTuple):
    """What came of a trial."""

    identical: bool
    stall_s: float
    restarts: int
    workers: int
    """That were at work in the end."""


# --- clusters ----------------------------------------------------------------------------------------


@contextmanager
def cluster_of(nodes: int, cpus: int, system_config: dict[str, Any] | None = QUICK_DETECTION) -> Iterator[Any]:
    """Start a cluster, whose head has no CPU for workers but one, and join it."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "_system_config": system_config or {}}
    head["include_dashboard"] = False
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            add_node(cluster, cpus)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any, cpus: int) -> Any:
    """Add a node to *cluster*."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)


def workers_of(loader: Loader) -> dict[int, Any]:
    """Return where each worker is."""
    members = loader._feed.source._engine.backend._members  # type: ignore[attr-defined]
    return {member.worker: member.place for member in members.values() if member.place}


# --- trials -----------------------------------------------------------------------------------------


class Trial:
    """One epoch, in the middle of which something happens."""

    def __init__(self, cluster: Any, seed: int, cpus: int, hedge: float | None = None) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.at = self.random.randrange(5, BATCHES - 15)
        self.cpus = cpus
        self.seed = seed
        self.hedge = hedge

    def run(self, workers: int, room: int, happen: Callable[[Loader], None], *, more: bool = False) -> Outcome:
        """Run the epoch.

        Args:
            workers: That are asked for.
            room: For so many at first; the epoch begins when they are there.
            happen: What happens in its middle.
            more: Other epochs follow until all workers are there.
        """
        options: dict[str, Any] = {"seed": self.seed, "shuffle": True}
        alone = Loader(Paced(BATCHES), workers=0, **options)
        ray = RayOptions(hedge=self.hedge)
        with Loader(Paced(BATCHES), workers=workers, backend="ray", ray=ray, **options) as loader:
            identical = all(self._epochs(loader, alone, room))
            expected = [frozen(batch) for batch in alone]
            got = []
            stall = 0.0
            began = time.perf_counter()
            for number, batch in enumerate(loader):
                if number > self.at:
                    stall = max(stall, time.perf_counter() - began)
                got.append(frozen(batch))
                if number == self.at:
                    happen(loader)
                began = time.perf_counter()
            identical &= got == expected
            if more:
                identical &= all(self._epochs(loader, alone, workers))
            return Outcome(identical, stall, loader.stats().restarts, len(workers_of(loader)))

    @staticmethod
    def _epochs(loader: Loader, alone: Loader, workers: int) -> Iterator[bool]:
        """Run epochs until so many workers are there; yield of each whether it was right."""
        for _ in range(_EPOCHS_MOST):
            if len(workers_of(loader)) == workers:
                return
            yield [frozen(batch) for batch in loader] == [frozen(batch) for batch in alone]
        yield False

    def kill_an_actor(self, loader: Loader) -> None:
        """SIGKILL."""
        place = self.random.choice(list(workers_of(loader).values()))
        os.kill(place.pid, signal.SIGKILL)

    def kill_a_node(self, loader: Loader) -> None:
        """SIGKILL all processes of a node that has workers and is not the head."""
        used = {place.node_id for place in workers_of(loader).values()}
        node = self.random.choice(sorted(self._nodes_of(used), key=lambda node: node.node_id))
        self.cluster.remove_node(node, allow_graceful=False)

    def _nodes_of(self, used: set[str]) -> list[Any]:
        return [node for node in self.cluster.worker_nodes if node.node_id in used]

    def add_a_node(self, loader: Loader) -> None:
        """Add one."""
        add_node(self.cluster, self.cpus)


def actor(cluster: Any, seed: int) -> Outcome:
    """Kill an actor."""
    trial = Trial(cluster, seed, 2)
    return trial.run(3, 3, trial.kill_an_actor)


def node(cluster: Any, seed: int) -> Outcome:
    """Kill a node, and there is room for its workers on the others."""
    trial = Trial(cluster, seed, 2)
    outcome = trial.run(3, 3, trial.kill_a_node)
    add_node(cluster, 2)
    return outcome


def added(cluster: Any, seed: int) -> Outcome:
    """Add a node, while one worker waits for room."""
    trial = Trial(cluster, seed, 2)
    outcome = trial.run(7, 6, trial.add_a_node, more=True)
    cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0])
    return outcome


def cramped(cluster: Any, seed: int) -> Outcome:
    """Kill a node, and there is no room for its workers on the others."""
    trial = Trial(cluster, seed, 2)
    outcome = trial.run(6, 6, trial.kill_a_node)
    add_node(cluster, 2)
    return outcome


SCENARIOS: dict[str, Callable[[Any, int], Outcome]] = {
    "actor": actor,
    "node": node,
    "added": added,
    "cramped": cramped,
}


def main() -> None:
    """Play the trials, and print a line for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--slow-detection", action="store_true", help="leave the health checks of Ray as they are")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        if why := why_no_namespace():
            sys.exit(f"There is no network namespace to be had: {why}")
        with tempfile.TemporaryDirectory(prefix="ray") as folder:
            again = [sys.executable, "-m", "tests.ray_faults", "--inside", *sys.argv[1:]]
            sys.exit(in_namespace(again, env={**os.environ, "RAY_TMPDIR": folder}).returncode)
    wrong = 0
    with cluster_of(3, 2, None if given.slow_detection else QUICK_DETECTION) as cluster:
        for name in given.only.split(","):
            outcomes = []
            for number in range(given.trials):
                outcome = SCENARIOS[name](cluster, given.seed + number)
                outcomes.append(outcome)
                print(f"{name} seed {given.seed + number}: {outcome}", flush=True)
            wrong += sum(not outcome.identical for outcome in outcomes)
            stalls = sorted(outcome.stall_s for outcome in outcomes)
            print(
                f"{name}: {sum(outcome.identical for outcome in outcomes)} of {len(outcomes)} identical; stall "
                f"{stalls[len(stalls) // 2]:.2f} s median, {stalls[-1]:.2f} s at the most; "
                f"{sum(outcome.restarts for outcome in outcomes)} workers replaced",
                flush=True,
            )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

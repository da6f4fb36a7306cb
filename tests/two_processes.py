"""One of two processes that train together on loopback: `python -m tests.two_processes WAY NUMBER PORT BATCHES LOG`.

Prints as JSON what it was given: the samples that counted, the rows of each step and the loss of each step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence, to_dataset
from tests.sequences import append_line

ROWS = 4
_PROCESSES = 2


class Samples(SafeSequence):
    """Batch i has the samples ROWS * i and so on; each is its own target."""

    def __init__(self, batches: int, log: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batches, self.log = batches, log

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        append_line(self.log, str(index))
        y = np.arange(ROWS * index, ROWS * (index + 1), dtype=np.float32)[:, None]
        return np.concatenate([np.sin(y), np.cos(y)], axis=1), y


def multi_worker_mirrored(number: int, ports: list[int], batches: int, log: str) -> dict[str, Any]:
    """A loop of one's own under MultiWorkerMirroredStrategy."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        weights = tf.Variable(tf.zeros((2, 1)))
        datasets = strategy.distribute_datasets_from_function(
            lambda _: to_dataset(Samples(batches, log), workers=1, shuffle=True, seed=5, shard="auto", uneven="pad")
        )

    @tf.function
    def step(x: Any, y: Any, weight: Any) -> Any:
        def on_replica(x: Any, y: Any, weight: Any) -> Any:
            with tf.GradientTape() as tape:
                errors = tf.reduce_sum((x @ weights - y) ** 2, axis=1) * weight
                loss = tf.reduce_sum(errors) / (ROWS * _PROCESSES)
            gradient = tape.gradient(loss, weights)
            context = tf.distribute.get_replica_context()
            weights.assign_sub(0.01 * context.all_reduce("sum", gradient))
            return loss

        return strategy.reduce("sum", strategy.run(on_replica, args=(x, y, weight)), axis=None)

    seen, rows, losses = [], [], []
    for x, y, weight in datasets:
        losses.append(float(step(x, y, weight)))
        (own_y,), (own_weight,) = map(strategy.experimental_local_results, (y, weight))
        rows.append(len(own_y))
        seen += own_y.numpy()[own_weight.numpy() > 0, 0].tolist()
    return {"seen": seen, "rows": rows, "losses": losses, "weights": weights.numpy().ravel().tolist()}


def data_parallel(number: int, ports: list[int], batches: int, log: str) -> dict[str, Any]:
    """`fit` of Keras on JAX under keras.distribution.DataParallel."""
    import keras

    keras.distribution.initialize(f"127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", _PROCESSES, number)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen: list[float] = []
    rows: list[int] = []

    sequence = Samples(batches, log, workers=2, seed=5, shard="auto", uneven="pad")
    from keras_mpseq.keras_bridge import SafeSequenceAdapter

    given = SafeSequenceAdapter._batches

    def noted(self: Any) -> Any:
        rows.clear(), seen.clear()  # Keras takes a batch to build the model by, and begins again with it.
        for x, y, weight in given(self):
            rows.append(len(y))
            seen.extend(y[np.asarray(weight) > 0, 0].tolist())
            yield x, y, weight

    SafeSequenceAdapter._batches = noted  # type: ignore[method-assign]
    history = model.fit(sequence, epochs=1, verbose=0)
    weights = [np.asarray(variable.value.addressable_data(0)).ravel().tolist() for variable in model.weights]
    return {"seen": seen, "rows": rows, "losses": history.history["loss"], "weights": weights}


WAYS = {"mwms": multi_worker_mirrored, "jax": data_parallel}


if __name__ == "__main__":
    way, number, ports, batches, log = sys.argv[1:]
    found = WAYS[way](int(number), json.loads(ports), int(batches), str(Path(log).resolve()))
    print(json.dumps(found), flush=True)

"""Everything that `fit`, `evaluate` and `predict` promise: with processes as stock Keras does it with one.

Each case runs twice, on Keras's own PyDataset in this process and on a SafeSequence with workers, and compares all
that comes out, to the last bit.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from tests.fit_sequence import Kinds, Ours


class Stock(Kinds, keras.utils.PyDataset):
    """On Keras's own base."""


class Steps(keras.callbacks.Callback):
    """Notes the calls of a callback; stops the training at one of them."""

    def __init__(self, stop_at: tuple[int, int] | None) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.epoch = 0
        self.stop_at = stop_at

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.calls.append(("epoch", epoch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("train", batch))
        if (self.epoch, batch) == self.stop_at:
            self.model.stop_training = True

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("test", batch))

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("predict", batch))


class Outcome(NamedTuple):
    results: list[Any]
    calls: list[tuple[str, int]]
    warned: list[str]


def model(kind: str, **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    first = keras.Input((4,), name="first")
    if kind == "plain":
        made = keras.Model(first, keras.layers.Dense(1)(first))
    else:
        second = keras.Input((2,), name="second")
        joined = keras.layers.Concatenate()([first, second])
        outputs = {name: keras.layers.Dense(1, name=name)(joined) for name in ("a", "b")}
        inputs = {"first": first, "second": second} if kind == "dict" else [first, second]
        made = keras.Model(inputs, outputs if kind == "dict" else [outputs["a"], outputs["b"]])
    made.compile("adam", "mse", **{"jit_compile": False, **compiled})  # Compiling takes longer than all the rest.
    return made


EVERY = ["fit", "evaluate", "predict"]

CASES: dict[str, dict[str, Any]] = {
    "steps_per_epoch below the length": {"steps_per_epoch": 2, "epochs": 4},
    "steps_per_epoch above the length": {"steps_per_epoch": 10, "epochs": 2},
    "steps_per_epoch runs out in the middle": {"steps_per_epoch": 4},
    "validation_steps": {"validation": "sequence", "validation_steps": 2},
    "validation_freq": {"validation": "sequence", "validation_freq": 2, "epochs": 5},
    "validation_freq is a list": {"validation": "arrays", "validation_freq": [1, 3], "epochs": 4},
    "validation_data is a dataset": {"validation": "dataset"},
    "initial_epoch": {"initial_epoch": 2, "epochs": 4},
    "steps_per_execution": {"compiled": {"steps_per_execution": 4}, "validation": "sequence"},
    "steps_per_execution and steps_per_epoch": {"compiled": {"steps_per_execution": 2}, "steps_per_epoch": 2},
    "run_eagerly": {"compiled": {"run_eagerly": True}, "validation": "sequence"},
    "jit_compile": {"compiled": {"jit_compile": True}},
    "stop_training": {"stop_at": (1, 3), "epochs": 4, "validation": "sequence"},
    "class_weight": {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}, "kind": "classes"},
    "sample_weight": {"kind": "weighted", "compiled": {"weighted_metrics": ["mae"]}, "validation": "sequence"},
    "float64 becomes floatx": {"kind": "doubles", "methods": EVERY},
    "a short last batch": {"kind": "short", "methods": EVERY},
    "dict inputs": {"kind": "dict", "methods": EVERY},
    "lists of inputs and targets": {"kind": "lists", "methods": EVERY},
    "infinite": {"kind": "infinite", "steps_per_epoch": 4, "validation": "sequence", "validation_steps": 3},
    "infinite without fit": {"kind": "infinite", "methods": EVERY[1:]},
    "steps of evaluate and predict": {"methods": ["evaluate steps", "predict steps", "predict", "evaluate"]},
}


def outcome(base: type, case: dict[str, Any], **settings: Any) -> Outcome:
    case = dict(case)
    kind, validation = case.pop("kind", "plain"), case.pop("validation", None)
    methods = case.pop("methods", ["fit"])
    steps = Steps(case.pop("stop_at", None))
    made = model(kind if kind in ("dict", "lists") else "plain", **case.pop("compiled", {}))
    if validation == "arrays":
        case["validation_data"] = (np.ones((5, 4), np.float32), np.ones((5, 1), np.float32))
    elif validation:
        case["validation_data"] = base(kind, 4, offset=100, **settings)
        if validation == "dataset":
            case["validation_data"] = _as_dataset(case["validation_data"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = base(kind, 6, **settings)
        results: list[Any] = []
        for method in methods:
            if method == "fit":
                arguments = {"shuffle": False, "epochs": 3, **case}
            else:
                arguments = {"steps": 3} if kind == "infinite" or "steps" in method else {}
            found = getattr(made, method.partition(" ")[0])(given, verbose=0, callbacks=[steps], **arguments)
            results.append((found.history, found.epoch) if method == "fit" else _bits(found))
        results.append(_bits(made.get_weights()))
    # Both say the same, ours perhaps with another line number.
    return Outcome(results, steps.calls, [str(warning.message) for warning in caught if "ran out" in str(warning)])


def _bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in keras.tree.flatten(tree)]


def _as_dataset(sequence: Any) -> Any:
    import tensorflow as tf

    x, y = zip(*(sequence[index] for index in range(4)), strict=True)
    return tf.data.Dataset.from_tensor_slices((np.stack(x), np.stack(y)))


@pytest.mark.parametrize("name", CASES)
def test_as_stock_keras_with_one_process(name: str) -> None:
    stock = outcome(Stock, CASES[name])
    assert outcome(Ours, CASES[name], workers=2) == stock


def test_running_out_is_warned_of() -> None:
    """What the comparison above compares: there are such warnings."""
    found = outcome(Ours, CASES["steps_per_epoch above the length"], workers=2)
    assert any("Your input ran out of data; interrupting training" in text for text in found.warned)

"""Keras's own tests of its adapter, from the installed wheel, with our class and our adapter in their place."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from keras.src.trainers.data_adapters import py_dataset_adapter

from keras_mpseq import SafeSequence
from keras_mpseq.keras_bridge import SafeSequenceAdapter

if importlib.util.find_spec("keras.src.trainers.data_adapters.py_dataset_adapter_test") is None:
    pytest.skip("The wheels of Keras before 3.12 have no tests in them.", allow_module_level=True)
_MISSING = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is None]


def _theirs() -> Any:
    """Import Keras's test module over SafeSequence, with empty modules for backends that are not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(py_dataset_adapter, "PyDataset", SafeSequence)
        for name in _MISSING:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.delitem(sys.modules, "keras.src.trainers.data_adapters.py_dataset_adapter_test", raising=False)
        return importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter_test")


theirs = _theirs()


@pytest.fixture(autouse=True)
def ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put our adapter in its place; let the classes of their module travel by value, to workers without Keras."""
    for name in _MISSING:
        if f"single_{name}" in request.node.name:
            pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(py_dataset_adapter, "PyDatasetAdapter", SafeSequenceAdapter)
    cloudpickle.register_pickle_by_value(theirs)
    yield
    cloudpickle.unregister_pickle_by_value(theirs)


class TestKerasOwn(theirs.PyDatasetAdapterTest):  # type: ignore[misc]
    """All of them."""


def test_their_classes_stand_on_ours() -> None:
    assert issubclass(theirs.ExamplePyDataset, SafeSequence)
    assert sum(name.startswith("test_") for name in dir(TestKerasOwn)) > 30

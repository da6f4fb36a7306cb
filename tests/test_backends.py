"""JAX and torch as backends of Keras, where they are installed: what holds on every backend, and what is of one."""

from __future__ import annotations

import faulthandler
import importlib.util

import pytest

from tests.conftest import REPOSITORY, Scripts, alarm

_MISSING = "{0} is a backend of Keras: pip install keras_mpseq[backends]"
BACKEND_S = 280.0
"""For all tests on one backend; reached only by a hang."""


def _needs(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(_MISSING.format(backend))


# --- what holds on all ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_what_holds_on_every_backend(backend: str, monkeypatch: pytest.MonkeyPatch, scripts: Scripts) -> None:
    _needs(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    # The watchdog is for single tests: theirs watches over them, and the alarm over all.
    faulthandler.cancel_dump_traceback_later()
    settings, tests = REPOSITORY / "pyproject.toml", REPOSITORY / "tests" / "on_backend.py"
    script = scripts.start_python(["-m", "pytest", "-q", "-c", str(settings), str(tests)])
    with alarm(f"The tests on {backend} took more than {BACKEND_S:g} s.", BACKEND_S):
        out, errors = script.process.communicate()
    assert script.process.returncode == 0, f"{out.decode()}\n{errors.decode()}"


# --- JAX --------------------------------------------------------------------------------------------

_DISTRIBUTED = """
import keras
import numpy as np
from keras_mpseq import SafeSequence

class Digits(SafeSequence):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        x = self.rng(index).normal(size=(8, 3))
        return x, x.sum(axis=1, keepdims=True)

def losses(workers):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(Digits(workers=workers), epochs=3, verbose=0, validation_data=Digits(workers=workers, seed=1))
    return history.history, model.predict(Digits(workers=workers), verbose=0), model

def close(one, other):
    return all(np.allclose(one[name], other[name], rtol=1e-4) for name in ("loss", "val_loss"))

alone, predicted, _ = losses(2)
devices = keras.distribution.list_devices()
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
for workers in (0, 2):
    parallel, predicted_parallel, model = losses(workers)
    spread = len(model.trainable_variables[0].value.sharding.device_set)
    same = np.allclose(predicted, predicted_parallel, rtol=1e-3, atol=1e-5)
    print(len(devices), spread, close(alone, parallel), same)
"""


def test_data_parallel_training_has_the_same_losses(monkeypatch: pytest.MonkeyPatch, scripts: Scripts) -> None:
    _needs("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert scripts.run(_DISTRIBUTED) == "4 4 True True\n" * 2


_ALIASED = """
import gc
import jax
import numpy as np
from keras_mpseq import Loader

class Large:
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return np.full((1 << 16,), index, np.float32)

with Loader(Large(), workers=2, prefetch=4) as loader:
    held, aliased = [], 0
    for batch in loader:
        held.append(jax.device_put(batch))
        aliased += held[-1].unsafe_buffer_pointer() == batch.ctypes.data
        del batch
print(aliased > 0, [float(array[0]) for array in held] == [*map(float, range(40))])
print(all(float(array.max()) == float(array.min()) for array in held))
"""


def test_memory_that_jax_takes_without_a_copy_is_not_used_again(scripts: Scripts) -> None:
    _needs("jax")
    assert scripts.run(_ALIASED) == "True True\nTrue\n"


# --- torch ------------------------------------------------------------------------------------------


def test_memory_that_torch_takes_without_a_copy_is_not_used_again(scripts: Scripts) -> None:
    _needs("torch")
    program = _ALIASED.replace("import jax", "import torch").replace("jax.device_put", "torch.from_numpy")
    assert scripts.run(program.replace("unsafe_buffer_pointer", "data_ptr")) == "True True\nTrue\n"


# --- what is loaded ---------------------------------------------------------------------------------

_LOADED = """
import sys
import numpy as np
import keras
from keras_mpseq import SafeSequence

class Digits(SafeSequence):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        heavy = any(name in sys.modules for name in ("keras", "jax", "torch", "tensorflow"))
        return np.zeros((2, 3)), np.full((2, 1), heavy)

model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
before = "tensorflow" in sys.modules
model.fit(Digits(workers=2), verbose=0)
built = []
class Tell(keras.Model):
    def train_step(self, *arguments):
        built.append(float(arguments[-1][1][0, 0]))
        return ({"loss": 0.0}, arguments[0]) if len(arguments) > 1 else {"loss": 0.0}
tell = Tell()
tell.built = True
tell.compile("sgd", run_eagerly=True)
tell.fit(Digits(workers=2), verbose=0)
print(built, before or "tensorflow" not in sys.modules)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_programs_whose_class_is_in_main_have_light_workers(
    backend: str, monkeypatch: pytest.MonkeyPatch, scripts: Scripts
) -> None:
    _needs(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert scripts.run(_LOADED) == "[0.0, 0.0, 0.0, 0.0] True\n"

"""Who imports what: layers, heavy packages in one place each, and light workers.

Imports go down the table below only; it is the one of docs/explanation, in finer steps. A module may import those of
lower layers, not of its own; a folder is one layer, whose modules may import each other. Imports under
`if TYPE_CHECKING` are for readers and type checkers, and not counted.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_mpseq
from keras_mpseq import Loader
from tests.conftest import Scripts
from tests.sequences import Modules, SafeModules

PACKAGE = Path(keras_mpseq.__file__).parent

LAYERS: list[set[str]] = [
    # What this process is.
    {"role"},
    # What a sequence holds and reaches.
    {"state.*"},
    {"shares"},
    # What crosses boundaries, and what follows from numbers alone.
    {"errors", "order", "deadlines", "messages", "events", "limits", "machine", "ranks", "html"},
    {"ray_options"},
    # Pure decisions; small mechanisms over the system.
    {"staff", "trace", "native", "stacks", "ledger", "channel", "lifeline", "arrays", "local", "slots", "losses"},
    {"growing", "streams", "dealing", "diagnosis", "codec", "backend", "hdf5", "texts", "sampling"},
    {"scheduler", "payload", "spec", "build", "images", "sources", "stateless"},
    # The user's class; the child's side; how children come to be.
    {"recording"},
    {"sequence", "versions", "worker", "launcher", "options", "stacking"},
    {"ray_slot"},
    {"batched", "process", "epochs", "local_backend", "padding", "resuming", "ray_actor", "ray_store", "ray_cluster"},
    {"ray_calls", "ray_losses", "ray_ear"},
    {"ray_phone"},
    {"ray_backend"},
    {"ray_workplace"},
    # The parent's side: one epoch, batches, the loop.
    {"run"},
    {"delivery", "serial", "mapper", "generators", "iteration"},
    {"inputs", "watch", "live", "progress", "event_file"},
    {"crew", "batches"},
    {"engine"},
    {"pool", "telemetry"},
    # What users call.
    {"profiling.*"},
    {"loader"},
    {"elements", "fitting", "callback"},
    {"dataset"},
    {"pipeline", "mapping", "interleaving"},
    {"keras_bridge", "legacy_bridge", "monitor"},
    {"resume_data"},
    {"__init__"},
    # The validator: what rules say, what was seen, how it is told, who looks.
    {"rules.*"},
    {"findings"},
    {"reporting.*"},
    {"lint.*"},
    {"checks.*"},
    {"cli.*", "testing"},
    {"__main__"},
]

HEAVY = {
    "tensorflow": {"dataset", "mapping", "interleaving"},
    "keras": {"sequence", "keras_bridge", "callback", "resume_data", "cli.*"},
    "tf_keras": {"legacy_bridge"},
    "rich": {"cli.*", "reporting.*"},
    "sklearn": {"cli.*"},
    "PIL": {"cli.*"},
    "plotly": set(),
    "matplotlib": set(),
    "h5py": set(),
    "pandas": set(),
    "libcst": {"lint.*"},
    "ray": {"ray_backend", "ray_cluster", "ray_store", "ray_losses"},
    "pytest": {"testing"},
}
"""Packages that take long to import, or that are extras, and the modules that may import them when they are loaded."""

PURE = {"time", "random", "threading", "os", "logging", "multiprocessing", "datetime", "selectors", "queue", "signal"}
"""What no pure module may import: there is no clock, chance, thread, process or file in it."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield each module's name in the package, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, ast.parse(path.read_text())


def imported(tree: ast.AST, *, also_in_functions: bool) -> Iterator[str]:
    """Yield the full names that a module imports, without those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for other in node.orelse:
                    yield from imported(ast.Module([other], []), also_in_functions=also_in_functions)
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=0):
                # `from package import module` names a module as well as `from package.module import name`.
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                raise AssertionError(f"Line {node.lineno}: relative imports hide the layer.")
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if not also_in_functions:
                continue
            case _:
                yield from imported(node, also_in_functions=also_in_functions)


def key_of(name: str) -> str:
    """Return what stands for a module in the tables: its name, or that of its folder."""
    folder, dot, _ = name.partition(".")
    return f"{folder}.*" if dot else name


def layer_of(name: str) -> int:
    """Return the layer of a module of the package."""
    key = key_of(name)
    found = [number for number, layer in enumerate(LAYERS) if key in layer]
    assert len(found) == 1, f"The module {name} stands {len(found)} times in LAYERS; put it where it belongs."
    return found[0]


def own(name: str) -> str | None:
    """Return the module of the package that an imported full name belongs to."""
    parts = name.split(".")
    if parts[0] != "keras_mpseq":
        return None
    for length in range(len(parts), 1, -1):
        candidate = "/".join(parts[1:length])
        if (PACKAGE / f"{candidate}.py").exists():
            return candidate.replace("/", ".")
        if (PACKAGE / candidate / "__init__.py").exists():
            return f"{candidate.replace('/', '.')}.__init__"
    return "__init__"


def test_every_module_has_a_layer_and_every_layer_its_modules() -> None:
    names = {key_of(name) for name, _ in modules()}
    listed = [name for layer in LAYERS for name in layer]
    assert len(listed) == len(set(listed))
    assert names == set(listed)


def test_imports_go_downward_only() -> None:
    wrong = []
    for name, tree in modules():
        for target in imported(tree, also_in_functions=True):
            other = own(target)
            # `__version__` and `role` are read through the package.
            if other is None or other == "__init__" or ("." in name and key_of(other) == key_of(name)):
                continue
            if layer_of(other) >= layer_of(name):
                wrong.append(f"{name} (layer {layer_of(name)}) imports {other} (layer {layer_of(other)})")
    assert wrong == []


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_are_imported_where_they_belong(package: str) -> None:
    found = {
        key_of(name)
        for name, tree in modules()
        if any(target.partition(".")[0] == package for target in imported(tree, also_in_functions=False))
    }
    assert found <= HEAVY[package]


def test_no_module_takes_part_in_multiprocessing() -> None:
    for name, tree in modules():
        if name == "checks.sending":
            continue  # Asks for the start method: Keras's workers have it.
        for target in imported(tree, also_in_functions=True):
            assert target.partition(".")[0] not in ("multiprocessing", "concurrent"), name


PURE_MODULES = [
    "scheduler",
    "staff",
    "ledger",
    "dealing",
    "events",
    "messages",
    "deadlines",
    "losses",
    "trace",
    "stacks",
    "profiling.measured",
    "profiling.analysis",
    "profiling.sentences",
    "profiling.drawn",
    "profiling.choice",
]


@pytest.mark.parametrize("name", PURE_MODULES)
def test_pure_modules_have_no_clock_thread_or_process(name: str) -> None:
    tree = dict(modules())[name]
    assert {target.partition(".")[0] for target in imported(tree, also_in_functions=True)} & PURE == set()


def test_the_scheduler_needs_pure_modules_only() -> None:
    # Also what it imports imports nothing impure, down to errors and messages; order needs random for seeding only.
    trees, seen, waiting = dict(modules()), set(), ["scheduler"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        targets = set(imported(trees[name], also_in_functions=True))
        if name != "order":
            assert {target.partition(".")[0] for target in targets} & PURE == set(), name
        waiting += [other for target in targets if (other := own(target))]
    assert seen <= {"scheduler", "staff", "trace", "ledger", "dealing", "events", "messages", "order", "errors"}


@pytest.mark.parametrize(
    "statement",
    [
        "import keras_mpseq",
        "from keras_mpseq import Loader",
        "from keras_mpseq import per_worker, get_worker_info",
        "from keras_mpseq import PoolClosedError, UserCodeError",
        "import keras_mpseq; dir(keras_mpseq); keras_mpseq.__version__",
        "import keras_mpseq.pool, keras_mpseq.worker, keras_mpseq.process",
        "import keras_mpseq.cli.main",
    ],
)
def test_importing_the_package_loads_no_framework(scripts: Scripts, statement: str) -> None:
    script = f"import sys\n{statement}\nprint([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    assert scripts.run_python(["-c", script]) == "[]\n"


def test_using_a_loader_loads_no_framework_either(scripts: Scripts) -> None:
    script = """
import sys
import numpy as np
from keras_mpseq import Loader
class Sequence:
    def __len__(self): return 2
    def __getitem__(self, index): return np.zeros(3)
with Loader(Sequence(), workers=2) as loader:
    assert len(list(loader)) == 2
print([name for name in ("tensorflow", "keras", "multiprocessing", "scipy", "pandas") if name in sys.modules])
"""
    assert scripts.run_python(["-c", script]) == "[]\n"


@pytest.mark.parametrize("launcher", ["template", "spawn"])
@pytest.mark.parametrize("sequence", [Modules(), SafeModules()], ids=["plain", "SafeSequence"])
def test_workers_are_light(sequence: object, launcher: str) -> None:
    # This process has loaded all of them: tests.sequences has a SafeSequence, which here stands on Keras.
    assert {"keras", "tensorflow"} <= set(sys.modules)
    with Loader(sequence, workers=2, launcher=launcher) as loader:
        for names in loader:
            loaded = {name.partition(".")[0] for name in str(names).split()}
            assert {"numpy", "keras_mpseq", "tests"} <= loaded
            heavy = {"keras", "tensorflow", "tf_keras", "torch", "jax", "scipy", "pandas", "rich", "multiprocessing"}
            assert loaded & (heavy | {"pytest", "psutil", "__mp_main__"}) == set()


def test_all_is_sorted_and_resolves() -> None:
    assert keras_mpseq.__all__ == sorted(keras_mpseq.__all__)
    for name in keras_mpseq.__all__:
        assert getattr(keras_mpseq, name).__name__ == name
        assert getattr(keras_mpseq, name).__doc__, name
    assert set(keras_mpseq.__all__) <= set(dir(keras_mpseq))
    with pytest.raises(AttributeError, match="module 'keras_mpseq' has no attribute 'nothing'"):
        keras_mpseq.nothing  # noqa: B018


def test_every_error_of_the_tree_is_public() -> None:
    errors = importlib.import_module("keras_mpseq.errors")
    tree = [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.MpseqError)
    ]
    assert set(tree) <= set(keras_mpseq.__all__)

"""However a program is run, its own classes reach the workers: no `if __name__ == "__main__"`, no file needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Scripts

LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])

BODY = """
import os
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from keras_mpseq import Loader, per_worker

SCALE = 3
table = {"offset": 100}
print("imported", os.getpid() == main if "main" in globals() else True)

class Pair(NamedTuple):
    x: object
    y: object

@dataclass
class Settings:
    power: int

class Base:
    def __init__(self, transform):
        self.transform = transform
        self.settings = Settings(2)
        self.pick = lambda index: index + table["offset"]

    def __len__(self):
        return 6

class Sequence(Base):
    def __init__(self, transform):
        super().__init__(transform)

    @per_worker
    def offset(self):
        return helper(0)

    @staticmethod
    def zero():
        return 0

    def __getitem__(self, index):
        x = self.transform(self.pick(index)) ** self.settings.power + self.offset + self.zero()
        return Pair(np.array([x]), np.array([os.getpid(), self.offset]))

def helper(value):
    return value + SCALE

def closing_over(factor):
    def transform(value):
        return factor * helper(value)
    return transform

def expected():
    return [(2 * (index + 100 + SCALE)) ** 2 + SCALE for index in range(6)]

launcher = os.environ.get("LAUNCHER") or None
with Loader(Sequence(closing_over(2)), workers=2, launcher=launcher) as loader:
    for epoch in range(2):
        batches = list(loader)
        assert all(type(batch) is Pair for batch in batches), batches
        assert [int(batch.x[0]) for batch in batches] == expected(), batches
        assert os.getpid() not in {int(batch.y[0]) for batch in batches}
    SCALE = 4  # A global that functions use travels as it is when the epoch begins.
    # Less the resource, which a worker that started late builds late.
    assert [int(batch.x[0]) - int(batch.y[1]) for batch in loader] == [
        (2 * (index + 100 + 4)) ** 2 for index in range(6)]
print("done")
"""
"""Counts its own runs by printing "imported": workers must not run it again."""


@pytest.fixture(autouse=True)
def chosen_launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the script which launcher to use, where the test has one."""
    if "launcher" in request.fixturenames:
        monkeypatch.setenv("LAUNCHER", request.getfixturevalue("launcher"))


@LAUNCHERS
def test_a_script_without_a_guard(scripts: Scripts, launcher: str) -> None:
    assert scripts.run(BODY) == "imported True\ndone\n"


@LAUNCHERS
def test_stdin(scripts: Scripts, launcher: str) -> None:
    assert scripts.run_python(["-"], stdin=BODY) == "imported True\ndone\n"


@LAUNCHERS
def test_dash_c(scripts: Scripts, launcher: str) -> None:
    assert scripts.run_python(["-c", BODY]) == "imported True\ndone\n"


@LAUNCHERS
def test_dash_m(scripts: Scripts, tmp_path: Path, launcher: str) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("NUMBER = 3\n")
    (package / "program.py").write_text(BODY.replace("SCALE = 3\n", "from .part import NUMBER\nSCALE = NUMBER\n"))
    assert scripts.run_python(["-m", "package.program"]) == "imported True\ndone\n"


def test_a_script_with_a_guard(scripts: Scripts) -> None:
    head, use = BODY.split("launcher = ", 1)
    use = ("launcher = " + use).replace("\n", "\n    ")
    assert scripts.run(f"{head}\nif __name__ == '__main__':\n    {use}") == "imported True\ndone\n"


def test_another_working_directory(scripts: Scripts, tmp_path: Path) -> None:
    # The worker starts in the present directory and with the present path, not with those of the interpreter's start.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "nearby.py").write_text(
        "class Sequence:\n"
        "    def __len__(self):\n        return 3\n"
        "    def __getitem__(self, index):\n        return open('data').read() + str(index)\n"
    )
    (tmp_path / "elsewhere" / "data").write_text("here ")
    script = """
import os, sys
os.chdir("elsewhere")
sys.path.insert(0, os.getcwd())
from nearby import Sequence
from keras_mpseq import Loader
with Loader(Sequence(), workers=2) as loader:
    assert [str(batch) for batch in loader] == ["here 0", "here 1", "here 2"], list(loader)
print("done")
"""
    assert scripts.run(script) == "done\n"


def test_output_of_workers_arrives_whole(scripts: Scripts) -> None:
    script = """
import numpy as np
from keras_mpseq import Loader

class Sequence:
    def __len__(self):
        return 20
    def __getitem__(self, index):
        print("building", index)
        return np.zeros(3)

print("before", end=" ")  # In the parent's buffer while processes start: it must not come out twice.
with Loader(Sequence(), workers=2) as loader:
    list(loader)
"""
    lines = scripts.run_python(["-c", script]).replace("before ", "", 1).splitlines()
    assert sorted(lines) == sorted(f"building {index}" for index in range(20))


def test_flags_and_environment_of_the_interpreter_travel(scripts: Scripts) -> None:
    script = """
import os, sys, warnings
import numpy as np
from keras_mpseq import Loader

class Sequence:
    def __len__(self):
        return 1
    def __getitem__(self, index):
        assert False, "with -O nobody asserts"
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MINE")
        return " ".join([str(sys.flags.optimize), *(os.environ[name] for name in names)])

os.environ["MINE"] = "set late"
for launcher in ("template", "spawn"):
    with Loader(Sequence(), workers=1, worker_threads=3, launcher=launcher) as loader:
        print(repr(str(next(iter(loader)))))
"""
    assert scripts.run_python(["-O", "-c", script]) == "'1  3 set late'\n" * 2


def test_safe_sequences_in_a_script_load_no_keras_in_workers(scripts: Scripts) -> None:
    script = """
import sys
import numpy as np
import keras
from keras_mpseq import Loader, SafeSequence

class Sequence(SafeSequence):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.x = 1
    def __len__(self):
        return 4
    def __getitem__(self, index):
        heavy = [name for name in ("keras", "tensorflow", "multiprocessing") if name in sys.modules]
        return " ".join([str(index + self.x), *heavy])

with Loader(Sequence(workers=2)) as loader:
    print([str(batch) for batch in loader])
"""
    assert scripts.run(script) == "['1', '2', '3', '4']\n"


CELLS = [
    "import os\nimport numpy as np\nfrom keras_mpseq import Loader\nOFFSET = 5",
    """
class Sequence:
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return np.array([index + OFFSET, os.getpid()])
""",
    """
with Loader(Sequence(), workers=2) as loader:
    batches = list(loader)
assert [int(batch[0]) for batch in batches] == [5, 6, 7, 8]
assert os.getpid() not in {int(batch[1]) for batch in batches}
""",
    """
class Sequence(Sequence):  # A cell that is run again defines another class of the same name.
    def __getitem__(self, index):
        return super().__getitem__(index) + 10
OFFSET = 6
loader = Loader(Sequence(), workers=2)
iterator = iter(loader)
print([int(next(iterator)[0]) for _ in range(4)])
""",
]


def test_a_notebook(scripts: Scripts) -> None:
    pytest.importorskip("nbclient", reason="nbclient runs notebooks: pip install keras_mpseq[dev]")
    pytest.importorskip("ipykernel", reason="ipykernel runs the cells: pip install keras_mpseq[dev]")
    # In a process of its own: the client opens sockets and an event loop, which are not ours to look after.
    script = f"""
import warnings
warnings.simplefilter("ignore")
import nbformat
from nbclient import NotebookClient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in {CELLS!r}])
NotebookClient(notebook, timeout=40, kernel_name="python3").execute()
print("".join(output["text"] for output in notebook.cells[-1].outputs), end="")
"""
    script_ = scripts.start(script)
    status, out, errors = script_.ended()
    assert (status, out) == (0, "[16, 17, 18, 19]\n"), errors


def test_a_module_loaded_from_a_path_by_hand(scripts: Scripts, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "module.py").write_text(
        "import numpy as np\n\nclass Sequence:\n"
        "    def __len__(self):\n        return 2\n"
        "    def __getitem__(self, index):\n        return np.array([index + extra()])\n\n"
        "def extra():\n    return 7\n"
    )
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("module", {str(hidden / "module.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules["module"] = module
spec.loader.exec_module(module)
from keras_mpseq import Loader
with Loader(module.Sequence(), workers=1) as loader:
    print([int(batch[0]) for batch in loader])
"""
    assert os.pathsep not in str(hidden)
    assert scripts.run(script) == "[7, 8]\n"

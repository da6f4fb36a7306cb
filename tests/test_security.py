"""The claims of docs/explanation/security.md, each by its number there."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from keras_mpseq import Loader, lint
from keras_mpseq.slots import Slot, anonymous_file, never_changes, never_shrinks, read_only, write_file
from tests.conftest import REPOSITORY, Scripts
from tests.sequences import InPlace

DOCUMENT = REPOSITORY / "docs" / "explanation" / "security.md"
LAUNCHERS = pytest.mark.parametrize("launcher", ["template", "spawn"])
OURS = re.compile(r"/memfd:|socket:|pipe:|.*/keras_mpseq-\w+ \(deleted\)$")
LISTENS = 1 << 16
"""__SO_ACCEPTCON, in the flags of /proc/net/unix."""


def test_every_claim_has_a_test() -> None:
    claims = re.findall(r"^### (\d+)\. ", DOCUMENT.read_text(), re.M)
    tested = re.findall(r"^def test_claim_(\d+)_", Path(__file__).read_text(), re.M)
    assert claims == [str(number) for number in range(1, len(claims) + 1)]
    assert set(tested) == set(claims)


@pytest.fixture(params=["template", "spawn"])
def family(request: pytest.FixtureRequest) -> Iterator[list[psutil.Process]]:
    """A training process in the middle of an epoch, with all its children."""
    before = set(psutil.Process().children(recursive=True))
    with Loader(InPlace(20), workers=3, launcher=request.param) as loader:
        batches = iter(loader)
        next(batches)
        children = [child for child in psutil.Process().children(recursive=True) if child not in before]
        assert len(children) == (4 if request.param == "template" else 3)
        yield [psutil.Process(), *children]


def files_of(process: psutil.Process) -> dict[str, str]:
    """Return descriptors and what they refer to, without the standard streams."""
    found = {}
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            found[link.name] = str(link.readlink())
        except FileNotFoundError:  # That of the listing itself, or closed since.
            continue
    return {fd: target for fd, target in found.items() if int(fd) > 2}


# --- 1, 2: sockets ----------------------------------------------------------------------------------


def test_claim_1_nothing_can_be_connected_to(family: list[psutil.Process]) -> None:
    """No socket of ours listens, or has a name, in the file system or the abstract one; none is of the Internet."""
    for process in family[1:]:
        assert process.net_connections("inet") == []
    unix = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = line.split()
        unix[f"socket:[{inode}]"] = int(flags, 16), name
    for process in family:
        sockets = {target for target in files_of(process).values() if target.startswith("socket:")}
        if process is family[0]:
            sockets &= set(unix)  # Other sockets of this process are other packages'.
        for target in sockets:
            flags, name = unix[target]
            assert not flags & LISTENS
            assert name == []


def test_claim_2_who_is_at_the_other_end_was_put_there(family: list[psutil.Process]) -> None:
    """Each end of a channel is held by one process: no worker can speak for another, or with the template."""
    held = Counter(
        target for process in family for target in set(files_of(process).values()) if target.startswith("socket:")
    )
    assert set(held.values()) == {1}
    for process in family[1:]:
        ends = [target for target in files_of(process).values() if target.startswith("socket:")]
        assert len(ends) == 1


def test_claim_2_programs_that_workers_start_inherit_nothing(scripts: Scripts) -> None:
    """Also by os.system and with close_fds=False, which close nothing."""
    source = """
import os, subprocess, sys
from keras_mpseq import Loader

LOOK = '''
import os
for fd in os.listdir("/proc/self/fd"):
    try:
        if int(fd) > 2:
            print(os.readlink("/proc/self/fd/" + fd))
    except OSError:
        pass
'''
def inherited():
    command = [sys.executable, "-c", LOOK]
    said = subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True).stdout
    return [line for line in said.split() if line.startswith(("/memfd:", "socket:", "pipe:"))]

class Starting:
    def __len__(self):
        return 1
    def __getitem__(self, index):
        return [str(inherited())]

for launcher in "template", "spawn":
    with Loader(Starting(), workers=1, launcher=launcher) as loader:
        (said,) = next(iter(loader))
        print(said.tolist(), inherited())
"""
    assert scripts.run(source) == "[] []\n" * 2


# --- 3, 4: memory -----------------------------------------------------------------------------------


def test_claim_3_memory_is_anonymous_and_this_users_only(family: list[psutil.Process]) -> None:
    for process in family:
        for fd, target in files_of(process).items():
            if not OURS.match(target) or target.startswith("socket:"):
                continue
            status = os.stat(f"/proc/{process.pid}/fd/{fd}")
            if stat.S_ISFIFO(status.st_mode):
                assert stat.S_IMODE(status.st_mode) == 0o600
            elif "keras_mpseq" in target:
                assert stat.S_IMODE(status.st_mode) == 0o600
                assert status.st_nlink == 0
    assert list(Path("/dev/shm").glob("*keras_mpseq*")) == []


@pytest.mark.parametrize("kind", ["memfd", "file"])
@pytest.mark.parametrize("umask", [0, 0o777])
def test_claim_3_whatever_the_umask(kind: str, umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memfd a file has a name for an instant: it is born with 0600, and in no foreign hand before."""
    if kind == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        modes = []
        unlink = os.unlink
        monkeypatch.setattr(os, "unlink", lambda name: (modes.append(os.stat(name).st_mode), unlink(name)))
    before = os.umask(umask)
    try:
        fd = anonymous_file(100)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    if kind == "file":
        assert [stat.S_IMODE(mode) for mode in modes] in ([0o600], [0])
        assert list(tmp_path.iterdir()) == []
    os.close(fd)


needs_seals = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Files of memory are Linux's.")


@needs_seals
def test_claim_4_the_sequence_in_shared_memory_cannot_be_changed() -> None:
    fd = anonymous_file(4096)
    write_file(fd, b"x" * 4096)
    never_changes(fd)
    view = read_only(fd, 4096)
    for change in (
        lambda: os.pwrite(fd, b"y", 0),
        lambda: os.ftruncate(fd, 0),
        lambda: os.ftruncate(fd, 8192),
        lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_TRUNC),
    ):
        with pytest.raises(PermissionError):
            change()
    assert bytes(view) == b"x" * 4096
    os.close(fd)


@needs_seals
def test_claim_4_a_slot_cannot_be_cut_short() -> None:
    """Whoever touches memory that is gone is killed with SIGBUS: a worker could end the training so."""
    slot = Slot.new()
    slot.begin(1 << 16)
    slot.empty((10_000,), "uint8")
    with pytest.raises(PermissionError):
        os.ftruncate(slot.fd, 0)
    slot.close()


@needs_seals
def test_claim_4_memory_cannot_be_executed() -> None:
    fd = anonymous_file(100)
    never_shrinks(fd)
    with pytest.raises(PermissionError):
        os.execve(fd, ["x"], {})
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (6, 3):
        with pytest.raises(PermissionError):
            os.fchmod(fd, 0o700)
    os.close(fd)


# --- 5, 6: what children load -----------------------------------------------------------------------

_WATCH = """
import os, sys
if "WATCHED" in os.environ:
    log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def note(event, args, log=log):
        if event.startswith(("socket.", "urllib.", "ftplib.", "http.", "subprocess.", "os.system", "os.exec")):
            os.write(log, f"{event} {args[1:]!r}\\n".encode())
        elif event == "open" and isinstance(args[0], (str, bytes)):
            os.write(log, f"open {os.fsdecode(args[0])}\\n".encode())
        elif event == "import" and args[0] == "__main__":
            os.write(log, b"import __main__\\n")
    sys.addaudithook(note)
"""
"""A sitecustomize.py: what every child notes, from before its first line on."""


@LAUNCHERS
def test_claim_5_the_sequence_comes_from_no_file_and_no_network(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_WATCH)
    log = tmp_path / "log"
    source = f"""
import os, numpy as np
from keras_mpseq import Loader
class Sequence:
    def __init__(self):
        self.array = np.arange(1 << 18)
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return self.array[index : index + 9]
os.environ["WATCHED"] = {str(log)!r}
with Loader(Sequence(), workers=2, launcher={launcher!r}) as loader:
    print([int(batch[0]) for batch in loader])
"""
    script = scripts.start(source, path=str(tmp_path / "site"))
    assert scripts.checked(script) == "[0, 1, 2]\n"
    noted = log.read_text().splitlines()
    assert any(line.endswith("keras_mpseq/process.py") or "process.cpython" in line for line in noted)
    folders = (*{sys.prefix, sys.base_prefix, str(REPOSITORY), str(tmp_path / "site")}, "/usr/lib", "/etc/localtime")
    # Modules by name; numpy asks how many processors there are.
    usual = *(f"open {folder}" for folder in (*folders, "/proc/", "/sys/", "/dev/null")), "socket.__new__ "
    assert [line for line in noted if not line.startswith(usual)] == []


@LAUNCHERS
def test_claim_6_modules_come_from_where_the_training_process_has_them(
    scripts: Scripts, tmp_path: Path, launcher: str
) -> None:
    """Not from the current folder, which may be anybody's."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("numpy", "cloudpickle", "keras_mpseq", "socket", "sitecustomize", "usercustomize", "__main__"):
        (foreign / f"{name}.py").write_text(f"import os; os.write(2, b'{name} was run'); os._exit(1)")
    source = f"""
import os, numpy as np
from keras_mpseq import Loader
os.chdir({str(foreign)!r})
with Loader([np.zeros(3), np.ones(3)], workers=2, launcher={launcher!r}) as loader:
    print([float(batch[0]) for batch in loader])
"""
    assert scripts.run(source) == "[0.0, 1.0]\n"


def test_claim_7_nothing_of_the_sequence_is_in_arguments_or_environment(scripts: Scripts) -> None:
    """Arguments of processes can be read by every user of the machine."""
    source = """
import os, sys
import numpy as np, psutil
from keras_mpseq import Loader
class Secretive:
    def __init__(self):
        self.password = "swordfish"
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return np.zeros(len(self.password))
for launcher in "template", "spawn":
    with Loader(Secretive(), workers=1, launcher=launcher) as loader:
        next(iter(loader))
        for child in psutil.Process().children(recursive=True):
            said = str(child.cmdline()) + str(child.environ())
            assert "keras_mpseq.process" in said and "swordfish" not in said
"""
    scripts.run(source)


# --- 8, 9: lint -------------------------------------------------------------------------------------

_HOSTILE = """
import os, sys
os.system("touch {mark}"); open({mark!r}, "w"); print("RUN")
def run(*a, **k):
    open({mark!r}, "w")
    return lambda f: f
class Meta(type):
    def __new__(*a, **k): run()
    def __prepare__(*a, **k): return run()
from keras.utils import PyDataset
@run()
class Batches(PyDataset, metaclass=Meta, flag=run()):
    x: run() = run()
    __len__ = property(run())
    def __init_subclass__(cls): run()
    @run(open({mark!r}, "w"))
    def __getitem__(self, i, default=run(), *, other=exec("run()")) -> run():
        self.n = eval("run()")
        return __import__("hostile_{name}").x[i]
globals()["run"](); [run() for _ in range(3)]; f"{{run()}}"; 10 ** 10 ** 10; "x" * 10 ** 12
"""
_NAMES = (
    *("hostile", "conftest", "setup", "sitecustomize", "usercustomize", "__main__", "__init__"),
    *("tomllib", "tomli", "rich", "ast", "numpy", "keras", "keras_mpseq", "libcst", "flake8", "json"),
)


def hostile(folder: Path, mark: Path) -> None:
    """Fill *folder* with files that leave *mark* when anything of them is run."""
    folder.mkdir()
    for name in _NAMES:
        (folder / f"{name}.py").write_text(_HOSTILE.format(mark=str(mark), name=name))
    (folder / "coded.py").write_text(f"# -*- coding: hostile -*-\n{_HOSTILE.format(mark=str(mark), name='coded')}")
    (folder / "path.pth").write_text(f"import os; open({str(mark)!r}, 'w')\n")
    (folder / "pyproject.toml").write_text(
        "[tool.keras-mpseq]\nextra-bases = ['hostile.Batches']\n[tool.keras-mpseq.decls]\n'hostile.run' = 'pure'\n"
        "[build-system]\nbuild-backend = 'hostile'\nbackend-path = ['.']\n"
        "[tool.pytest.ini_options]\naddopts = '-p hostile'\n"
    )
    os.mkfifo(folder / "pipe.py")


_LINT = """
import json, os, sys
noted = []
def note(event, args):
    if event == "exec" and args[0].co_filename.startswith(folder):
        noted.append(f"exec {args[0].co_filename}")
    elif event == "import" and str(args[1]).startswith(folder):
        noted.append(f"import {args[0]}")
    elif event.startswith(("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.c", "pickle.")):
        noted.append(f"{event} {args!r}"[:200])
    elif event == "open" and str(args[0]).startswith(folder) and args[2] & (os.O_WRONLY | os.O_RDWR):
        noted.append(f"written {args[0]}")
folder = sys.argv.pop(1)
os.chdir(folder)
from keras_mpseq.cli.main import main
sys.addaudithook(note)
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
sys.stdout.flush()
inside = [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "") or "").startswith(folder)]
sys.stderr.write(json.dumps([status, noted, inside]))
"""


@pytest.mark.parametrize("arguments", [["."], [".", "--output-format", "sarif"], [".", "--diff"]], ids=lambda a: a[-1])
def test_claim_8_lint_runs_nothing_of_what_it_reads(scripts: Scripts, tmp_path: Path, arguments: list[str]) -> None:
    mark = tmp_path / "mark"
    hostile(tmp_path / "project", mark)
    status, out, errors = scripts.start(_LINT, tmp_path / "project", "lint", *arguments).ended()
    assert status == 0, errors
    assert "--diff" in arguments or "SEQ205" in out
    code, noted, inside = json.loads(errors.splitlines()[-1])
    assert (noted, inside) == ([], [])
    assert code == ("--diff" not in arguments)  # A diff is no finding.
    assert not mark.exists()


def test_claim_8_nor_does_the_library(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hostile(tmp_path / "project", tmp_path / "mark")
    before = set(sys.modules)
    linted = lint.lint_paths([tmp_path / "project"])
    assert {finding.code for finding in linted.findings} >= {"SEQ000", "SEQ205"}
    assert not {name for name in set(sys.modules) - before if not name.startswith(("keras_mpseq", "encodings"))}
    assert not (tmp_path / "mark").exists()
    assert capfd.readouterr() == ("", "")


def test_claim_8_fix_writes_only_what_it_reports(scripts: Scripts, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hostile(tmp_path / "project", mark)
    before = {path: path.read_bytes() for path in (tmp_path / "project").iterdir() if path.is_file()}
    status, _, errors = scripts.start(_LINT, tmp_path / "project", "lint", ".", "--fix").ended()
    assert status == 0, errors
    _, noted, inside = json.loads(errors.splitlines()[-1])
    assert [line for line in noted if not line.startswith("written ")] == []
    assert inside == []
    assert set(before) == {path for path in (tmp_path / "project").iterdir() if path.is_file()}
    assert not mark.exists()


@pytest.mark.parametrize("form", ["full", "concise"])
def test_claim_9_no_file_speaks_to_the_terminal(tmp_path: Path, form: str) -> None:
    """Neither by its name nor by what is in it: escape sequences change titles, hide lines, or answer as if typed."""
    name = tmp_path / "a\x1b[31m\n0 findings.py"
    name.write_text(
        "import keras\nclass A(keras.utils.PyDataset):\n    def __getitem__(self, i):\n"
        "        self.n = i; self['\x1b]0;owned\x07\x9b2J'] = 1\n        return i\n"
    )
    command = [sys.executable, "-m", "keras_mpseq", "lint", str(tmp_path), "--output-format", form]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "1"}, capture_output=True, timeout=50
    )
    said = ran.stdout.decode()
    assert ran.returncode == 1
    assert "SEQ205" in said
    assert [char for char in said if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)] == []
    assert "\n0 findings" not in said


# --- 10: what is trusted ----------------------------------------------------------------------------


def test_claim_10_only_the_channels_of_children_are_unpickled() -> None:
    """Who reads pickles is listed here, so that a further reader is noticed."""
    readers = set()
    for path in sorted((REPOSITORY / "keras_mpseq").rglob("*.py")):
        if re.search(r"\bpickle\.loads?\(|\bUnpickler\b|\bmarshal\.load|allow_pickle=True", path.read_text()):
            readers.add(str(path.relative_to(REPOSITORY / "keras_mpseq")))
    assert readers == {
        "channel.py",  # Messages of the processes that the training process started, and of it.
        "payload.py",  # The sequence, in shared memory of the training process.
        "errors.py",  # Exceptions, in such messages.
        "delivery.py",  # The structure of batches, in such messages.
        "worker.py",
        "ray_backend.py",  # On Ray: what the actors answer that the training process has started.
        "ray_actor.py",  # On Ray: what the training process asks.
        "checks/process.py",  # The same, for `check`.
    }

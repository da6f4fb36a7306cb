"""The static engine never fails: whatever a file holds, the answer is a list of findings."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_mpseq.findings import SEVERITIES
from keras_mpseq.lint import Linted, lint_paths, lint_source
from keras_mpseq.rules import RULES

HERE = Path(__file__).parent
SOURCES = [path.read_text() for path in sorted((HERE / "lint_cases").glob("*.py"))]
SEQUENCE = "import keras\nclass A(keras.utils.PyDataset):\n    def __getitem__(self, i):"
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def check(linted: Linted, lines: int) -> None:
    """Assert that every finding can be shown."""
    for finding in linted.findings:
        assert finding.code in RULES
        assert finding.severity in SEVERITIES
        assert finding.message
        assert not finding.message.endswith(".")
        assert finding.line is not None and finding.column is not None
        assert finding.end_line is not None and finding.end_column is not None
        assert 1 <= finding.line <= max(lines, 1) + 1
        assert (finding.line, finding.column) < (finding.end_line, finding.end_column)
        assert finding.chain


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A real file, of which some lines, words or characters were removed, doubled or exchanged."""
    lines = draw(st.sampled_from(SOURCES)).split("\n")
    for _ in range(draw(st.integers(1, 6))):
        first, second = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.sampled_from(["drop", "double", "swap", "cut", "indent", "word", "splice"])):
            case "drop" if len(lines) > 1:
                del lines[first]
            case "double":
                lines.insert(second, lines[first])
            case "swap":
                lines[first], lines[second] = lines[second], lines[first]
            case "cut":
                lines[first] = lines[first][: draw(st.integers(0, len(lines[first])))]
            case "indent":
                lines[first] = "    " + lines[first]
            case "word":
                words = lines[second].split() or ["self"]
                parts = lines[first].split(" ")
                parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(words))
                lines[first] = " ".join(parts)
            case "splice":
                place = draw(st.integers(0, len(lines[first])))
                lines[first] = lines[first][:place] + draw(st.text(max_size=4)) + lines[first][place:]
    return "\n".join(lines)


@RELAXED
@given(mutated())
def test_mutants_of_real_files(source: str) -> None:
    check(lint_source(source, "mutant.py"), len(source.splitlines()))


@pytest.mark.skipif(find_spec("hypothesmith") is None, reason="needs hypothesmith")
@settings(RELAXED, max_examples=40)
@given(st.deferred(lambda: import_module("hypothesmith").from_grammar()))
def test_any_program(source: str) -> None:
    check(lint_source(source), len(source.splitlines()))
    # As the body of a method, so that the engine has to follow it.
    inside = SEQUENCE + "\n" + "\n".join("        " + line for line in [*source.split("\n"), "pass"])
    check(lint_source(inside), len(inside.splitlines()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def f(:\n", "does not parse"),
        (b"import keras\nx = '\xff\xfe'\n", "not text in the encoding"),
        (b"# -*- coding: nonsense -*-\n", "not text in the encoding"),
        (b"PyDataset = '\0'\n", "does not parse"),
        (b"Sequence = " + b"(" * 4000 + b")" * 4000, "does not parse"),
        (b"Sequence = 1" + b" + 1" * 60_000, ""),
    ],
    ids=["syntax", "bytes", "encoding", "null", "parentheses", "sum"],
)
def test_files_that_do_not_parse_are_findings(tmp_path: Path, content: bytes, message: str) -> None:
    # Files without a word of sequences are not parsed, so that this one mentions them.
    (tmp_path / "a.py").write_bytes(b"# Sequence\n" + content if b"coding" not in content else content)
    (tmp_path / "b.py").write_text(RULES["SEQ205"].example())
    linted = lint_paths([tmp_path])
    check(linted, 50)
    found = {finding.code: finding for finding in linted.findings}
    assert "SEQ205" in found
    if message:
        assert message in found["SEQ000"].message
        assert Path(found["SEQ000"].path or "").name == "a.py"


def test_empty_files_and_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    assert lint_paths([tmp_path]).findings == []
    assert lint_paths([]).findings == []
    missing = lint_paths([tmp_path / "missing.py"])
    assert [(f.code, f.message) for f in missing.findings] == [
        ("SEQ000", "the file cannot be read: No such file or directory")
    ]


def test_encodings_that_are_declared_are_read(tmp_path: Path) -> None:
    source = "# -*- coding: latin-1 -*-\n# \u00e9\n" + RULES["SEQ205"].example()
    (tmp_path / "a.py").write_bytes(source.encode("latin-1"))
    (tmp_path / "b.py").write_bytes(b"\xef\xbb\xbf" + RULES["SEQ205"].example().replace("\n", "\r\n").encode())
    assert [finding.code for finding in lint_paths([tmp_path]).findings] == ["SEQ205", "SEQ205"]


HARD = {
    "itself": """
        return self[i]
    def __iter__(self):
        return iter(self)
""",
    "circle": """
        return self.a(i)
    def a(self, i):
        self.n = i
        return self.b(i)
    def b(self, i):
        return self.a(i - 1) + self.n
""",
    "closure": """
        def f(k):
            return g(k)
        def g(k):
            return f(k)
        return f(i)
""",
    "lambda": """
        f = lambda g: g(g)
        return f(f)
""",
    "bases": """
        return i
class B(C): pass
class C(B): pass
class D(D, A): pass
""",
    "names": """
        return i
x = y
y = x
class E(x): pass
from a import *
from . import a
from .... import b
import a.b.c as d
""",
    "partial": """
        import functools
        p = functools.partial(self.f, i)
        return functools.partial(p, p)(p)
    def f(self, *a, **k):
        return a[0](*a, **k)
""",
    "property": """
        return self.p
    @property
    def p(self):
        return self.p + self.q
    @p.setter
    def p(self, v):
        self.p = v
    q = property(lambda self: self.p)
""",
    "no self": """
        return self.f()
    def f():
        return 1
    @staticmethod
    def g(): pass
    def __len__(*a): return 0
""",
    "match": """
        match i:
            case [a, *b] | {"k": a, **b}:
                self.n = a
            case _:
                return 1
""",
    "odd": """
        global A
        (self.a, *self.b), self.c[0:1] = i
        del self.a, A
        async def f():
            async with i as k:
                return [x async for x in k]
        return (yield from f())
""",
    "deep calls": "\n        return self.f0(i)\n"
    + "".join(f"    def f{k}(self, i):\n        return self.f{k + 1}(i)\n" for k in range(200)),
    "deep blocks": "\n" + "".join(f"{'    ' * (k + 2)}if i > {k}:\n" for k in range(60)) + "    " * 62 + "return i\n",
    "long sum": "\n        return " + " + ".join(["i"] * 900) + "\n",
    "powers": "\n        return " + " ** ".join(["i"] * 600) + "\n",
    "long chain": "\n        return i" + ".a()" * 400 + "\n",
}


@pytest.mark.parametrize("body", HARD.values(), ids=HARD.keys())
def test_hard_code_is_followed_or_given_up(body: str) -> None:
    source = SEQUENCE + body
    linted = lint_source(source, "hard.py")
    check(linted, len(source.splitlines()))
    assert linted.classes >= 1


def test_code_that_is_too_deep_is_told_and_the_rest_is_looked_at() -> None:
    linted = lint_source(SEQUENCE + HARD["powers"] + "    def __len__(self):\n        return 0\n", "deep.py")
    assert {finding.code for finding in linted.findings} == {"SEQ000", "SEQ503"}


def test_the_recursion_limit_stays_as_it_was() -> None:
    before = sys.getrecursionlimit()
    lint_source(SEQUENCE + HARD["powers"])
    assert sys.getrecursionlimit() == before


def test_import_cycles(tmp_path: Path) -> None:
    modules = {
        "a.py": "from b import *\nfrom b import B\nclass A(B):\n    def __getitem__(self, i): return f(i)\n",
        "b.py": "from a import *\nimport keras\nfrom c import f\nclass B(keras.utils.PyDataset): pass\n",
        "c.py": "from a import A\nfrom b import f as g\ndef f(i): print(i)\n",
    }
    for name, text in modules.items():
        (tmp_path / name).write_text(text)
    found = [(Path(f.path or "").name, f.code) for f in lint_paths([tmp_path]).findings]
    assert found == [("a.py", "SEQ501"), ("c.py", "SEQ308")]


def test_a_file_of_twenty_thousand_lines() -> None:
    one = """
class S{k}(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x, self.n = x, 0

    def __getitem__(self, i):
        self.n += {k}
        return self.load(i, self.n)

    def load(self, i, n):
        rows = [self.x[j] for j in range(n)]
        return rows[i]
"""
    source = "import keras\n" + "".join(one.replace("{k}", str(k)) for k in range(1540))
    assert source.count("\n") > 20_000
    linted = lint_source(source, "long.py")
    assert [finding.code for finding in linted.findings] == ["SEQ205"] * 1540

"""`--fix`: what it changes, what it leaves alone, and that what it has changed runs and lints clean."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_mpseq import MpseqError
from keras_mpseq.lint import lint_paths
from keras_mpseq.lint.fix import Fixed, fix_paths
from keras_mpseq.lint.fix_draws import FORMS
from keras_mpseq.rules import RULES

CASES = Path(__file__).parent / "lint_cases"
FIXED = {"SEQ401", "SEQ402", "SEQ505", "SEQ506"}
"""Codes of which findings can be fixed."""

EVERYTHING = '''\
"""Images and noise."""  # first of all

import random

import numpy as np
from tensorflow.keras.utils import Sequence


class Noisy(Sequence):  # mine
    """Images with noise."""

    def __init__(
        self,
        x,  # the data
        low=-1,  # of the noise, é
    ):
        # Keep it.
        self.x, self.low = x, low

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        """Return one."""
        noise = np.random.rand(2, *self.x.shape[1:]).astype("f4")  # of two
        é = np.random.normal(  # around 0
            scale=np.random.uniform(self.low, 1) ** 2,
            size=self.x.shape[1:],
        )
        side = random.choice([1, -1])
        return np.concatenate([self.x[index : index + 1], noise, é[None]])[::side]


def train(model):
    data = Noisy(
        np.zeros((4, 3)),
        low=0,
    )
    model.fit(
        data,
        epochs=2,  # for a start
        workers=2,
        use_multiprocessing=True,
    )
    return model.evaluate(Noisy(np.zeros((4, 3))), steps=2, workers=3), data
'''
AFTER = '''\
"""Images and noise."""  # first of all

import random

import numpy as np
from keras_mpseq import SafeSequence


class Noisy(SafeSequence):  # mine
    """Images with noise."""

    def __init__(
        self,
        x,  # the data
        low=-1,  # of the noise, é
        **kwargs,
    ):
        super().__init__(**kwargs)
        # Keep it.
        self.x, self.low = x, low

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        """Return one."""
        rng = self.rng(index)
        noise = rng.random((2, *self.x.shape[1:])).astype("f4")  # of two
        é = rng.normal(  # around 0
            scale=rng.uniform(self.low, 1) ** 2,
            size=self.x.shape[1:],
        )
        side = [1, -1][rng.integers(2)]
        return np.concatenate([self.x[index : index + 1], noise, é[None]])[::side]


def train(model):
    data = Noisy(
        np.zeros((4, 3)),
        low=0,
        workers=2,
        use_multiprocessing=True,
    )
    model.fit(
        data,
        epochs=2,  # for a start
    )
    return model.evaluate(Noisy(np.zeros((4, 3)), workers=3), steps=2), data
'''


def fixed(folder: Path, *, diff: bool = False) -> list[Fixed]:
    return fix_paths(sorted(folder.rglob("*.py")), diff=diff)


def after(folder: Path, source: str) -> str:
    """Return what becomes of a file; fixing it again changes nothing."""
    (folder / "data.py").write_text(source)
    fixed(folder)
    text = (folder / "data.py").read_text()
    assert fixed(folder) == []
    return text


def codes(folder: Path) -> set[str]:
    return {finding.code for finding in lint_paths([folder], preview=True).findings}


def run(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "fixed_module"}
    exec(compile(source, "fixed_module.py", "exec"), namespace)
    return namespace


class Model:
    """What `train` is given: notes the sequences and the other arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def fit(self, data: Any, **options: Any) -> Any:
        self.calls.append((data, options))
        return data

    evaluate = fit


# --- what is changed --------------------------------------------------------------------------------


def test_everything_at_once(tmp_path: Path) -> None:
    assert after(tmp_path, EVERYTHING) == AFTER
    assert not codes(tmp_path) & FIXED


def test_what_was_done_is_told_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "data.py"
    file.write_text(EVERYTHING)
    (shown,) = fixed(tmp_path, diff=True)
    assert file.read_text() == EVERYTHING
    (done,) = fixed(tmp_path)
    assert shown == done
    assert done.applied == (
        "Noisy.__init__ calls super().__init__(**kwargs)",
        "workers and use_multiprocessing of fit() are given to Noisy",
        "workers of evaluate() is given to Noisy",
        "Noisy derives from SafeSequence",
        "Noisy.__getitem__ draws from self.rng(index) (4 times)",
    )
    lines = done.diff_text.splitlines()
    assert lines[:2] == [f"--- a{file}", f"+++ b{file}"]
    assert "-class Noisy(Sequence):  # mine" in lines and "+class Noisy(SafeSequence):  # mine" in lines


def test_what_is_fixed_runs_and_gives_the_same_shapes(tmp_path: Path) -> None:
    before, now = run(EVERYTHING), run(after(tmp_path, EVERYTHING))
    x = np.ones((3, 5), np.float32)
    first, second = before["Noisy"](x, low=0), now["Noisy"](x, low=0)
    assert [b.shape for b in first] == [b.shape for b in second] == [(4, 5)] * 3
    np.testing.assert_array_equal(second[1], second[1])
    model = Model()
    evaluated, data = now["train"](model)
    assert (data.workers, data.use_multiprocessing, evaluated.workers) == (2, True, 3)
    assert [options for _, options in model.calls] == [{"epochs": 2}, {"steps": 2}]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "data.py").write_text(EVERYTHING)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(MpseqError, match=r"data\.py cannot be written: Permission denied\. Make it writable\.$"):
        fixed(tmp_path)


def test_an_import_stays_while_another_file_takes_its_name_from_here(tmp_path: Path) -> None:
    source = EVERYTHING.replace("import Sequence\n", "import (\n    Sequence,\n    to_categorical,\n)\n")
    (tmp_path / "other.py").write_text("from data import (\n    Noisy,\n)\n")
    assert "import (\n    to_categorical,\n)\nfrom keras_mpseq import SafeSequence\n" in after(tmp_path, source)
    (tmp_path / "other.py").write_text("from data import (\n    Sequence,\n)\n")
    assert "import (\n    Sequence,\n    to_categorical,\n)\nfrom keras_mpseq" in after(tmp_path, source)
    mentioned = source + "\n\ndef f(data: Sequence): ...\n"
    assert "    Sequence,\n" in after(tmp_path, mentioned)


def test_a_project_is_changed_as_one(tmp_path: Path) -> None:
    (tmp_path / "root.py").write_text(
        "try:\n    from keras.utils import PyDataset as Parent\nexcept ImportError:\n    Parent = object\n\n\n"
        "class Root(Parent):\n    def __init__(self, x):\n        super().__init__()\n        self.x = x\n\n"
        "    def __getitem__(self, i):\n        return self.load(i)\n"
    )
    (tmp_path / "data.py").write_text(
        "import numpy as np\nfrom root import Root\n\n\nclass Data(Root):\n    def __len__(self):\n        return 2\n\n"
        "    def __getitem__(self, i):\n        return super().__getitem__(i) * np.random.randint(3)\n\n"
        "    def load(self, i):\n        return self.x[i]\n"
    )
    (tmp_path / "train.py").write_text(
        "import keras\nimport data\n\n\ndef train(model: keras.Model):\n    seq = data.Data(3)\n"
        "    model.fit(seq, max_queue_size=4)\n"
    )
    fixed(tmp_path)
    root, data, train = ((tmp_path / f"{name}.py").read_text() for name in ("root", "data", "train"))
    assert "class Root(SafeSequence):\n    def __init__(self, x, **kwargs):\n        super().__init__(**kwargs)" in root
    assert root.startswith("from keras_mpseq import SafeSequence\ntry:\n")
    assert "        rng = self.rng(i)\n        return super().__getitem__(i) * rng.integers(3)\n" in data
    assert "import SafeSequence" not in data
    assert "    seq = data.Data(3, max_queue_size=4)\n    model.fit(seq)\n" in train
    assert not codes(tmp_path) & FIXED and fixed(tmp_path) == []


def test_bases_in_every_spelling(tmp_path: Path) -> None:
    name, lines = "bases.py", []
    for line in [*(CASES / "bases.py").read_text().splitlines(), "# file: "]:
        if line.startswith("# file: "):
            (tmp_path / name).write_text("\n".join(lines) + "\n")
            name, lines = line.removeprefix("# file: "), []
            continue
        lines.append(line)
    fixed(tmp_path)
    text = "".join(path.read_text() for path in tmp_path.glob("*.py"))
    assert set(re.findall(r"class (\w+)\(SafeSequence\)", text)) == {"A", "B", "C", "E", "Root", "Starred"}
    assert "class G(collections.abc.Sequence, " in text
    assert fixed(tmp_path) == []


INITS = {
    "(self, x):\n        self.x = x": "(self, x, **kwargs):\n        super().__init__(**kwargs)\n        self.x = x",
    "(self, x,\n                 y=1): self.x = x": (
        "(self, x,\n                 y=1,\n                 **kwargs): super().__init__(**kwargs); self.x = x"
    ),
    '(self, x, *, y: int=1,):\n        "Doc."\n        self.x = x': (
        '(self, x, *, y: int=1, **kwargs):\n        "Doc."\n        super().__init__(**kwargs)\n        self.x = x'
    ),
    "(self, x, *args):\n        self.x = x": (
        "(self, x, *args, **kwargs):\n        super().__init__(**kwargs)\n        self.x = x"
    ),
    "(self, x, **options):\n        self.x = x": (
        "(self, x, **options):\n        super().__init__(**options)\n        self.x = x"
    ),
    "(self, x, **options):\n        self.x, self.more = x, options": (
        "(self, x, **options):\n        super().__init__()\n        self.x, self.more = x, options"
    ),
    "(\n        self,\n        x  # the data\n    ):\n        self.x = x": (
        "(\n        self,\n        x,  # the data\n        **kwargs\n    ):\n        super().__init__(**kwargs)\n"
        "        self.x = x"
    ),
}


@pytest.mark.parametrize(("before", "now"), INITS.items(), ids=range(len(INITS)))
def test_missing_super_init_in_every_layout(tmp_path: Path, before: str, now: str) -> None:
    rest = "\n\n    def __len__(self):\n        return 1\n\n    def __getitem__(self, index):\n        return self.x\n"
    old, new = (f"class A({{}}):\n    def __init__{init}{rest}" for init in (before, now))
    text = after(tmp_path, f"import keras\n\n\n{old.format('keras.utils.PyDataset')}")
    assert text == f"import keras\nfrom keras_mpseq import SafeSequence\n\n\n{new.format('SafeSequence')}"
    assert "SEQ505" not in codes(tmp_path)
    assert run(text)["A"](7)[0] == 7


CALLS = {
    "model.fit_generator(Data(1), n, 2, workers=4)": "model.fit(Data(1, workers=4), steps_per_epoch=n, epochs=2)",
    "model.fit_generator(steps_per_epoch=n, generator=Data(), epochs=2)": (
        "model.fit(steps_per_epoch=n, x=Data(), epochs=2)"
    ),
    "model.predict_generator(Data(), n)": "model.predict(Data(), steps=n)",
    "model.fit(Data(1), workers=n, epochs=2)": "model.fit(Data(1, workers=n), epochs=2)",
    "model.fit(workers=4, x=Data(), epochs=2)": "model.fit(x=Data(workers=4), epochs=2)",
    "model.fit(Data(1,), epochs=2, workers=os.cpu_count() - 1)": (
        "model.fit(Data(1, workers=os.cpu_count() - 1), epochs=2)"
    ),
    "data = Data(1)\n    model.fit(data,\n              max_queue_size=3)": (
        "data = Data(1, max_queue_size=3)\n    model.fit(data)"
    ),
}


@pytest.mark.parametrize(("before", "now"), CALLS.items(), ids=range(len(CALLS)))
def test_arguments_of_fit_move(tmp_path: Path, before: str, now: str) -> None:
    assert after(tmp_path, calling(before)) == calling(now)
    assert "SEQ506" not in codes(tmp_path)


def calling(statements: str) -> str:
    return (
        "import os\n\nfrom keras_mpseq import SafeSequence\n\n\nclass Data(SafeSequence):  # of keras\n"
        "    def __init__(self, n=1, **kwargs):\n        super().__init__(**kwargs)\n        self.n = n\n\n"
        "    def __len__(self):\n        return self.n\n\n    def __getitem__(self, index):\n        return index\n\n\n"
        f"def train(model, n):\n    {statements}\n"
    )


# --- draws ------------------------------------------------------------------------------------------

ARGUMENTS = {
    "bytes": "5",
    "randbytes": "5",
    "choice": "[1, 2, 3]",
    "permutation": "[1, 2, 3]",
    "shuffle": "[1, 2, 3]",
    "rand": "2, *self.shape",
    "randn": "*self.shape",
    "randint": "2, 7",
    "randrange": "7",
    "uniform": "2, 7",
    "multinomial": "5, [0.25, 0.75], size=2",
    "dirichlet": "[1, 2], size=4",
    "multivariate_normal": "[0, 1], [[1, 0], [0, 1]], size=3",
    "hypergeometric": "5, 4, 3, size=2",
    "triangular": "1, 2, 3, size=2",
    "binomial": "5, 0.5, size=2",
    "negative_binomial": "5, 0.5, size=2",
    "geometric": "0.5, size=2",
    "logseries": "0.5, size=2",
    "noncentral_f": "2, 3, 1, size=2",
    "zipf": "2, size=2",
    "betavariate": "1, 2",
    "gammavariate": "1, 2",
    "lognormvariate": "0, 1",
    **dict.fromkeys(
        ("chisquare", "exponential", "pareto", "poisson", "power", "rayleigh", "weibull"), "3, size=(2, 3)"
    ),
    **dict.fromkeys(("standard_gamma", "standard_t"), "3, size=(2, 3)"),
    **dict.fromkeys(("beta", "f", "gamma", "noncentral_chisquare", "vonmises", "wald"), "2, 3, size=[4]"),
    **dict.fromkeys(("standard_cauchy", "standard_exponential", "standard_normal", "random_sample", "ranf"), "size=3"),
}
"""By the last name of the function; others are called without arguments."""


@pytest.mark.parametrize("name", FORMS)
def test_draws_keep_shape_and_type(tmp_path: Path, name: str) -> None:
    written = name.replace("numpy.", "np.")
    call = f"{written}({ARGUMENTS.get(name.rpartition('.')[2], '')})"
    source = drawing(call)
    text = after(tmp_path, source)
    assert call not in text and not codes(tmp_path) & FIXED
    before, now = (run(one)["Data"]()[0] for one in (source, text))
    assert np.shape(before) == np.shape(now) and np.asarray(before).dtype == np.asarray(now).dtype
    if name.startswith("random."):
        assert type(before) is type(now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("np.random.rand()", "rng.random()"),
        ("np.random.rand(3)", "rng.random(3)"),
        ("np.random.rand(2, 3,)", "rng.random((2, 3,))"),
        ("np.random.randn(*self.x.shape)", "rng.standard_normal(self.x.shape)"),
        ("np.random.randn(*self.sizes)", "rng.standard_normal((*self.sizes,))"),
        ("np.random.random_sample((2,))", "rng.random((2,))"),
        ("np.random.randint(3, size=2)", "rng.integers(3, size=2)"),
        ("random.randint(1, 6)", "int(rng.integers(1, 6, endpoint=True))"),
        ("random.randrange(1, 6)", "int(rng.integers(1, 6))"),
        ("random.choice(self.x.names)", "self.x.names[rng.integers(len(self.x.names))]"),
        ('random.choice(("a", "b"))', '("a", "b")[rng.integers(2)]'),
        ("[random.random() for _ in range(3)]", "[rng.random() for _ in range(3)]"),
        ("(lambda: np.random.permutation(3))()", "(lambda: rng.permutation(3))()"),
        ("np.random.normal(np.random.rand(), 1)", "rng.normal(rng.random(), 1)"),
    ],
)
def test_draws_become(tmp_path: Path, before: str, now: str) -> None:
    text = after(tmp_path, drawing(before))
    assert text.endswith(f"        rng = self.rng(index)\n        return {now}\n")


@pytest.mark.parametrize(
    "call",
    [
        "random.sample([1, 2], 1)",
        "random.choices([1, 2])",
        "random.triangular(0, 1, 0.5)",
        "random.randrange(0, 6, 2)",
        "random.uniform(1, -1)",
        "random.choice(list(self.x))",
        "np.random.random_integers(3)",
        "self.helper()",
    ],
)
def test_draws_without_an_exact_counterpart_are_left(tmp_path: Path, call: str) -> None:
    source = drawing(call).replace("keras.utils.PyDataset", "keras_mpseq.SafeSequence")
    source = source.replace("import keras", "import keras_mpseq")
    assert after(tmp_path, source) == source
    assert codes(tmp_path) & FIXED


def test_the_generator_gets_a_free_name_or_is_the_one_that_is_there(tmp_path: Path) -> None:
    taken = drawing("np.random.rand(3)").replace("        return", "        rng = 3\n        return rng *")
    assert "        batch_rng = self.rng(index)\n        rng = 3\n" in after(tmp_path, taken)
    mine = drawing("np.random.rand(3)").replace("        return", "        mine = self.rng(index)\n        return")
    assert after(tmp_path, mine).endswith("mine = self.rng(index)\n        return mine.random(3)\n")


def drawing(call: str) -> str:
    return (
        "import random\n\nimport keras\nimport numpy as np\n\n\nclass Data(keras.utils.PyDataset):\n"
        "    shape = (3, 4)\n\n    def __len__(self):\n        return len(self.shape)\n\n"
        "    def helper(self):\n        return np.random.rand(9)\n\n"
        f"    def __getitem__(self, index):\n        return {call}\n"
    )


# --- what is left alone -----------------------------------------------------------------------------


def test_files_without_hazards_stay_byte_for_byte(tmp_path: Path) -> None:
    sources = [rule.instead() for rule in RULES.values() if rule.instead()]
    sources += [path.read_text() for path in sorted((Path(__file__).parent / "clean").rglob("*.py"))]
    for number, source in enumerate(sources):
        (tmp_path / f"clean_{number}.py").write_text(source)
    (tmp_path / "odd.py").write_bytes(b"\xef\xbb\xbf# \tkeras.utils.Sequence\r\nx = (1 ,\r\n  2)  \r\n\x0c")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert fixed(tmp_path) == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("np.random.rand(3)\n", "np.random.rand(3)  # seq: ignore[SEQ401] known\n"),
        lambda s: s.replace("    shape =", "    epoch = 0\n    shape ="),
        lambda s: s.replace("    shape =", "    def rng(self, n):\n        return n\n\n    shape ="),
        lambda s: s.replace("self.shape)\n", "self.shape)\n\n    def on_epoch_end(self):\n        self.epoch = 1\n", 1),
        lambda s: s.replace(
            "    shape =",
            "    def __init__(self, seed=None):\n        super().__init__()\n        self.seed = seed\n\n    shape =",
        ),
        lambda s: s.replace("import random\n", "import random\nSafeSequence = 1\n"),
        lambda s: s.replace("import random\n", "def f(:\n"),
    ],
)
def test_classes_that_our_base_does_not_suit_are_left(tmp_path: Path, change: Callable[[str], str]) -> None:
    source = drawing("np.random.rand(3)")
    assert after(tmp_path, source) != source
    changed = change(source)
    assert changed != source
    assert after(tmp_path, changed) == changed


@pytest.mark.parametrize(
    "statements",
    [
        "model.fit(data_of(n), workers=4, epochs=2)",
        "model.fit(Data(n, workers=2), workers=4, epochs=2)",
        "model.fit(Data(*n), workers=4, epochs=2)",
        "model.fit(Data(n), workers=4, epochs=2)  # seq: ignore[SEQ506] known",
        "model.fit_generator(Data(), n, 2, 1, [], None, None, 7)",  # Of the version: validation_freq or class_weight.
        "model.fit_generator(Data(), samples_per_epoch=n, nb_epoch=3, callbacks=[])",  # Of Keras 1: n counts samples.
        "model.evaluate_generator(*(Data(), n))",
        "model.fit_generator(Data(), **{'epochs': 2})",
        "data = Data(n)\n    data = data or Data(1)\n    model.fit(data, max_queue_size=4)",
        "data = Data(1)\n    n = 4\n    model.fit(data, max_queue_size=n)",
        "data = Data(1)\n    model.fit(data, max_queue_size=4)\n    model.fit(data, max_queue_size=5)",
        "data = Data(1)\n    model.fit(data, max_queue_size=model.size())",
        "model.fit(\n        Data(1),\n        max_queue_size=3,  # as ever\n    )",
    ],
)
def test_arguments_of_fit_stay_where_their_way_is_not_evident(tmp_path: Path, statements: str) -> None:
    source = calling(statements)
    assert after(tmp_path, source) == source


def test_constructors_that_take_no_such_arguments(tmp_path: Path) -> None:
    refusing = calling("model.fit(Data(1), max_queue_size=3)").replace("(**kwargs)", "(workers=1)")
    assert after(tmp_path, refusing) == refusing
    by_name = calling("model.fit(Data(1), workers=3, epochs=2)").replace("n=1, **kwargs", "n=1, workers=1")
    by_name = by_name.replace("(**kwargs)", "(workers=workers)")
    assert "model.fit(Data(1, workers=3), epochs=2)" in after(tmp_path, by_name)


def test_super_init_is_not_called_where_it_may_need_arguments(tmp_path: Path) -> None:
    source = (
        "import keras\n\nfrom elsewhere import Mixin\n\n\nclass A(Mixin, keras.utils.PyDataset):\n"
        "    def __init__(self, x):\n        self.x = x\n\n    def __len__(self):\n        return 1\n\n"
        "    def __getitem__(self, index):\n        return self.x[index]\n"
    )
    assert "super()" not in after(tmp_path, source)


# --- encodings, and whatever comes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "end", "begin"), [("utf-8-sig", "\r\n", ""), ("latin-1", "\n", "# coding: latin-1\n")]
)
def test_encoding_and_line_ends_stay(tmp_path: Path, encoding: str, end: str, begin: str) -> None:
    file = tmp_path / "data.py"
    before, now = ((begin + source).replace("\n", end).encode(encoding) for source in (EVERYTHING, AFTER))
    file.write_bytes(before)
    (shown,) = fixed(tmp_path)
    assert file.read_bytes() == now
    assert "é" in shown.diff_text


def test_every_page_and_eval_file_parses_after_fixing_and_is_done_at_once(tmp_path: Path) -> None:
    sources = [rule.example() for rule in RULES.values() if rule.example()]
    for case in sorted(CASES.glob("*.py")):
        sources += case.read_text().split("# file: ")[:1]
    count = itertools.count()
    for source in sources:
        (tmp_path / f"m{next(count)}.py").write_text(source)
    before = lint_paths([tmp_path], preview=True).findings
    done = fixed(tmp_path)
    assert len(done) > 5
    for one in done:
        ast.parse(Path(one.path).read_text())
    left = lint_paths([tmp_path], preview=True).findings
    assert fixed(tmp_path) == []
    # Nothing new, and less of what can be fixed.
    assert {f.code for f in left} <= {f.code for f in before}
    for code in FIXED:
        assert sum(f.code == code for f in left) < sum(f.code == code for f in before), code

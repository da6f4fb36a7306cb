"""Write docs/reference/ from the signatures and docstrings of what `keras_mpseq.__all__` lists, rules and commands.

    python docs/generate.py            writes the pages
    python docs/generate.py --check    names those that are not current, and exits with 1

A docstring is Markdown already, but for its sections (`Args:` and the like), which become headings and lists, and for
its line breaks: on a page stands a sentence a line.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import validator_pages

import keras_mpseq
from keras_mpseq.checks import Report
from keras_mpseq.codec import RaggedValue, SparseValue
from keras_mpseq.errors import MpseqError
from keras_mpseq.findings import Finding, Step
from keras_mpseq.local import WorkerInfo
from keras_mpseq.profiling.profile import Profile
from keras_mpseq.run import Stats

FOLDER = Path(__file__).resolve().parent / "reference"
_FAULTS = "faults.md"
"""Written by `python -m tests.faults --write`."""
_WIDTH = 100
_NOTE = "<!-- Written by docs/generate.py from the docstrings; change those. -->"
_SPOKEN = ("__iter__", "__len__")
"""Magic methods that a user calls without knowing it."""
_SECTION = re.compile(r"^(Args|Returns|Raises|Example):$", re.MULTILINE)
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+): ", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z0-9`])")
_HEADINGS = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises", "Example": "Example"}


class Page(NamedTuple):
    """One page: its file, its title, and what stands on it."""

    file: str
    title: str
    intro: str
    names: tuple[str, ...] = ()
    """Of `keras_mpseq.__all__`."""
    others: tuple[type, ...] = ()
    """Classes that users receive and need not import."""
    setup: str = ""
    """What the examples on the page take for granted: run by the tests, not shown."""


PAGES = (
    Page(
        "sequence.md",
        "Sequences",
        "What you write: the class that builds batches, and what its workers open.",
        ("SafeSequence", "BatchedSequence", "per_worker", "get_worker_info"),
        (WorkerInfo,),
        setup="import h5py\nimport numpy as np\nfrom keras_mpseq import BatchedSequence, SafeSequence, per_worker",
    ),
    Page(
        "pipeline.md",
        "Pipelines",
        "What you iterate: batches as a `tf.data.Dataset`, or in NumPy.",
        ("to_dataset", "generator_dataset", "process_map", "Loader", "RayOptions"),
        (Stats, Profile, RaggedValue, SparseValue),
        setup="import keras_mpseq\nimport numpy as np\nimport tensorflow as tf\nfrom keras_mpseq import Loader\n\n"
        "sequence = [(np.zeros((2, 3)), np.zeros(2))] * 4\ntrain = print",
    ),
    Page(
        "keras.md",
        "Keras",
        "What stands between a sequence and `fit` where the class cannot be edited, and what watches them.",
        ("fit", "install", "uninstall", "PipelineMonitor", "ResumeData"),
        setup="import keras\nimport numpy as np\nfrom keras_mpseq import PipelineMonitor, ResumeData, SafeSequence\n\n"
        "\n"
        "class Zeros(SafeSequence):\n    def __len__(self):\n        return 4\n\n"
        "    def __getitem__(self, index):\n        return np.zeros((2, 3)), np.zeros((2, 1))\n\n\n"
        'sequence = Zeros()\nmodel = keras.Sequential([keras.layers.Dense(1)])\nmodel.compile(loss="mse")',
    ),
    Page(
        "check.md",
        "Check",
        "What proves that a sequence is safe in several processes, or where it is not; "
        "the [rules](rules/index.md) are on pages of their own.",
        ("check",),
        (Report, Finding, Step),
        setup="import numpy as np\nfrom keras_mpseq import SafeSequence, check\n\n\n"
        "class Zeros(SafeSequence):\n    def __len__(self):\n        return 4\n\n"
        "    def __getitem__(self, index):\n        return np.full((2, 3), index, np.float32)\n\n\n"
        "sequence = Zeros()",
    ),
    Page(
        "errors.md",
        "Errors",
        "What can go wrong, as a class for each. Every error pickles, and has the fields of `MpseqError`.",
        tuple(name for name in keras_mpseq.__all__ if name.endswith("Error")),
    ),
)


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    written = {page.file: "\n".join(_page(page)).rstrip() + "\n" for page in PAGES}
    written["index.md"] = "\n".join(_index()).rstrip() + "\n"
    return written | validator_pages.pages()


def _index() -> Iterator[str]:
    yield from ("# Reference", "", _NOTE, "", "Everything that `keras_mpseq` exports.", "")
    yield from ("| name | what |", "|---|---|")
    for page in PAGES:
        for name in page.names:
            first = _parts(getattr(keras_mpseq, name))[0].partition("\n")[0]
            yield f"| [`{name}`]({page.file}#{name.lower()}) | {first} |"
    yield from ("", "Besides: [the commands](commands.md) and [the rules](rules/index.md) of the validator.")
    yield f"[Faults]({_FAULTS}): what comes of everything that can go wrong, through each entry point."


def _page(page: Page) -> Iterator[str]:
    yield from (f"# {page.title}", "", _NOTE, "", page.intro, "")
    if page.setup:
        yield from ("<!-- setup", page.setup, "-->", "")
    for name in page.names:
        yield from _public(name, getattr(keras_mpseq, name))
    for kind in page.others:
        yield from _record(kind)


def _public(name: str, value: Any) -> Iterator[str]:
    yield from (f"## {name}", "")
    if isinstance(value, type) and issubclass(value, MpseqError):
        yield from (f"Base: {_code(value.__bases__[0])}.", "")
        if "__init__" in vars(value):
            yield from ("```text", _signature(name, vars(value)["__init__"]), "```", "")
        yield from _docstring(value)
    elif isinstance(value, type):
        yield from ("```text", f"class {_signature(name, vars(value)['__init__'])}", "```", "")
        yield from _docstring(value)
        for member, found in vars(value).items():
            if (
                inspect.getdoc(found)
                and (not member.startswith("_") or member in _SPOKEN)
                and not _keras_calls(value, member)
            ):
                yield from _member(name, member, found)
    else:
        yield from ("```text", _signature(name, value), "```", "")
        yield from _docstring(value)


def _keras_calls(owner: type, member: str) -> bool:
    """Tell whether *member* is a hook that a callback has for Keras to call: users neither call nor override it."""
    return issubclass(owner, keras.callbacks.Callback) and hasattr(keras.callbacks.Callback, member)


def _member(owner: str, name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        yield from (f"### {owner}.{name}", "")
        yield from _docstring(value)
    elif inspect.isfunction(value):
        yield from (f"### {owner}.{name}", "", "```text", _signature(name, value), "```", "")
        yield from _docstring(value)


def _record(kind: type) -> Iterator[str]:
    """Yield a class of fields; what stands below a field in the source is its description."""
    yield from (f"## {kind.__name__}", "")
    yield from _docstring(kind)
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = ": " + " ".join(str(below.value.value).split())
            yield f"* `{ast.unparse(field.target)}` ({_code(ast.unparse(field.annotation))}){text}"
    yield ""
    for member, found in vars(kind).items():
        if inspect.getdoc(found) and not member.startswith("_"):
            yield from _member(kind.__name__, member, found)


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Return the signature as it would be called, one argument a line where it is long."""
    signature = inspect.signature(function)
    shown: list[str] = []
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {_shown(parameter.default)}"
        shown.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    result = "" if signature.return_annotation in ("None", signature.empty) else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(shown)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{name}(", *[f"    {one}," for one in shown], f"){result}"])


def _shown(default: object) -> str:
    if isinstance(default, type) and default.__module__ == "numpy":
        return f"np.{default.__name__}"
    return json.dumps(default) if isinstance(default, str) else repr(default)


def _parts(value: Any) -> list[str]:
    """Return the docstring cut at its sections: the text, then name and body of each section."""
    return [part.strip("\n") for part in _SECTION.split(inspect.getdoc(value) or "")]


def _docstring(value: Any) -> Iterator[str]:
    text, *rest = _parts(value)
    for paragraph in text.split("\n\n"):
        yield from (*_sentences(paragraph), "")
    for section, body in zip(rest[::2], rest[1::2], strict=True):
        body = textwrap.dedent(body)
        yield from (f"**{_HEADINGS[section]}**", "")
        if section in ("Args", "Raises"):
            yield from _entries(body)
        elif section == "Example":
            yield from body.split("\n")
        else:
            yield from _sentences(body)
        yield ""


def _entries(body: str) -> Iterator[str]:
    _, *rest = _ENTRY.split(body)
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        first, *more = _sentences(text)
        yield f"* `{name}`: {first}"
        yield from (f"  {sentence}" for sentence in more)


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(" ".join(text.split()))


def _code(kind: type | str) -> str:
    return f"`{kind if isinstance(kind, str) else kind.__name__}`"


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check compare them; return the exit code."""
    written = pages()
    found = {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.md")}
    found.pop(_FAULTS, None)
    if arguments == ["--check"]:
        stale = sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name))
        if stale:
            print(f"Not current in docs/reference: {', '.join(stale)}. Run python docs/generate.py.")
        return bool(stale)
    if arguments:
        print(f"generate.py takes --check or nothing, got {' '.join(arguments)}.")
        return 2
    for name in found.keys() - written.keys():
        (FOLDER / name).unlink()
    for name, text in written.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

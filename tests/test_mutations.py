"""Clean sequences stay without a finding; with a hazard, wherever it stands, they have that finding.

The hazards are those of `tests/hazards.py`, the places those of `tests/mutants.py`. Of several forms of a hazard each
class and place gets another one, so that all classes together have them all. `check` takes as long as a process does:
it is shown what the source cannot show, and some of the rest.
"""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from keras_mpseq import check
from keras_mpseq.findings import Finding
from keras_mpseq.lint import lint_paths
from keras_mpseq.rules import RULES
from tests.further_hazards import FURTHER
from tests.hazards import HAZARDS, Hazard
from tests.mutants import CLEAN, Mutant, places, sequences

FOUND = 0.95
"""The share of all mutants that must be found."""
FORMS: dict[str, list[Hazard]] = defaultdict(list)
for hazard in (*HAZARDS, *FURTHER):
    FORMS[hazard.code].append(hazard)


def written(folder: Path, texts: dict[str, str]) -> Path:
    """Write a project, in the place of the one before it."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.py"):
        path.unlink()
    for name, text in {"__init__": "", **texts}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def chosen(number: int) -> Iterator[tuple[Hazard, str]]:
    """Yield every hazard in every place, in another form for each class."""
    for forms in FORMS.values():
        for at, place in enumerate(places(forms[0])):
            # Primes that divide no number of forms, so that in the end all have been in all places.
            yield forms[(19 * number + 23 * at) % len(forms)], place


# --- by its source ----------------------------------------------------------------------------------


def test_nothing_is_found_in_the_source_of_clean_sequences() -> None:
    linted = lint_paths([CLEAN], preview=True)
    assert [f"{f.path}:{f.line} {f.code} {f.message}" for f in linted.findings] == []
    assert linted.classes >= len(sequences()) >= 15


def test_all_core_rules_have_hazards() -> None:
    core = {code for code, rule in RULES.items() if rule.core}
    assert len(core) == 33
    assert core <= FORMS.keys()


def test_every_form_is_put_into_some_class() -> None:
    seen = {form for number in range(len(sequences())) for form, _ in chosen(number)}
    assert seen == {*HAZARDS, *FURTHER}


def test_hazards_are_found_wherever_they_stand(tmp_path: Path) -> None:
    missed, count = [], 0
    for number, name in enumerate(sequences()):
        for hazard, place in chosen(number):
            findings = lint_paths([written(tmp_path / "mutant", Mutant(name, place, hazard).texts())]).findings
            count += 1
            if hazard.code not in {finding.code for finding in findings}:
                missed.append(f"{hazard.code}  {place:6} {name:14} {hazard.text or hazard.where!r}")
    share = 1 - len(missed) / count
    table = "\n".join(sorted(missed))
    print(f"{count - len(missed)} of {count} mutants found ({share:.1%}); missed:\n{table or 'none'}")
    assert share >= FOUND, table


# --- by what it does --------------------------------------------------------------------------------


def worse(findings: list[Finding]) -> list[str]:
    return [f"{f.path}:{f.line} {f.code} {f.message}" for f in findings if f.severity != "info"]


@pytest.mark.parametrize("module", sequences().values())
def test_nothing_is_found_in_what_clean_sequences_do(module: str, tmp_path: Path) -> None:
    if module == "hdf5":
        pytest.importorskip("h5py")
    made = importlib.import_module(f"tests.clean.{module}").make(tmp_path)
    report = check(made)
    assert worse(report.findings) == [], str(report)
    assert report.unverified == []


SWALLOWS = Hazard("SEQ508", "batch", "try:\n    return [BATCH][INDEX]\nexcept Exception:\n    return None")
DONE = [
    (
        "Windows",
        "class",
        Hazard("SEQ409", "batch", "S.row = (S.row * 31 + INDEX) % 7\nreturn BATCH, S.row", "S.row = 1"),
    ),
    ("Rotated", "base", Hazard("SEQ502", "batch", "return BATCH if INDEX else (BATCH, BATCH)")),
    ("Table", "other", Hazard("SEQ503", "length", "LENGTH + 3")),
    ("Buckets", "other", Hazard("SEQ205", "worker", "vars(S)[''.join(['ser', 'ved'])] = INDEX", "S.served = 0")),
    ("Points", "base", FORMS["SEQ401"][0]),
    ("Pairs", "other", FORMS["SEQ402"][0]),
    ("AudioClips", "class", FORMS["SEQ102"][0]),
    ("Segments", "base", FORMS["SEQ207"][0]),
    ("TextLines", "other", SWALLOWS),
    ("Augmented", "base", FORMS["SEQ202"][0]),
]


@pytest.mark.parametrize(("name", "place", "hazard"), DONE, ids=[f"{h.code}-{place}-{n}" for n, place, h in DONE])
def test_hazards_are_found_when_they_happen(
    name: str, place: str, hazard: Hazard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"mutant_{name.lower()}"
    written(tmp_path / package, Mutant(name, place, hazard).texts())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        report = check(importlib.import_module(f"{package}.{sequences()[name]}").make(tmp_path))
    finally:
        for module in [one for one in sys.modules if one.partition(".")[0] == package]:
            del sys.modules[module]
    assert hazard.code in {finding.code for finding in report.findings}, str(report)

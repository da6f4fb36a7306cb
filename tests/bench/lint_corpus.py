"""How often the static engine is right, on code that was not written for it.

From the root of the repository: `python -m tests.bench.lint_corpus [--folder FOLDER]`.

Source distributions of public packages are downloaded into a temporary folder, or into FOLDER, where they are kept,
and looked at as one project. Every finding is compared with `lint_corpus.toml`, in which somebody who read the code
says whether it is true, and why. A finding that nobody judged, and a judgement whose finding is gone, end the run
with exit code 1, so that the figures always belong to the engine at hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from keras_mpseq.findings import SEVERITIES, Finding
from keras_mpseq.lint import lint_paths

JUDGEMENTS = Path(__file__).with_suffix(".toml")
_DOWNLOAD_S = 300


class Place(NamedTuple):
    """Where a finding stands, whatever folder the package lies in."""

    file: str
    line: int
    code: str


def main() -> int:
    """Download, look, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where packages are, or are put; else a temporary folder")
    chosen = parser.parse_args().folder
    judged = tomllib.loads(JUDGEMENTS.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for package in judged["packages"]:
            unpack(package, folder)
        started = time.process_time()
        linted = lint_paths([folder], preview=True)
        spent = time.process_time() - started
        lines = sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.py"))
    print(f"{linted.files} files, {lines} lines, {linted.classes} sequence classes, {spent:.1f} s of processor time")
    print(f"{len(linted.unresolved)} calls could not be followed")
    return compare(linted.findings, judged, folder)


def unpack(package: str, folder: Path) -> None:
    """Put a source distribution, named as `name==version`, into a folder, unless it is there."""
    name, version = package.split("==")
    if list(folder.glob(f"{name.replace('-', '?')}-{version}")):
        return
    # --ignore-requires-python: nothing is installed or run, and old packages are what we want to read.
    options = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--ignore-requires-python"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", str(folder), package]
    subprocess.run(command, check=True, timeout=_DOWNLOAD_S)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()


def place_of(finding: Finding, folder: Path) -> Place:
    """Return where a finding stands, from the package's own folder."""
    return Place(Path(finding.path or "").relative_to(folder).as_posix(), finding.line or 0, finding.code)


def compare(findings: list[Finding], judged: dict[str, Any], folder: Path) -> int:
    """Print precision by severity, and what has no judgement or no finding."""
    verdicts = {Place(e["file"], e["line"], e["code"]): e["true"] for e in judged["finding"]}
    missed = len(judged.get("missed", []))
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    unjudged = []
    for finding in findings:
        place = place_of(finding, folder)
        if place not in verdicts:
            unjudged.append(f"{place.file}:{place.line} {place.code} {finding.severity}: {finding.message}")
            continue
        total[finding.severity] += 1
        right[finding.severity] += verdicts[place]
    for severity in (*SEVERITIES, "all"):
        hits, shots = (right.total(), total.total()) if severity == "all" else (right[severity], total[severity])
        print(f"{severity:8} {hits} of {shots} true, precision {hits / shots:.3f}" if shots else f"{severity:8} none")
    print(f"recall   {right.total() / (right.total() + missed):.3f} of the hazards known in these packages")
    gone = sorted(verdicts.keys() - {place_of(finding, folder) for finding in findings})
    for line in unjudged:
        print(f"not judged: {line}")
    for place in gone:
        print(f"no longer found: {place.file}:{place.line} {place.code}")
    return 1 if unjudged or gone else 0


if __name__ == "__main__":
    sys.exit(main())

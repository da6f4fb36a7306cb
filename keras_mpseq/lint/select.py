"""From all that the engine found to what is told: selection, suppressions, patterns of paths, baseline."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_mpseq.findings import SEVERITIES, Finding
from keras_mpseq.lint import baseline, suppressions
from keras_mpseq.lint.config import Config
from keras_mpseq.reporting import Sources, by_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What is left to tell.

    Args:
        findings: In the order of their places.
        suppressed: How many a comment has suppressed.
        known: How many the baseline has.
    """

    findings: list[Finding]
    suppressed: int = 0
    known: int = 0


def select(findings: Sequence[Finding], files: Sequence[str], config: Config, sources: Sources) -> Selected:
    """Return what of *findings* is told under *config*.

    Args:
        findings: All that the engine found.
        files: That were read: their comments are looked at also where nothing was found.
        config: What is wanted.
        sources: Text of the files.
    """
    comments = {
        path: suppressions.read(path, sources.text(path), require_reason=config.require_reason)
        for path in dict.fromkeys([*files, *(finding.path for finding in findings if finding.path)])
    }
    left = [finding for finding in findings if finding.path is None or not comments[finding.path].cover(finding)]
    suppressed = len(findings) - len(left)
    for found in comments.values():
        # A finding about a comment may itself be suppressed, as any other.
        about = (*found.wrong, *found.unused(config.select))
        left += [finding for finding in about if not found.cover(finding)]
    told = [_graded(finding, config) for finding in left if _wanted(finding, config)]
    told.sort(key=by_place)
    if config.baseline is None:
        return Selected(findings=told, suppressed=suppressed)
    new = baseline.unknown(config.baseline, baseline.read(config.baseline), told, sources)
    return Selected(findings=new, suppressed=suppressed, known=len(told) - len(new))


def uncovered(findings: Iterable[Finding], sources: Sources) -> list[Finding]:
    """Return those *findings* that no comment suppresses, whoever found them."""
    comments: dict[str, suppressions.Suppressions] = {}
    left = []
    for finding in findings:
        if finding.path is not None and finding.path not in comments:
            comments[finding.path] = suppressions.read(finding.path, sources.text(finding.path))
        if finding.path is None or not comments[finding.path].cover(finding):
            left.append(finding)
    return left


def failing(findings: Sequence[Finding], level: str) -> bool:
    """Tell whether any finding is as severe as *level*, or more."""
    least = SEVERITIES.index(level)
    return any(SEVERITIES.index(finding.severity) <= least for finding in findings)


def matches(path: str, pattern: str, root: Path) -> bool:
    """Tell whether *pattern* names *path*: the file, its folder, or any folder above, from *root* or by bare name."""
    relative = Path(os.path.relpath(Path(path).resolve(), root.resolve())).as_posix()
    parts = relative.split("/")
    heads = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    names = heads if "/" in pattern.rstrip("/") else [*heads, *parts]
    return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in names)


def _wanted(finding: Finding, config: Config) -> bool:
    return finding.code in config.select and not is_ignored_there(finding, config)


def is_ignored_there(finding: Finding, config: Config) -> bool:
    """Tell whether `per-file-ignores` names the finding's file and code."""
    path = finding.path
    return path is not None and any(
        finding.code in codes and matches(path, pattern, config.root) for pattern, codes in config.per_file_ignores
    )


def _graded(finding: Finding, config: Config) -> Finding:
    """Return the finding with the severity that it has under *config*."""
    # A forked worker has the class already, and need not find it by its name.
    if finding.code == "SEQ103" and config.start_method == "fork" and finding.severity == "error":
        return dataclasses.replace(finding, severity="warning")
    return finding

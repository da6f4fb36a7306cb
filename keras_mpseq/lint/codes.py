"""Which rules a selection means: `SEQ205`, `stateful-getitem`, `SEQ2`, `ALL`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from keras_mpseq.errors import MpseqError
from keras_mpseq.rules import RULES

ALL = "ALL"
_OWN = "SEQ0"
"""Rules about the linter's own work."""


def codes_of(
    select: Iterable[str] | None, extend: Iterable[str] = (), ignore: Iterable[str] = (), *, preview: bool = False
) -> frozenset[str]:
    """Return the codes that selectors mean; the longest selector that a code matches decides.

    Preview rules are taken with *preview*, and where the whole code or the name is selected. Rules about the linter's
    own work are taken unless they are ignored.

    Args:
        select: What to look for; None means everything.
        extend: What to look for besides.
        ignore: What not to look for.
        preview: Take rules that are on trial.

    Raises:
        MpseqError: A selector means no rule.
    """
    wanted = [_OWN, *([ALL] if select is None else several(select)), *extend]
    refused = list(several(ignore))
    matching([*wanted, *refused])
    taken = set()
    for code, rule in RULES.items():
        trial = not rule.stable and not preview and not {rule.code, rule.name} & set(wanted)
        if not trial and _weight(wanted, code) > _weight(refused, code):
            taken.add(code)
    return frozenset(taken)


def matching(selectors: Iterable[str]) -> frozenset[str]:
    """Return all codes that any of *selectors* means.

    Raises:
        MpseqError: A selector means no rule.
    """
    found: set[str] = set()
    for selector in several(selectors):
        meant = {code for code in RULES if _weight([selector], code) >= 0}
        if not meant:
            raise MpseqError(
                f"There is no rule {selector!r}{nearest(selector, [*RULES, *(rule.name for rule in RULES.values())])}",
                remedy="`keras-mpseq rules` lists all; SEQ2 means those that begin with it, ALL means all.",
            )
        found |= meant
    return frozenset(found)


def several(selectors: Iterable[str]) -> Iterable[str]:
    """Return selectors as they are; of one alone, which is easily written without a list, a list."""
    return [selectors] if isinstance(selectors, str) else selectors


def _weight(selectors: Iterable[str], code: str) -> int:
    """Return how exactly *selectors* name a code: characters of the longest that does, -1 if none does."""
    weights = [-1]
    for selector in selectors:
        if selector == ALL:
            weights.append(0)
        elif selector == RULES[code].name:
            weights.append(len(code))
        elif selector.startswith("SEQ") and code.startswith(selector):
            weights.append(len(selector))
    return max(weights)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a clause that names the nearest of *words*; empty if none is near."""
    # Two of three characters, the default, are what any two codes have in common.
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.8)
    return f"; the nearest is {near[0]!r}" if near else ""

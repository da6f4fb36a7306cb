"""The table says what the figures say."""

import dataclasses

from tests.bench.claims import GROUPS, Claim, claims
from tests.bench.report import COLUMNS, markdown, row
from tests.bench.running import Outcome, Run

OURS, THEIRS = Run("ours", "tiny"), Run("keras", "tiny")
FASTER = Claim("tiny", "1 KB", OURS, THEIRS, "times faster", 3.0)


def outcomes(ours, theirs):
    return {OURS: [Outcome(value) for value in ours], THEIRS: [Outcome(value) for value in theirs]}


def test_medians_are_compared():
    found = row(FASTER, outcomes([0.001, 0.009, 0.002], [0.008, 0.001, 0.010]))
    assert found == ("1 KB", "2 ms", "Keras, 2 processes: 8 ms", "4.00x", "≥ 3x", "yes")


def test_a_ratio_that_is_too_small_is_not_met():
    assert row(FASTER, outcomes([0.001], [0.002]))[3:] == ("2.00x", "≥ 3x", "no")


def test_at_most_so_many_times():
    claim = dataclasses.replace(FASTER, kind="times the time")
    assert row(claim, outcomes([0.004], [0.002]))[3:] == ("2.00x", "≤ 3x", "yes")
    assert row(claim, outcomes([0.008], [0.002]))[3:] == ("4.00x", "≤ 3x", "no")


def test_a_share_of_their_speed():
    claim = dataclasses.replace(FASTER, kind="share", required=0.93)
    assert row(claim, outcomes([0.010], [0.0095]))[3:] == ("95%", "≥ 93%", "yes")
    assert row(claim, outcomes([0.010], [0.0090]))[3:] == ("90%", "≥ 93%", "no")


def test_a_limit_in_the_unit_of_the_row():
    claim = Claim("memory", "memory", OURS, 15.0, "limit", 1.0, "MB")
    assert row(claim, {OURS: [Outcome(12.0)]}) == ("memory", "12 MB", "limit", "0.80x", "≤ 15 MB", "yes")
    assert row(claim, {OURS: [Outcome(30.0)]}).met == "no"


def test_without_a_requirement_nothing_is_met():
    claim = dataclasses.replace(FASTER, required=None)
    assert row(claim, outcomes([0.001], [0.02]))[3:] == ("20x", "-", "-")


def test_a_hung_repetition_is_told_beside_the_median_of_the_others():
    found = row(FASTER, {OURS: [Outcome(0.001)], THEIRS: [Outcome(0.004), Outcome(None, "hung: nothing after 60 s")]})
    assert found.other == "Keras, 2 processes: 4 ms (1 of 2 without result: hung: nothing after 60 s)"
    assert found.met == "yes"


def test_a_peer_that_is_missing_leaves_its_reason():
    found = row(FASTER, {OURS: [Outcome(0.001)], THEIRS: [Outcome(None, "torch is not installed")]})
    assert found.other.endswith("torch is not installed") and found[3:] == ("-", "≥ 3x", "not measured")


def test_without_a_figure_of_ours_a_requirement_is_not_met():
    found = row(FASTER, {OURS: [Outcome(None, "failed: MpseqError")], THEIRS: [Outcome(0.001)]})
    assert found.ours == "failed: MpseqError" and found.met == "no"


def test_every_claim_is_in_a_group_and_a_quick_run_has_the_same_rows():
    full, quick = claims(quick=False), claims(quick=True)
    assert {claim.group for claim in full} == set(GROUPS)
    assert [claim.what for claim in full] == [claim.what for claim in quick]


def test_markdown_is_one_table():
    text = markdown([row(FASTER, outcomes([0.001], [0.004]))], ["Machine: one."], ["Note."])
    assert text.splitlines()[0] == "Machine: one."
    assert f"| {' | '.join(COLUMNS)} |" in text and "- Note." in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_every_row_can_be_told():
    for claim in claims(quick=False):
        assert claim.group in GROUPS
        both = [run for run in (claim.ours, claim.other) if isinstance(run, Run)]
        assert row(claim, {run: [Outcome(0.001)] for run in both}).ratio != "-"

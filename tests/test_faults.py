"""The fault matrix is played, cell by cell, and the page about it says what came of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import ends, page
from tests.faults.entries import ENTRIES, warmed_up
from tests.faults.matrix import FAULTS, LAUNCHERS, PHASES, Player, phases_of
from tests.faults.nursery import Nursery
from tests.faulty import ACTS

pytestmark = pytest.mark.slow
SAID = page.read()


@pytest.fixture(scope="module", autouse=True)
def warm_tensorflow() -> Iterator[None]:
    """Before the leak fixture looks."""
    with warmed_up():
        yield


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Start it once: it imports TensorFlow."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as started:
        yield started


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_users_code_goes_wrong(fault: str, entry: str, launcher: str, tmp_path: Path) -> None:
    """In every phase: the error, its message, the batch that is blamed; and then all is well."""
    player = Player(entry, launcher, fault, tmp_path / "marker")
    came = {page.key(cell.phase, fault, entry, launcher): text for cell, text in player.play()}
    assert player.wrong == []
    assert came == {cell: SAID.get(cell) for cell in came}


@pytest.mark.parametrize("cell", ends.hook_cells(), ids="-".join)
def test_an_epoch_hook_ends_or_stops_the_training_process(cell: ends.Cell, nursery: Nursery) -> None:
    assert ends.hooked(nursery, cell) == SAID[page.key(cell.phase, cell.fault, cell.entry, cell.launcher)]


@pytest.mark.parametrize(
    ("row", "entry", "launcher"), [(row, *cell) for row, cells in ends.rows().items() for cell in cells]
)
def test_something_happens_to_processes(row: str, entry: str, launcher: str, nursery: Nursery) -> None:
    assert ends.played(nursery, row, entry, launcher) == SAID[page.key(page.AROUND, row, entry, launcher)]


# --- the page ---------------------------------------------------------------------------------------


def test_the_page_is_what_its_cells_make() -> None:
    cells = {cell: text for cell, text in SAID.items() if text != page.NOT_THERE}
    assert page.written(cells) == page.PAGE.read_text(encoding="utf-8")


def test_every_cell_is_on_the_page_and_none_is_empty_or_a_hang() -> None:
    columns = [*itertools.product(ENTRIES, LAUNCHERS)]
    wanted = {
        page.key(phase, fault, *column)
        for fault in FAULTS
        for phase in (*phases_of(fault), *(ends.HOOKS if fault in ends.HOOK_FAULTS else ()))
        for column in columns
    }
    wanted |= {page.key(page.AROUND, row, *column) for row in ends.rows() for column in columns}
    assert wanted == set(SAID)
    assert {table for table, _, _ in wanted} == {*PHASES, page.AROUND}
    for (_, row, column), text in SAID.items():
        absent = row in ACTS and row.startswith("template") and column.endswith("spawn")
        assert (text == page.NOT_THERE) == absent, row
        assert text.strip() and "hang" not in text, row


def test_a_cell_that_comes_out_otherwise_is_found(tmp_path: Path) -> None:
    """The matrix itself: a fault that is none, an error of another kind, and a batch that is missing."""
    player = Player("Loader", "template", "hang", tmp_path / "marker")
    player._fault = "exception"
    list(player.play())
    assert not player.wrong
    player._sequence.__class__ = type("Shorter", (type(player._sequence),), {"__len__": lambda self: 7})
    list(player.play())
    assert any("expected [0, 1, 2, 3, 4, 5, 6, 7]" in line for line in player.wrong)

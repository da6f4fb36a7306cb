"""What shows a profile: the command, its JSON, the trace, the picture, and the page, which a real browser opens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keras_mpseq import Loader, MpseqError, UserCodeError
from keras_mpseq.cli.main import main
from keras_mpseq.profiling.drawn import MOST_BARS, course_of, rows_of
from keras_mpseq.profiling.profile import Profile
from tests import profiled
from tests.browser import NO_CHROMIUM, opened
from tests.made_profile import made

CHARTS = ("scaling", "times", "timeline", "slowest")


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A profile of made-up numbers: 8 cores, workers 0 to 8, a slow index, a model's step."""
    return made()


# --- the command ----------------------------------------------------------------------------------


def test_the_command_shows_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"--html": tmp_path / "r.html", "--trace": tmp_path / "t.json", "--png": tmp_path / "r.png"}
    options = [part for option, path in files.items() for part in (option, str(path))]
    arguments = ["tests.profiled:make_computing", "--workers", "0,1", "--seconds", "0.2", "--step-ms", "200"]
    assert main(["profile", *arguments, *options]) == 0
    out = capsys.readouterr().out
    assert "Computing: 24 B a batch" in out and out.rstrip().splitlines()[-1].startswith("Model-bound: ")
    assert all(path.stat().st_size > 1000 for path in files.values())


def test_json_has_the_figures_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "tests.profiled:Computing", "--workers", "1", "--seconds", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bottleneck"] == "cpu" and found["hottest"]["function"] == "_augment"
    (setting,) = found["settings"]
    assert setting["workers"] == 1 and setting["batches"] >= 2 and setting["getitem_median_s"] > 0
    assert {slow["index"] for slow in found["slowest"]} <= set(range(12))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tests.profiled:nothing"], "has no 'nothing'"),
        (["tests.profiled:WORK_S"], "Calling 'tests.profiled:WORK_S' raised TypeError"),
        (["tests.profiled:work"], "missing 1 required positional argument"),
        (["builtins:object"], "got object"),
        (["tests.profiled:Computing", "--workers", "0", "--seconds", "0.01", "--html", "/nowhere/r.html"], "/nowhere"),
    ],
)
def test_a_mistake_is_told(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("keras-mpseq: ") and sentence in err
    assert "mistake of keras-mpseq itself" not in err


# --- Loader.profile -------------------------------------------------------------------------------


class Failing(profiled.Computing):
    def __getitem__(self, index: int) -> Any:
        raise KeyError(index)


def test_the_loader_stays_where_it_is() -> None:
    with Loader(profiled.Computing(), workers=1) as loader:
        assert len(list(loader)) == 12
        state = loader.state_dict()
        loader.profile(seconds=0.05, workers=[0, 1])
        assert loader.state_dict() == state and loader.stats().batches == 12
        batches = iter(loader)
        next(batches)
        with pytest.raises(ValueError, match="while an epoch is under way"):
            loader.profile()
        batches.close()
        with pytest.raises(ValueError, match="seconds must be a number"):
            loader.profile(seconds=-1)
        with pytest.raises(ValueError, match="workers must be one or several"):
            loader.profile(workers=[])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_fails_ends_the_profile(workers: int) -> None:
    with Loader(Failing(), workers=0) as loader, pytest.raises(UserCodeError, match="KeyError"):
        loader.profile(workers=[workers])


def test_the_process_is_left_as_it_was() -> None:
    switch_s = sys.getswitchinterval()
    with Loader(profiled.Computing(), workers=0) as loader:
        loader.profile(seconds=0.05, workers=[0])
    assert sys.getswitchinterval() == switch_s  # The leak fixture looks for the thread.


# --- files ----------------------------------------------------------------------------------------


def test_the_screen_has_a_line_for_each_setting(profile: Profile) -> None:
    lines = str(profile).splitlines()
    assert [line.split()[0] for line in lines[2:8]] == ["0", "1", "2", "4", "8", "6"]
    assert max(map(len, lines[:-1])) <= 110 and lines[-1] == profile.sentence
    assert "Slowest indices: 17 (300 ms)" in str(profile)


def test_the_trace_has_every_batch_in_its_row(profile: Profile, tmp_path: Path) -> None:
    profile.write_trace(tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    events = [event for event in found["traceEvents"] if event["ph"] == "X"]
    built = [event for event in events if event["name"] == "__getitem__"]
    assert len(built) == len(profile.shown.built) and len({event["tid"] for event in built}) == 6
    assert {event["args"]["index"] for event in built} == {one.timing.index for one in profile.shown.built}
    assert all(event["ts"] >= 0 and event["dur"] >= 0 and event["pid"] in (1, 2) for event in events)
    named = {event["args"]["name"] for event in found["traceEvents"] if event["ph"] == "M"}
    assert named == {"training process", "workers", *(f"worker {number}" for number in range(6))}
    assert sum(event["name"] == "wait for a batch" for event in events) == len(profile.shown.takes)


def test_the_course_is_drawn_in_rows(profile: Profile) -> None:
    bars = course_of(profile.shown)
    assert rows_of(bars) == [*(f"worker {number}" for number in range(6)), "training"]
    assert sum(bar.kind == "__getitem__" for bar in bars) == min(len(profile.shown.built), MOST_BARS)
    assert all(bar.began_s >= 0 and bar.took_s >= 0 for bar in bars)


@pytest.mark.parametrize(("package", "name"), [("plotly", "write_html"), ("matplotlib", "write_png")])
def test_a_missing_package_is_named(
    profile: Profile, package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [package, *(one for one in sys.modules if one.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MpseqError, match=rf"needs {package}.*pip install 'keras_mpseq\[plot\]'"):
        getattr(profile, name)(tmp_path / "file")


# --- the page in a browser ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the system, without a window."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with opened() as browser:
        if browser is None:
            pytest.skip(NO_CHROMIUM)
        yield browser


@pytest.fixture(scope="module")
def page_file(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    profile.write_html(path)
    return path


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_works_in_a_browser_without_a_network(browser: Any, page_file: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    try:
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(page_file.as_uri())
        for chart in CHARTS:
            page.wait_for_selector(f"#{chart} .main-svg")
        assert page.locator(".sentence code").text_content() == "_augment"
        # Drawn: a mark for each number.
        assert page.locator("#scaling .points path").count() == 5
        assert page.locator("#slowest .bars .point").count() == 10
        assert page.locator("#times .bars .point").count() > 3
        assert page.locator("#timeline .bars .point").count() > 100
        # Readable: no sideways scrolling, each chart inside and large enough, no text smaller than 10 pixels.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for chart in CHARTS:
            box = page.locator(f"#{chart}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and min(box["width"], box["height"]) >= 250
        sizes = page.evaluate(
            "[...document.querySelectorAll('p, td, th, figcaption, .main-svg text')]"
            ".filter(one => one.textContent.trim()).map(one => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert len(sizes) > 50 and min(sizes) >= 10
        # Hover: the numbers under the pointer.
        bar = page.locator("#slowest .bars .point").first
        bar.scroll_into_view_if_needed()
        box = bar.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#slowest .hovertext")
        assert page.locator("#slowest .hovertext").first.text_content() == "index 17: 300 ms"
        assert wrong == []
    finally:
        context.close()

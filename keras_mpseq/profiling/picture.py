"""A profile as a picture: the same charts by matplotlib, without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_mpseq.errors import MpseqError
from keras_mpseq.profiling.drawn import course_of, rows_of, scaling_of, times_of
from keras_mpseq.profiling.page import BLUE, COLOURS, GREEN, GREY
from keras_mpseq.profiling.profile import Profile

_INCHES = 12.0, 8.0


def draw(profile: Profile, path: Path) -> None:
    """Write the picture.

    Raises:
        MpseqError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MpseqError(
            "The picture needs matplotlib, which is not installed", remedy="Run pip install 'keras_mpseq[plot]'."
        ) from error
    # Not pyplot: that would choose a display, and keep the figure for ever.
    figure: Any = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplot_mosaic([["scaling", "times"], ["timeline", "timeline"], ["slowest", "slowest"]])
    _scaling(grid["scaling"], profile)
    _times(grid["times"], profile)
    _timeline(grid["timeline"], profile)
    _slowest(grid["slowest"], profile)
    figure.suptitle(profile.sentence, wrap=True, fontsize=10)
    figure.savefig(path, format="png", dpi=100)


def _scaling(axes: Any, profile: Profile) -> None:
    found = scaling_of(profile)
    axes.plot([count for count, _ in found.ideal], [rate for _, rate in found.ideal], "--", color=GREY, label="ideal")
    axes.plot(found.workers, found.rates, "o-", color=BLUE, label="measured")
    if found.wanted:
        axes.axhline(found.wanted, linestyle=":", color=GREEN, label="the model's step")
    axes.set(xlabel="workers", ylabel="batches/s", xticks=found.workers, ylim=(0, None))
    axes.legend()


def _times(axes: Any, profile: Profile) -> None:
    axes.hist(times_of(profile.shown), bins=40, color=BLUE)
    axes.set(xlabel="ms in __getitem__", ylabel="batches")


def _timeline(axes: Any, profile: Profile) -> None:
    bars = course_of(profile.shown)
    rows = rows_of(bars)[::-1]
    for kind, colour in COLOURS.items():
        some = [bar for bar in bars if bar.kind == kind]
        if some:  # A label with an underscore in front would be none.
            places = [rows.index(bar.row) for bar in some]
            took, began = [bar.took_s for bar in some], [bar.began_s for bar in some]
            axes.barh(places, took, left=began, color=colour, label=f"in {kind}" if kind.startswith("_") else kind)
    axes.set(xlabel="s", yticks=range(len(rows)), yticklabels=rows)
    axes.legend(loc="upper right")


def _slowest(axes: Any, profile: Profile) -> None:
    slowest = profile.slowest
    axes.bar([str(slow.index) for slow in slowest], [slow.seconds * 1e3 for slow in slowest], color=BLUE)
    axes.set(xlabel="slowest indices", ylabel="ms")

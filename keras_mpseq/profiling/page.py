"""A profile as one HTML page: charts by plotly, whose script is inside, so that it opens without a network."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from keras_mpseq.errors import MpseqError
from keras_mpseq.profiling.drawn import course_of, rows_of, scaling_of, times_of
from keras_mpseq.profiling.profile import Profile, row_of
from keras_mpseq.profiling.sentences import nbytes, number, seconds, share

if TYPE_CHECKING:
    from collections.abc import Iterator

BLUE, GREY, ORANGE, GREEN = "#2563a8", "#8a929c", "#d9742b", "#3b8f5a"
COLOURS = {"__getitem__": BLUE, "encode": ORANGE, "wait": GREY}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2126; margin: 0 auto; max-width: 1400px; padding: 0 16px 32px; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 0; }
.sentence { background: #eef3f9; border-left: 4px solid #2563a8; padding: 12px 16px; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px; }
.wide { grid-column: 1 / -1; }
figure { margin: 0; min-width: 0; }
figcaption { color: #59616b; font-size: .9rem; }
.table { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: 4px 12px; text-align: right; border-bottom: 1px solid #d9dee4; }
@media (max-width: 800px) { .charts { grid-template-columns: minmax(0, 1fr); } body { padding: 0 8px 24px; } }
"""
_HEADINGS = ("workers", "batches/s", "__getitem__", "95 % below", "encode", "transport", "wait", "time spent waiting")
_QUOTED = re.compile(r"`(.*?)`")
_HEIGHT, _ROW = 320, 34
"""Pixels of a chart, and of a row of the timeline."""


def page(profile: Profile) -> str:
    """Return the page.

    Raises:
        MpseqError: plotly is not installed.
    """
    script = _plotly("offline").get_plotlyjs()
    body = "\n".join(_body(profile))
    title = f"Profile of {escape(profile.name)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        # A browser asks for an icon otherwise, which is an error in its console where there is none.
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n<script>{script}</script>\n</head>\n<body>\n'
        f"<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _plotly(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(f"plotly.{module}")
    except ImportError as error:
        raise MpseqError(
            "The page with charts needs plotly, which is not installed", remedy="Run pip install 'keras_mpseq[plot]'."
        ) from error


def _body(profile: Profile) -> Iterator[str]:
    verdict, shown = profile.verdict, profile.shown
    sentence = _QUOTED.sub(r"<code>\1</code>", escape(profile.sentence))
    yield f'<p class="sentence">{sentence}</p>'
    yield (
        f"<p>{nbytes(verdict.nbytes)} a batch. {verdict.cores} core{'' if verdict.cores == 1 else 's'}. "
        f"Advised: {verdict.workers} worker{'' if verdict.workers == 1 else 's'}.</p>"
    )
    yield from _table(profile)
    yield '<div class="charts">'
    with_model = " and the model's step" if profile.stepped else ""
    charts = (
        ("scaling", "Batches a second", "With so many workers, and what each would add to one at best.", _scaling, ""),
        (
            "times",
            "Time of a batch",
            f"How often __getitem__ took so long, with {shown.workers} workers{with_model}.",
            _times,
            "",
        ),
        (
            "timeline",
            "Who built which batch when",
            f"With {shown.workers} workers{with_model}; the last row is where the training process waited.",
            _timeline,
            "wide",
        ),
        (
            "slowest",
            "Slowest indices",
            "Least time that each of them took, over all numbers of workers.",
            _slowest,
            "wide",
        ),
    )
    for name, heading, caption, draw, kind in charts:
        figure = draw(profile)
        drawn = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={"displayModeBar": False, "responsive": True},
            default_width="100%",
        )
        yield f'<figure class="{kind}"><h2>{heading}</h2>{drawn}<figcaption>{caption}</figcaption></figure>'
    yield "</div>"


def _table(profile: Profile) -> Iterator[str]:
    yield f'<div class="table"><table><tr>{"".join(f"<th>{heading}</th>" for heading in _HEADINGS)}</tr>'
    for setting in [*profile.settings, *([profile.stepped] if profile.stepped else [])]:
        row = row_of(setting)
        name = f"{row.workers} and a model" if setting.step_s else str(row.workers)
        times = (row.getitem_median_s, row.getitem_p95_s, row.encode_s, row.transport_s, row.wait_s)
        cells = (name, number(row.batches_per_s), *map(seconds, times), share(row.wait_share))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table></div>"


# --- charts ---------------------------------------------------------------------------------------


def _figure(x: str, y: str, height: int = _HEIGHT, **layout: Any) -> Any:
    go = _plotly("graph_objects")
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        xaxis_title=x,
        yaxis_title=y,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0},
        **layout,
    )
    return figure


def _scaling(profile: Profile) -> Any:
    go, found = _plotly("graph_objects"), scaling_of(profile)
    figure = _figure("workers", "batches/s", showlegend=True)
    figure.add_trace(
        go.Scatter(
            x=[count for count, _ in found.ideal],
            y=[rate for _, rate in found.ideal],
            mode="lines",
            name="ideal",
            line={"color": GREY, "dash": "dash"},
            hovertemplate="ideal: %{y:.3g} batches/s<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=found.workers,
            y=found.rates,
            mode="lines+markers",
            name="measured",
            line={"color": BLUE, "width": 3},
            marker={"size": 9},
            hovertemplate="%{x} workers: %{y:.3g} batches/s<extra></extra>",
        )
    )
    if found.wanted:
        figure.add_hline(y=found.wanted, line={"color": GREEN, "dash": "dot"}, annotation_text="the model's step")
    figure.update_xaxes(tickvals=found.workers)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _times(profile: Profile) -> Any:
    go = _plotly("graph_objects")
    figure = _figure("ms in __getitem__", "batches", bargap=0.05)
    figure.add_trace(
        go.Histogram(
            x=times_of(profile.shown),
            nbinsx=40,
            marker={"color": BLUE},
            hovertemplate="%{x} ms: %{y} batches<extra></extra>",
        )
    )
    return figure


def _timeline(profile: Profile) -> Any:
    go, bars = _plotly("graph_objects"), course_of(profile.shown)
    rows = rows_of(bars)
    figure = _figure("s", "", height=120 + _ROW * max(len(rows), 3), barmode="overlay", showlegend=True)
    for kind, colour in COLOURS.items():
        some = [bar for bar in bars if bar.kind == kind]
        if not some:
            continue
        figure.add_trace(
            go.Bar(
                orientation="h",
                name=kind,
                y=[bar.row for bar in some],
                base=[bar.began_s for bar in some],
                x=[bar.took_s for bar in some],
                marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
                customdata=[
                    f"index {bar.index}: {seconds(bar.took_s)}" if bar.index is not None else seconds(bar.took_s)
                    for bar in some
                ],
                hovertemplate=f"%{{y}}, {kind}, %{{customdata}}<extra></extra>",
            )
        )
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1])
    return figure


def _slowest(profile: Profile) -> Any:
    go, slowest = _plotly("graph_objects"), profile.slowest
    figure = _figure("index", "ms")
    figure.add_trace(
        go.Bar(
            x=[str(slow.index) for slow in slowest],
            y=[slow.seconds * 1e3 for slow in slowest],
            marker={"color": BLUE},
            hovertemplate="index %{x}: %{y:.3g} ms<extra></extra>",
        )
    )
    figure.update_xaxes(type="category")
    return figure

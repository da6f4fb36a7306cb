"""A profile as text: a table of the settings, the slowest indices, and the sentence."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from keras_mpseq.profiling.profile import Profile, row_of
from keras_mpseq.profiling.sentences import nbytes, number, seconds, share

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 110
_BAR = 10
"""Characters of the longest bar."""


def screen(profile: Profile, *, colour: bool = False) -> str:
    """Return *profile* as lines of text."""
    from rich.console import Console
    from rich.markup import escape

    file = io.StringIO()
    console = Console(file=file, force_terminal=colour, width=_WIDTH, highlight=False)
    console.print(f"[bold]{escape(profile.name)}[/]: {nbytes(profile.verdict.nbytes)} a batch")
    console.print(_table(profile))
    slowest = ", ".join(f"{slow.index} ({seconds(slow.seconds)})" for slow in profile.slowest[:5])
    console.print(f"Slowest indices: {slowest or 'none'}")
    console.print()
    console.print(f"[bold]{escape(profile.sentence)}[/]", soft_wrap=True)
    return file.getvalue()


def _table(profile: Profile) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for heading in ("workers", "batches/s", "ideal", "__getitem__", "p95", "encode", "transport", "wait", "waiting"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max((setting.rate for setting in profile.settings), default=0.0)
    single = profile.verdict.single
    rows = [(setting, str(setting.workers)) for setting in profile.settings]
    if profile.stepped:
        rows.append((profile.stepped, f"{profile.stepped.workers} + model"))
    for setting, name in rows:
        row = row_of(setting)
        times = (row.getitem_median_s, row.getitem_p95_s, row.encode_s, row.transport_s, row.wait_s)
        table.add_row(
            name,
            number(row.batches_per_s),
            number(single * row.workers) if row.workers else "",
            *map(seconds, times),
            share(row.wait_share),
            "█" * round(_BAR * row.batches_per_s / most) if most else "",
        )
    return table

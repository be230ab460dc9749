"""The figures of one page: their places in the HTML, and their data for the script."""

from __future__ import annotations

import json
from typing import Any

from skdtune.views.report_page.figure_parts import Figure
from skdtune.views.report_page.markup import escaped


class FigureSheet:
    """Collects figures; each gets a place on the page and its data at the end of it."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def place(self, figure: Figure, description: str) -> str:
        """Return the element that a figure will be drawn in.

        Args:
            figure: Plotly's plain data.
            description: What the figure shows, for those who cannot see it.
        """
        number = len(self._data)
        height = int(figure["layout"].get("height", 380))
        self._data.append(embedded(figure))
        return (
            f'<div class="figure" id="figure-{number}" data-state="waiting" role="img" '
            f'aria-label="{escaped(description)}" style="height:{height}px"></div>'
        )

    def data(self) -> str:
        """Return the data of all figures as elements that are never run."""
        return "\n".join(
            f'<script type="application/json" id="figure-{number}-data">{data}</script>'
            for number, data in enumerate(self._data)
        )


def embedded(value: Any) -> str:
    """Write plain data as JSON that cannot end the element it stands in.

    Raises:
        ValueError: If a number is not finite: a browser would not read the page's data.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text

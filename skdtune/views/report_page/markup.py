"""HTML and labels of figures, with everything that people or databases wrote shown as text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Replace control characters and marks that change the direction of writing."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def escaped(value: object) -> str:
    """Write a value as text of an element or of a quoted attribute."""
    return html.escape(printable(str(value)))


def label(value: object) -> str:
    """Write a value as text of a figure: plotly reads tags and entities in its labels."""
    return html.escape(printable(str(value)), quote=False)


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[int] = (),
    caption: str = "",
) -> str:
    """Write a table that scrolls sideways on its own where it is too wide.

    Args:
        headers: Names of the columns.
        rows: Cells of each row, as text.
        right: Columns of numbers.
        caption: Title above it.
    """
    sides = ["number" if index in right else "words" for index in range(len(headers))]
    head = "".join(
        f'<th scope="col" class="{side}">{escaped(header)}</th>'
        for side, header in zip(sides, headers, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{side}">{escaped(cell)}</td>'
            for side, cell in zip(sides, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Write a paragraph."""
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"

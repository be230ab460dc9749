"""A table of texts and its three forms: Markdown, LaTeX and CSV; and how a number becomes a cell.

Cells hold any text. Every renderer escapes what its format would read as a sign of its own, so
that a study called ``50%_of_{data}`` appears under exactly that name.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import Literal

MISSING = "-"
"""What a cell says where there is no number."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # These three print as other characters in LaTeX's default font encoding.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
}

_WIDE = 8
"""A table with more columns than this is scaled to the width of the page in LaTeX."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """The head of a column."""

    header: str
    align: Literal["left", "right"] = "left"
    """Numbers of equal precision are read best to the right."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Texts in rows and columns, with what a reader must know to read them.

    Raises:
        ValueError: There is no column, or a row has another number of cells than there are
            columns.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """One sentence each; they stand below the table, in CSV they are left out."""

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a table needs at least one column")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} has {len(row)} cells, the table {len(self.columns)} columns"
                )


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, cells padded so that the source is readable, too."""
    lines = [[_markdown_cell(column.header) for column in table.columns]]
    lines += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    # A delimiter of three dashes and a colon is read by every Markdown.
    widths = [max(4, *(len(cell) for cell in cells)) for cells in zip(*lines, strict=True)]
    delimiter = [
        "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        for column, width in zip(table.columns, widths, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if column.align == "right" else cell.ljust(width)
            for cell, column, width in zip(line, table.columns, widths, strict=True)
        ]
        for line in lines
    ]
    rows = [f"| {' | '.join(line)} |" for line in (padded[0], delimiter, *padded[1:])]
    parts = [f"**{_markdown_cell(table.title)}**"] if table.title.strip() else []
    parts.append("\n".join(rows))
    notes = []
    for note in table.notes:
        # Nor may its beginning make a list, a heading or a rule of it.
        text = re.sub(r"^([-+#=])", r"\\\1", _markdown_cell(note))
        notes.append("- " + re.sub(r"^(\d+)([.)])", r"\1\\\2", text))
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _markdown_cell(text: str) -> str:
    """Escape what Markdown would read as markup, and bring the text onto one line."""
    text = re.sub(r"([\\`*\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
    # Between two letters or digits an underscore is only an underscore.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_latex(table: Table) -> str:
    """Return the table as a ``table*`` with the rules of the package booktabs.

    The first line of the text names the packages it needs.
    """
    caption = [f"\\caption{{{escape_latex(table.title)}}}"] if table.title.strip() else []
    spec = "".join("r" if column.align == "right" else "l" for column in table.columns)
    tabular = [
        f"\\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
        r"\toprule",
        _latex_row(tuple(column.header for column in table.columns)),
        r"\midrule",
        *(_latex_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    packages = r"\usepackage{booktabs}, \usepackage[T1]{fontenc}"
    if len(table.columns) > _WIDE:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
        packages += r", \usepackage{graphicx}"
    notes = (
        f"\\par\\smallskip{{\\footnotesize\\raggedright {escape_latex(note)}\\par}}"
        for note in table.notes
    )
    lines = (
        f"% needs {packages}",
        r"\begin{table*}",
        r"\centering",
        *caption,
        *tabular,
        *notes,
        r"\end{table*}",
    )
    return "\n".join(lines) + "\n"


def _latex_row(cells: tuple[str, ...]) -> str:
    row = " & ".join(escape_latex(cell) for cell in cells) + r" \\"
    # The end of the row before, or a rule, would take these for an argument of its own.
    return "{}" + row if row.startswith(("[", "*", "(")) else row


def escape_latex(text: str) -> str:
    """Return one line of LaTeX that prints exactly this text.

    Args:
        text: Anything; line ends and runs of blanks become one blank. Letters that LaTeX's UTF-8
            does not know stay as they are.
    """
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    # Two hyphens, commas or apostrophes would be drawn as one other sign.
    return re.sub(r"(?<=([-,'?!]))(?=\1)", "{}", escaped)


def to_csv(table: Table) -> str:
    """Return header and rows as CSV for ``csv.reader``: no title, no notes, lines end in LF."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.header for column in table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def format_interval(
    low: float | None, high: float | None, scale: float = 100.0, digits: int = 2
) -> str:
    """Return ``0.40 to 2.08``, or ``-`` without an interval.

    Args:
        low: Of shares from 0 to 1, where the scale is left alone.
        high: The upper end.
        scale: What the numbers are multiplied with; 100 makes percent of shares.
        digits: Behind the point.
    """
    if low is None or high is None:
        return MISSING
    return f"{low * scale:z.{digits}f} to {high * scale:z.{digits}f}"


def format_p(p: float | None) -> str:
    """Return a p value in two or three digits, ``<0.001`` for less, ``-`` for none.

    A value just below 0.05 is never rounded up to it: the text agrees with the verdict.
    """
    if p is None:
        return MISSING
    if p < 0.001:
        return "<0.001"
    text = f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"
    return "<0.05" if text == "0.050" and p < 0.05 else text


def format_count(number: int, noun: str) -> str:
    """Return ``1 seed`` or ``5 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_duration(seconds: float) -> str:
    """Return a time in two units: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h; below a second 0.25 s."""
    whole = round(seconds)
    for size, unit, small, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {small_unit}"
    return f"{whole} s" if seconds >= 1 or whole == seconds else f"{seconds:.2g} s"

"""Whatever a cell holds, every form of the table gives it back to its own reader."""

from __future__ import annotations

import csv
import io
import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from skdtune.analysis.statistics import Summary, format_mean_sd, summarise
from skdtune.analysis.tables import (
    Column,
    Table,
    escape_latex,
    format_interval,
    format_p,
    to_csv,
    to_latex,
    to_markdown,
)

# Neither control characters nor halves of surrogate pairs.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30) | st.text(
    r"\{}&%$#_~^<>|`'\"*[]()-+=!?,.:1a ±", max_size=30
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.builds(
        Table,
        title=texts,
        columns=st.lists(
            st.builds(Column, header=texts, align=st.sampled_from(["left", "right"])),
            min_size=width,
            max_size=width,
        ).map(tuple),
        rows=st.lists(st.tuples(*[texts] * width), max_size=4).map(tuple),
        notes=st.lists(texts, max_size=3).map(tuple),
    )
)

RESULTS = Table(
    title="CIFAR-100",
    columns=(Column(header="Method"), Column(header="Accuracy (%)", align="right")),
    rows=(("drg_50%", "76.24 ± 0.31"), ("ce", "75.00")),
    notes=("± is the standard deviation.", "Baseline: ce."),
)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells, the table 2 columns"):
        Table(title="", columns=RESULTS.columns, rows=(("a", "b"), ("a",)))
    with pytest.raises(ValueError, match="at least one column"):
        Table(title="", columns=(), rows=())


# Markdown


def test_markdown_as_it_is_read() -> None:
    assert to_markdown(RESULTS) == (
        "**CIFAR-100**\n"
        "\n"
        "| Method  | Accuracy (%) |\n"
        "| ------- | -----------: |\n"
        "| drg_50% | 76.24 ± 0.31 |\n"
        "| ce      |        75.00 |\n"
        "\n"
        "- ± is the standard deviation.\n"
        "- Baseline: ce.\n"
    )


def _plain(token: Token) -> str:
    """The text of an inline token; an assertion if it holds any markup."""
    children = token.children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    return "".join(child.content for child in children)


@given(tables)
@example(RESULTS)
def test_markdown_gives_back_every_cell(table: Table) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(table))
    cells = [
        _plain(inline)
        for cell, inline in itertools.pairwise(tokens)
        if cell.type in ("th_open", "td_open")
    ]
    expected = [column.header for column in table.columns]
    expected += [cell for row in table.rows for cell in row]
    # The reader strips blanks of every kind around a cell.
    assert cells == [one_line(text) for text in expected]


@given(texts.filter(str.strip), st.lists(texts.filter(str.strip), min_size=1, max_size=3))
@example("1) a", ["1. a", "- b", "# c", "* * *", "---", "+ d"])
def test_markdown_gives_back_title_and_notes(title: str, notes: list[str]) -> None:
    table = Table(title=title, columns=RESULTS.columns, rows=(), notes=tuple(notes))
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(table))
    heading = tokens[1].children or []
    assert [token.type for token in heading if not token.type.startswith("text")] == [
        "strong_open",
        "strong_close",
    ]
    assert "".join(token.content for token in heading) == one_line(title)
    after = [token.type for token in tokens].index("table_close")
    found = [_plain(token) for token in tokens[after:] if token.type == "inline"]
    assert found == [one_line(note) for note in notes]
    assert [token.type for token in tokens].count("bullet_list_open") == 1


# LaTeX

# Every command that an escaped text may hold, and what it prints.
_PRINTS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textasciigrave{}": "`",
    r"\textquotedbl{}": '"',
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"$\pm$": "±",
    r"$\times$": "×",  # noqa: RUF001
    "$-$": "\N{MINUS SIGN}",
    "{}": "",
} | {"\\" + letter: letter for letter in "{}&%$#_"}


def printed(latex: str) -> str:
    """What LaTeX prints for an escaped text; an assertion for a sign that is not escaped."""
    commands = sorted(_PRINTS, key=len, reverse=True)
    pattern = "|".join(re.escape(command) for command in commands)
    rest = re.sub(pattern, "", latex)
    assert not re.search(r'[\\{}&%$#_~^<>|"`]', rest)
    return re.sub(pattern, lambda match: _PRINTS[match.group()], latex)


@given(texts)
@example(r"50%_of_{data} & more \ $5 #1 ~^ ±−× --- ''")  # noqa: RUF001
@example(r"\{}")
def test_latex_prints_the_text(text: str) -> None:
    assert printed(escape_latex(text)) == one_line(text)


@given(texts)
def test_latex_joins_no_letters(text: str) -> None:
    assert not re.search(r"--|''|,,|\?`|!`|``", escape_latex(text))


@given(tables)
def test_latex_gives_back_every_cell(table: Table) -> None:
    lines = to_latex(table).splitlines()
    assert lines.count(r"\toprule") == lines.count(r"\midrule") == lines.count(r"\bottomrule") == 1
    start, end = lines.index(r"\toprule"), lines.index(r"\bottomrule")
    rows = [line for line in lines[start + 1 : end] if line != r"\midrule"]
    expected = [tuple(column.header for column in table.columns), *table.rows]
    found = []
    for row in rows:
        # A bracket or a star here would be an argument of the line end before.
        assert not row.startswith(("[", "*"))
        assert row.endswith(r" \\")
        found.append(tuple(printed(cell) for cell in row[:-3].split(" & ")))
    assert found == [tuple(one_line(cell) for cell in row) for row in expected]


@given(tables)
def test_latex_closes_what_it_opens(table: Table) -> None:
    latex = to_latex(table)
    opened: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", latex):
        if verb == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    bare = re.sub(r"\\[{}\\]", "", latex)
    assert bare.count("{") == bare.count("}")


def test_latex_as_it_is_read() -> None:
    assert to_latex(RESULTS).splitlines()[1:] == [
        r"\begin{table*}",
        r"\centering",
        r"\caption{CIFAR-100}",
        r"\begin{tabular}{@{}lr@{}}",
        r"\toprule",
        r"Method & Accuracy (\%) \\",
        r"\midrule",
        r"drg\_50\% & 76.24 $\pm$ 0.31 \\",
        r"ce & 75.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize\raggedright $\pm$ is the standard deviation.\par}",
        r"\par\smallskip{\footnotesize\raggedright Baseline: ce.\par}",
        r"\end{table*}",
    ]


@pytest.mark.parametrize(("width", "scaled"), [(8, False), (9, True)])
def test_latex_scales_a_wide_table_to_the_page(width: int, scaled: bool) -> None:
    latex = to_latex(Table(title="t", columns=(Column(header="a"),) * width, rows=()))
    assert (r"\resizebox{\textwidth}{!}{%" in latex) == scaled
    assert ("graphicx" in latex.splitlines()[0]) == scaled
    assert latex.count("{") == latex.count("}")


# CSV


@given(tables)
@example(Table(title="", columns=(Column(header=""),), rows=(("a\r\nb",), ("",), ('"',))))
def test_csv_gives_back_every_cell(table: Table) -> None:
    found = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert found == [[column.header for column in table.columns], *map(list, table.rows)]


# Numbers


def test_mean_and_deviation() -> None:
    assert format_mean_sd(summarise([0.7593, 0.7655])) == "76.24 ± 0.44"
    assert format_mean_sd(summarise([0.7624])) == "76.24"
    assert format_mean_sd(summarise([0.9, 1.1]), scale=1.0, digits=3) == "1.000 ± 0.141"
    equal = Summary(n=2, mean=0.5, sd=0.0, ci_low=0.5, ci_high=0.5)
    assert format_mean_sd(equal) == "50.00 ± 0.00"


def test_interval() -> None:
    assert format_interval(-0.007, 0.009) == "-0.70 to 0.90"
    assert format_interval(-0.00001, 0.009) == "0.00 to 0.90"
    assert format_interval(1.25, 1.5, scale=1.0, digits=1) == "1.2 to 1.5"
    assert format_interval(None, None) == "-"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "-"),
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.001, "0.001"),
        (0.0123, "0.012"),
        (0.0499, "<0.05"),
        (0.0496, "<0.05"),
        (0.05, "0.050"),
        (0.0502, "0.050"),
        (0.77, "0.77"),
        (1.0, "1.00"),
    ],
)
def test_p(p: float | None, text: str) -> None:
    assert format_p(p) == text

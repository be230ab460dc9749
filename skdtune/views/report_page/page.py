"""One self-contained HTML file: no network, opened from a file, light and dark."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import skdtune
from skdtune.analysis.study_record import StudyRecord
from skdtune.errors import InputError
from skdtune.views.report_page import sections
from skdtune.views.report_page.figure_sheet import FigureSheet
from skdtune.views.report_page.markup import escaped

if TYPE_CHECKING:
    from skdtune.analysis.tables import Table


def render(
    studies: Sequence[StudyRecord],
    *,
    comparison: Table | None = None,
    sentences: Sequence[str] = (),
    made_at: datetime | None = None,
) -> str:
    """Write the report of one or several studies as one HTML page.

    Args:
        studies: The studies, in the order in which they are shown.
        comparison: A table of a comparison between them.
        sentences: What the comparison says.
        made_at: When the data were read; default now.
    """
    sheet = FigureSheet()
    body = [
        sections.headline(studies),
        sections.comparison(comparison, sentences),
        sections.best_so_far(studies, sheet),
        sections.ranked_outputs(studies, sheet),
        *(sections.study(study, index, sheet) for index, study in enumerate(studies)),
    ]
    when = (made_at or datetime.now().astimezone()).strftime("%Y-%m-%d %H:%M %Z").strip()
    header = _header(studies, f"skdtune {skdtune.__version__}, {when}", comparison is not None)
    return _document(_title(studies), header + f"<main>{''.join(body)}</main>", sheet.data())


def write(path: Path, page: str) -> None:
    """Write a page whole or not at all; a file that is there is replaced.

    Raises:
        InputError: If it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; name a file with -o")
        try:
            beside.write_text(page, encoding="utf-8")
            os.replace(beside, path)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot write {path}: {reason}") from None


def _title(studies: Sequence[StudyRecord]) -> str:
    names = [study.name for study in studies]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _header(studies: Sequence[StudyRecord], made: str, is_compared: bool) -> str:
    links = [("result", "Result")]
    links += [("comparison", "Comparison")] if is_compared else []
    if any(study.picks_best for study in studies):
        links.append(("best-so-far", "Best so far"))
    links.append(("ranked-outputs", "Ranked outputs"))
    links += [(f"study-{index}", study.name) for index, study in enumerate(studies)]
    listed = "".join(f'<a href="#{anchor}">{escaped(text)}</a>' for anchor, text in links)
    return (
        f'<header><div class="top"><h1>{escaped(_title(studies))}</h1>'
        '<button id="theme" type="button">Dark</button></div>'
        f'<p class="small">{escaped(made)}</p><nav>{listed}</nav>'
        "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript></header>"
    )


def _document(title: str, body: str, data: str) -> str:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

    plotly, theme, script = get_plotlyjs(), _asset("theme.js"), _asset("page.js")
    # Exactly these scripts and no network: text that became markup would not run.
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (theme, plotly, script)
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escaped(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>{_asset("page.css")}</style>
<script>{theme}</script>
</head>
<body>
{body}
{data}
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("skdtune.views.report_page").joinpath(name).read_text(encoding="utf-8")

"""``skdtune extensions``."""

from __future__ import annotations

import click

from skdtune.cli.application import common_options, console, echo_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def extensions(as_json: bool) -> None:
    """List what installed packages add: methods, data sets, networks, engines and hooks."""
    from skdtune.describe.offered import offers

    rows = [
        {
            "kind": offer.kind,
            "name": offer.name,
            "package": offer.package.name,
            "version": offer.package.version,
            "state": offer.problem or "ok",
        }
        for offer in offers()
    ]
    if as_json:
        echo_json(rows)
        return
    if not rows:
        click.echo("no installed package adds anything; docs/extending.md says how one does")
        return
    from rich.table import Table

    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*row.values())
    console().print(table)

"""``skdtune extensions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import common_options, console, echo_json, json_option

if TYPE_CHECKING:
    from skdtune.catalogues.catalogue import Catalogue


@click.command()
@json_option
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
        for offer in offers(_require_usable)
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


def _require_usable(catalogue: Catalogue[Any], name: str) -> None:
    """Refuse what a study, a worker or `launch` would refuse, as far as this machine can tell."""
    from skdtune.catalogues.engines import ENGINES
    from skdtune.catalogues.hooks import HOOKS
    from skdtune.describe.offered import require_usable
    from skdtune.engines.named import engine_named

    require_usable(catalogue, name)
    if catalogue.kind == ENGINES.kind:
        engine_named(name)
    elif catalogue.kind == HOOKS.kind:
        try:
            from skdtune.worker.hooks.named import hook_named
        except ImportError:
            # Without torch there is no worker here that could take it.
            return
        hook_named(name)

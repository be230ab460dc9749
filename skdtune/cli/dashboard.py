"""``skdtune dashboard``."""

from __future__ import annotations

import signal
import sys

import click

from skdtune.cli.application import Application, common_options, pass_application


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="HOST[:PORT]",
    multiple=True,
    help="Answer under this host too, such as that of a proxy or a tunnel; may be repeated.",
)
@click.option(
    "--allow-write",
    is_flag=True,
    help="Let the page change what is stored: edit notes, add and delete artifacts and studies.",
)
@common_options
@pass_application
def dashboard(
    application: Application,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    allow_write: bool,
) -> None:
    """Serve optuna-dashboard for the storage: to look at, on this machine, unless options say so.

    SKDTUNE_DASHBOARD_PASSWORD, where set, is asked for before anything is shown; listening on
    anything but loopback needs it. A browser must know the dashboard by the host it listens on
    (with 0.0.0.0 and ::, by the name or an address of this machine) and by its port.
    """
    from skdtune.home import artifacts_url
    from skdtune.views.dashboard.server import serve

    # A service manager ends it with SIGTERM: its ordinary end, no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    serve(
        application.url,
        artifacts_url(at=application.home),
        host,
        port,
        allowed_hosts=allowed_hosts,
        allow_write=allow_write,
    )

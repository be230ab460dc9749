"""``skdtune dashboard``."""

from __future__ import annotations

import signal
import sys

import click

from skdtune.cli.application import Application, common_options, pass_application


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@common_options
@pass_application
def dashboard(application: Application, host: str, port: int) -> None:
    """Serve optuna-dashboard for the storage, on this machine unless --host says otherwise.

    SKDTUNE_DASHBOARD_PASSWORD, where set, is asked for before anything is shown.
    """
    from skdtune.home import artifacts_url
    from skdtune.views.dashboard.server import serve

    # A service manager ends it with SIGTERM: its ordinary end, no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    serve(application.url, artifacts_url(at=application.home), host, port)

"""optuna-dashboard's own application, on the storage that skdtune opens, behind a door."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import click

from skdtune.errors import InputError
from skdtune.views.dashboard.door import Door, WsgiApplication, hosts_of, is_loopback
from skdtune.views.dashboard.notice import ReadOnlyNotice

#: Where set, the dashboard asks for this password (any user name).
PASSWORD_VARIABLE = "SKDTUNE_DASHBOARD_PASSWORD"

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

#: What listens on every address of this machine.
_ANY_ADDRESS = ("0.0.0.0", "::")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _QuietHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that left early; that is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep the access log off the terminal."""


def serve(
    storage_url: str,
    artifacts: str,
    host: str,
    port: int,
    *,
    allowed_hosts: Sequence[str] = (),
    allow_write: bool = False,
) -> None:
    """Serve the dashboard until Ctrl-C.

    The schema is made first: on an empty database the dashboard would not start.

    Args:
        storage_url: The storage.
        artifacts: Folder or fsspec URL of the artifacts.
        host: Address to listen on.
        port: Port to listen on, 0 for any.
        allowed_hosts: Hosts, each with or without a port, to answer under beside the own ones.
        allow_write: Let the page change what is stored.

    Raises:
        StorageError: If the storage cannot be used.
        InputError: If the address cannot be bound, others than this machine reach it and there
            is no password, or the artifacts cannot be reached.
    """
    from skdtune.queue.storage import masked, parse_url

    password = os.environ.get(PASSWORD_VARIABLE)
    # The address first: where it cannot be had, no table is made either.
    with _bind(host, port) as server:
        address = str(server.server_address[0])
        if not password and not is_loopback(address):
            raise InputError(
                f"others than this machine would reach the dashboard on "
                f"{host or 'every address'}: set "
                f"{PASSWORD_VARIABLE} to the password it is to ask for"
            )
        is_any = address in _ANY_ADDRESS
        names = _own_names() if is_any else [host, address]
        hosts = hosts_of(names, server.server_port, allowed_hosts)
        application = build_application(storage_url, artifacts)
        shown_as = application if allow_write else ReadOnlyNotice(application)
        server.set_app(Door(shown_as, hosts, password, allow_write))
        click.echo(f"dashboard of {masked(parse_url(storage_url))}", err=True)
        shown = "localhost" if is_any else f"[{host}]" if ":" in host else host
        page = f"http://{shown}:{server.server_port}/dashboard/"
        others = ", or with the name or an address of this machine" if is_any else ""
        click.echo(f"{page}{others}  (Ctrl-C ends it)", err=True)
        server.serve_forever()


def _own_names() -> list[str]:
    """List this machine's name and addresses."""
    import psutil

    families = (socket.AF_INET, socket.AF_INET6)
    addresses = (one for found in psutil.net_if_addrs().values() for one in found)
    return [socket.gethostname(), *(one.address for one in addresses if one.family in families)]


def _bind(host: str, port: int) -> _Server:
    try:
        return _Server(host, port)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from None


def build_application(storage_url: str, artifacts: str) -> WsgiApplication:
    """Build optuna-dashboard's application, with the artifacts of a folder or an fsspec URL."""
    from optuna_dashboard import wsgi

    from skdtune.queue.storage import init_storage
    from skdtune.views.dashboard.artifacts import Attachments
    from skdtune.views.dashboard.study_pages import StudyPages

    storage = init_storage(storage_url)
    application = wsgi(storage, artifact_store=_artifact_store(artifacts))
    return Attachments(StudyPages(application, storage), storage)


def _artifact_store(artifacts: str) -> ArtifactStore:
    from optuna.artifacts import FileSystemArtifactStore

    if "://" not in artifacts:
        folder = Path(artifacts).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(str(folder))
    from skdtune.networks.artifact_store import RemoteArtifactStore

    return RemoteArtifactStore(artifacts)

"""optuna-dashboard's own application, on the storage that skdtune opens, behind a password."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import click

from skdtune.errors import InputError

#: Where set, the dashboard asks for this password (any user name).
PASSWORD_VARIABLE = "SKDTUNE_DASHBOARD_PASSWORD"

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


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


def serve(storage_url: str, artifacts: str, host: str, port: int) -> None:
    """Serve the dashboard until Ctrl-C.

    The schema is made first: on an empty database the dashboard would not start.

    Args:
        storage_url: The storage.
        artifacts: Folder or fsspec URL of the artifacts.
        host: Address to listen on.
        port: Port to listen on, 0 for any.

    Raises:
        StorageError: If the storage cannot be used.
        InputError: If the address cannot be bound, or the artifacts cannot be reached.
    """
    from skdtune.queue.storage import masked, parse_url

    # The address first: where it cannot be had, no table is made either.
    with _bind(host, port) as server:
        application = build_application(storage_url, artifacts)
        password = os.environ.get(PASSWORD_VARIABLE)
        if password:
            application = with_password(application, password)
        elif host not in _LOOPBACK:
            click.echo(
                f"warning: {PASSWORD_VARIABLE} is not set: anyone who reaches this can delete "
                "studies",
                err=True,
            )
        server.set_app(application)
        click.echo(f"dashboard of {masked(parse_url(storage_url))}", err=True)
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"http://{shown}:{server.server_port}/dashboard/  (Ctrl-C ends it)", err=True)
        server.serve_forever()


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

    storage = init_storage(storage_url)
    application: WsgiApplication = wsgi(storage, artifact_store=_artifact_store(artifacts))
    return application


def _artifact_store(artifacts: str) -> ArtifactStore:
    from optuna.artifacts import FileSystemArtifactStore

    if "://" not in artifacts:
        folder = Path(artifacts).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(str(folder))
    from skdtune.networks.artifact_store import RemoteArtifactStore

    return RemoteArtifactStore(artifacts)


def with_password(application: WsgiApplication, password: str) -> WsgiApplication:
    """Ask for a password (HTTP basic authentication, any user name) before anything is served."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = _password_of(environ.get("HTTP_AUTHORIZATION", ""))
        # Compared in constant time, so that the time to refuse says nothing about the password.
        if given is not None and hmac.compare_digest(given, password.encode()):
            return application(environ, start_response)
        start_response(
            "401 Unauthorized",
            [("WWW-Authenticate", 'Basic realm="skdtune"'), ("Content-Type", "text/plain")],
        )
        return [b"password required\n"]

    return guarded


def _password_of(header: str) -> bytes | None:
    kind, _, credentials = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return None

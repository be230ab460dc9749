"""Who may ask the dashboard for what: checks before its application, headers on its answers.

A browser carries every page's requests to this machine, those of strangers too. A name that a
stranger made point here (DNS rebinding) is told by the ``Host``, a request of a stranger's page by
``Origin`` and ``Sec-Fetch-Site``, which no page can forge.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from skdtune.errors import InputError

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
#: What a browser leaves out of an address.
_DEFAULT_PORTS = (80, 443)
_READING = ("GET", "HEAD")
#: A refused body is read so far: else the connection may be reset before the answer is seen.
_MAX_REFUSED_BODY = 1 << 20

#: For the dashboard's page. Parallel coordinates are drawn by WebGL code that is made on the spot
#: ('unsafe-eval'), styles stand in the page; scripts are its own, and nothing goes elsewhere.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self'; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: For all else: should a browser ever show it as a page, it can do nothing.
_DATA_POLICY = "default-src 'none'; sandbox; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@dataclass(frozen=True)
class AllowedHosts:
    """The hosts that a browser may know the dashboard by."""

    entries: frozenset[tuple[str, int | None]]
    """Names or addresses, each with a port, or None for any port."""

    def __contains__(self, authority: object) -> bool:
        """Tell whether a ``Host`` header names one of them."""
        found = _read_authority(str(authority))
        if found is None:
            return False
        name, port = found
        ports = _DEFAULT_PORTS if port is None else (port,)
        return any((name, port) in self.entries for port in (None, *ports))


def read_allowed_host(text: str) -> tuple[str, int | None]:
    """Read an ``--allowed-host``.

    Raises:
        InputError: If it is neither a host nor a host with a port.
    """
    # An address of IPv6 may stand without its brackets here.
    is_bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    found = _read_authority(f"[{text}]" if is_bare_ipv6 else text)
    if found is None:
        raise InputError(
            f"--allowed-host {text!r}: expected HOST or HOST:PORT, as a browser shows it between "
            "// and the next /"
        )
    return found


def _read_authority(text: str) -> tuple[str, int | None] | None:
    """Split a host and its port; None if it is not written as a browser writes them."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    name, port = _canonical(found[1]), int(found[2]) if found[2] else None
    return (name, port) if name and port != 0 else None


def hosts_of(names: Sequence[str], port: int, extra: Sequence[str]) -> AllowedHosts:
    """Return the hosts to answer under.

    Args:
        names: Names and addresses that the server is bound to; with one of loopback, all of them.
        port: The port it is bound to.
        extra: What ``--allowed-host`` says.

    Raises:
        InputError: If one of ``extra`` is no host.
    """
    bound = {_canonical(name.lower()) for name in names}
    if any(is_loopback(name) for name in names):
        bound.update(_LOOPBACK_NAMES)
    entries = {(name, port) for name in bound} | {read_allowed_host(text) for text in extra}
    return AllowedHosts(frozenset(entries))


def is_loopback(name: str) -> bool:
    """Tell whether only this machine reaches a name or address."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _canonical(name: str) -> str:
    """Write a host in one way, an address of IPv6 in brackets; empty if it is none."""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "" if name.startswith("[") else name
    return f"[{address.compressed}]" if address.version == 6 else str(address)


@dataclass(frozen=True)
class Door:
    """The application behind its checks."""

    application: WsgiApplication
    hosts: AllowedHosts
    password: str | None = None
    """Asked for (HTTP basic authentication, any user name) before anything is served."""

    allow_write: bool = False
    """Requests may change what is stored."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or say why not."""
        path = environ.get("PATH_INFO", "")
        answer = self._refusal(environ) or self.application

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, _safe(headers, path), *rest)

        return answer(environ, start)

    def _refusal(self, environ: Environ) -> Refusal | None:
        host = environ.get("HTTP_HOST", "")
        if host not in self.hosts:
            return Refusal(
                "421 Misdirected Request",
                f"the dashboard is not known as {host[:200]!r}: `skdtune dashboard --allowed-host "
                "HOST` lets it answer under another host",
            )
        if _is_foreign(environ):
            return Refusal("403 Forbidden", "the dashboard answers no page but its own")
        if self.password and not _knows(environ, self.password):
            return Refusal(
                "401 Unauthorized",
                "password required",
                (("WWW-Authenticate", 'Basic realm="skdtune"'),),
            )
        if environ["REQUEST_METHOD"] not in _READING:
            if not self.allow_write:
                return Refusal(
                    "403 Forbidden",
                    "this dashboard is read-only: `skdtune dashboard --allow-write` lets it write",
                )
            # What an HTML form can send, no browser asks leave for.
            kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
            if _has_body(environ) and kind != "application/json":
                return Refusal("415 Unsupported Media Type", "expected application/json")
        return None


@dataclass(frozen=True)
class Refusal:
    """An answer that says in one line why there is no other."""

    status: str
    reason: str
    headers: tuple[tuple[str, str], ...] = ()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request; the dashboard's page shows the ``reason`` of its API."""
        length = environ.get("CONTENT_LENGTH") or "0"
        if length.isdecimal():
            environ["wsgi.input"].read(min(int(length), _MAX_REFUSED_BODY))
        is_api = environ.get("PATH_INFO", "").startswith("/api/")
        body = (json.dumps({"reason": self.reason}) if is_api else f"{self.reason}\n").encode()
        kind = "application/json" if is_api else "text/plain; charset=utf-8"
        sized = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(self.status, [*self.headers, *sized])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _is_foreign(environ: Environ) -> bool:
    """Tell whether another page than the dashboard's made a browser send a request.

    A link to the dashboard, or an address that somebody typed, is no foreign request.
    """
    reads = environ["REQUEST_METHOD"] in _READING
    # Another port of this machine is the same site, and a stranger nevertheless.
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
        is_link = (
            environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
            and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        )
        return not (reads and is_link and is_page(environ.get("PATH_INFO", "")))
    # Not every browser sends the former; this one all of them, with whatever may change something.
    origin = environ.get("HTTP_ORIGIN")
    return origin is not None and _authority_of(origin) != environ["HTTP_HOST"].lower()


def _authority_of(origin: str) -> str | None:
    scheme, _, authority = origin.lower().partition("://")
    return authority if scheme in ("http", "https") else None


def is_page(path: str) -> bool:
    """Tell whether a path is one of the dashboard's page, which is one for all of them."""
    return path == "/" or path == "/dashboard" or path.startswith("/dashboard/")


def _has_body(environ: Environ) -> bool:
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ


def _knows(environ: Environ, password: str) -> bool:
    kind, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    # Compared in constant time, so that the time to refuse says nothing about the password.
    return hmac.compare_digest(given, password.encode())


def _safe(headers: list[tuple[str, str]], path: str) -> list[tuple[str, str]]:
    """Replace what the application says of other origins."""
    policy = _PAGE_POLICY if is_page(path) else _DATA_POLICY
    replaced = {"content-security-policy", *(name.lower() for name, _ in _HEADERS)}
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in replaced and not name.lower().startswith("access-control-")
    ]
    return [*kept, *_HEADERS, ("Content-Security-Policy", policy)]

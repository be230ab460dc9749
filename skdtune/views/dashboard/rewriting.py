"""Change what an application answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from skdtune.views.dashboard.door import Environ, StartResponse, WsgiApplication

#: What a browser would compare a changed answer by.
_OF_THE_UNCHANGED = ("content-length", "etag", "last-modified")


def rewrite(
    application: WsgiApplication,
    environ: Environ,
    start_response: StartResponse,
    change: Callable[[bytes], bytes],
) -> Iterable[bytes]:
    """Answer as an application does, with another body where it has one to show.

    Args:
        application: The application.
        environ: The request.
        start_response: Takes status and headers.
        change: Makes the new body of the old one.
    """
    told: list[Any] = []
    # Always the whole of it, not that a browser has it already.
    asked = {key: value for key, value in environ.items() if not key.startswith("HTTP_IF_")}
    body = b"".join(application(asked, lambda *given: told.append(given)))
    status, headers = told[-1][:2]
    if status.startswith("200"):
        body = change(body)
    kept = [header for header in headers if header[0].lower() not in _OF_THE_UNCHANGED]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]

"""A page that may not change anything says so: optuna-dashboard only says that it failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skdtune.views.dashboard.door import Environ, StartResponse, WsgiApplication, is_page
from skdtune.views.dashboard.rewriting import rewrite

_NOTICE = (
    b'<div style="position:fixed; bottom:6px; right:12px; z-index:9999; pointer-events:none; '
    b'padding:2px 8px; border-radius:4px; font:12px sans-serif; color:#fff; background:#57606a">'
    b"Read-only: skdtune dashboard --allow-write lets this page change studies</div></body>"
)


@dataclass(frozen=True)
class ReadOnlyNotice:
    """The application, with a notice in a corner of its page."""

    application: WsgiApplication

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if environ["REQUEST_METHOD"] != "GET" or not is_page(environ.get("PATH_INFO", "")):
            return self.application(environ, start_response)
        return rewrite(
            self.application,
            environ,
            start_response,
            lambda body: body.replace(b"</body>", _NOTICE),
        )

"""Artifacts are handed out as files to keep: none is opened as a page of the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from skdtune.queue.kept_network import ARTIFACT_PREFIX
from skdtune.views.dashboard.door import Environ, StartResponse, WsgiApplication

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_PATH = re.compile(r"/artifacts/(\d{1,18})(?:/(\d{1,18}))?/([0-9a-fA-F-]+)/*")


@dataclass(frozen=True)
class Attachments:
    """The application, whose artifacts a browser downloads."""

    application: WsgiApplication
    storage: BaseStorage

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "")
        if not path.startswith("/artifacts"):
            return self.application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [header for header in headers if header[0].lower() != "content-disposition"]
            disposition = attachment(self._filename(path))
            return start_response(status, [*kept, ("Content-Disposition", disposition)], *rest)

        return self.application(environ, start)

    def _filename(self, path: str) -> str:
        """Return the name that an artifact was kept under; empty if nobody knows it."""
        found = _PATH.fullmatch(path)
        if found is None:
            return ""
        study_id, trial_id, artifact_id = found.groups()
        try:
            attributes = (
                self.storage.get_trial_system_attrs(int(trial_id))
                if trial_id
                else self.storage.get_study_system_attrs(int(study_id))
            )
            return str(json.loads(attributes[f"{ARTIFACT_PREFIX}{artifact_id}"])["filename"])
        except (KeyError, TypeError, ValueError):
            return ""


def attachment(filename: str) -> str:
    """Write a ``Content-Disposition`` that no name can break out of.

    Args:
        filename: Any text; of a path only its last part is used.
    """
    name = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", filename)[-1]).lstrip(". ")[:150]
    if not name:
        return "attachment"
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", name)
    exact = quote(name, safe="", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"

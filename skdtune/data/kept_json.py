"""What was found out about data, kept in the cache as JSON: whole, or to be found out again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, content: Any) -> None:
    """Write plain data whole or not at all; a cache that cannot be written stays as it is."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    for left_over in path.parent.glob(f".{path.name}.*.tmp"):
        # Of a writer that was killed; one that is alive writes the same, and may do without.
        with contextlib.suppress(OSError):
            left_over.unlink()
    try:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump(content, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)

"""The short form in which data and their caches are identified."""

from __future__ import annotations

import hashlib


def short_hash(*parts: str | bytes) -> str:
    """Hash a description to twelve hexadecimal digits; where a part ends makes a difference."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:12]

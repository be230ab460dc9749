"""What names a study, and what its trials' seeds are derived from."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import StringConstraints

StudyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


def derive_seed(seed: int, *words: object) -> int:
    """Derive an independent 31-bit seed from a seed and what it is for."""
    text = ":".join(map(str, (seed, *words)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

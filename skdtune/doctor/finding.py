"""What an examination looks at, and what it finds: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skdtune.home import Home

#: ``note``: it works, and somebody may want to know; ``wrong``: something will not work.
Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """What was looked at, in a word or two."""

    level: Level
    says: str
    remedy: str = ""
    """What to do about it; empty where nothing needs to be done."""

    @property
    def line(self) -> str:
        """What is so, and what to do about it."""
        return f"{self.says}: {self.remedy}" if self.remedy else self.says


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What is examined: this machine as one call of the command line sees it."""

    home: Home
    storage_url: str
    study: str | None = None
    """A study or a family to look at; None for none."""

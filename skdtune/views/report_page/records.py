"""What the figures draw: one study and its trials as plain, checked data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skdtune.describe.spec import StudySpec

#: Order in which numbers of trials are told.
STATES = ("complete", "pruned", "failed", "running", "waiting")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Mean ranked softmax output over the judged images: largest probability first."""

    first: tuple[float, ...]
    """After the first epoch."""

    last: tuple[float, ...]
    """After the last epoch."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial; whatever the storage holds that is no finite number is left out."""

    number: int
    state: str
    """waiting, running, complete, pruned or failed."""

    value: float | None = None
    """Objective of a complete trial; the last reported value of any other."""

    params: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...] = ()
    """Epochs, counted from 1, with what was reported after each."""

    ended_at: float | None = None
    """Seconds since 1970 at which it ended."""

    images: int | None = None
    """Images trained on, all views counted."""

    seconds: float | None = None
    """Time on the device."""

    profile: Profile | None = None
    failure_kind: str | None = None
    failure_reason: str | None = None
    facts: Mapping[str, str]
    """Where and with what it ran, as text for people."""

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def is_over(self) -> bool:
        """Nobody will train it further."""
        return self.state in ("complete", "pruned", "failed")


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study with its trials, and what was computed from all of them."""

    spec: StudySpec
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None = None
    """Best complete trial of a search; the lower number wins a tie."""

    value_name: str = "validation accuracy"
    """What the objective is."""

    curve_name: str = "validation accuracy"
    """What is reported after each epoch."""

    num_images: int | None = None
    """Images behind every value of the objective."""

    standard_errors: Mapping[int, float]
    """Binomial standard errors by trial, of the best trial and of trial 0."""

    importance: Mapping[str, float]
    """Share of each parameter, together 1; empty where it could not be computed."""

    importance_note: str = ""
    """What it was computed from, or why it was not."""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.spec.name

    @property
    def published(self) -> TrialRecord | None:
        """Trial 0, the published setting, once it is complete."""
        complete = (t for t in self.trials if t.number == 0 and t.state == "complete")
        return next(complete, None) if self.picks_best else None

    @property
    def picks_best(self) -> bool:
        """Its best trial is a result; of a study that trains chosen settings again none is."""
        return self.spec.kind.picks_best

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state."""
        found = Counter(trial.state for trial in self.trials)
        return {state: found[state] for state in STATES}

    @property
    def shown(self) -> tuple[TrialRecord, ...]:
        """The trials worth a name: the best one, and trial 0 where it is another one.

        Of a final evaluation it is trial 0, the best candidate's first seed: the best of several
        seeds is no result.
        """
        if not self.picks_best:
            return tuple(trial for trial in self.trials if trial.number == 0)
        published = self.published
        both = (self.best, None if published == self.best else published)
        return tuple(trial for trial in both if trial is not None)

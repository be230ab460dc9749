"""One study as everybody looks at it: its trials, read once, and what is picked out of them."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from skdtune.analysis.trial_record import TrialRecord, read_trial
from skdtune.analysis.verdict import standard_error
from skdtune.describe.spec import StudySpec
from skdtune.queue.best_trial import best_first
from skdtune.queue.foreign_trials import read_checked
from skdtune.queue.stored_study import StoredStudy, load_study

#: Order in which numbers of trials are told.
STATES = ("complete", "pruned", "failed", "running", "waiting")


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study with its trials, and what follows from all of them."""

    spec: StudySpec
    trials: tuple[TrialRecord, ...]
    """What skdtune's workers made, or will make."""

    foreign: tuple[TrialRecord, ...] = ()
    """Trials that count nowhere: rows of somebody else, or that nobody can read."""

    digest: str = ""
    """Hash of the spec as it was created, which trials leave behind; a new name changes none."""

    num_images: int | None = None
    """Validation images behind every value of the objective."""

    importance: Mapping[str, float] = field(default_factory=dict)
    """Share of each parameter, together 1; empty where it could not be, or was not, computed."""

    importance_note: str = ""
    """What it was computed from, or why it was not."""

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.spec.name

    @property
    def value_name(self) -> str:
        """What the objective is."""
        return self.spec.kind.metric_name

    @property
    def curve_name(self) -> str:
        """What is reported after each epoch."""
        return self.spec.kind.step_name

    @property
    def picks_best(self) -> bool:
        """Its best trial is a result; of a study that trains chosen settings again none is."""
        return self.spec.kind.picks_best

    @property
    def listed(self) -> tuple[TrialRecord, ...]:
        """All trials, foreign ones too, by number."""
        return tuple(sorted((*self.trials, *self.foreign), key=lambda trial: trial.number))

    @functools.cached_property
    def ranked(self) -> tuple[TrialRecord, ...]:
        """The complete trials, the one of the highest value first."""
        return tuple(best_first(trial for trial in self.trials if trial.state == "complete"))

    @property
    def best(self) -> TrialRecord | None:
        """Best complete trial; None where none is picked."""
        return self.ranked[0] if self.ranked and self.picks_best else None

    @property
    def published(self) -> TrialRecord | None:
        """Trial 0, the published setting, once it is complete; None where none is picked."""
        return self.first if self.picks_best else None

    @property
    def first(self) -> TrialRecord | None:
        """Trial 0, once it is complete."""
        return next((trial for trial in self.ranked if trial.number == 0), None)

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

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """Trials by state."""
        counted = Counter(trial.state for trial in self.trials)
        return {state: counted[state] for state in STATES}

    @property
    def epochs_trained(self) -> int:
        """Epochs that all trials together took."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def data_fingerprints(self) -> frozenset[str]:
        """What identifies the training and validation images; one, unless the data changed."""
        prints = (trial.data_fingerprint for trial in self.trials)
        return frozenset(each for each in prints if each is not None)

    def standard_error(self, value: float | None) -> float | None:
        """Return the binomial standard error of an accuracy on the validation images."""
        return None if value is None else standard_error(value, self.num_images)


def read_study(stored: StoredStudy) -> StudyRecord:
    """Read all trials of an opened study."""
    kind = stored.spec.kind
    checked = read_checked(stored.storage, stored.study_id, kind)
    listed = [read_trial(one.trial, kind, one.foreign) for one in checked]
    trials = tuple(trial for trial in listed if not trial.foreign)
    num_images = next((trial.num_val_images for trial in trials if trial.num_val_images), None)
    return StudyRecord(
        spec=stored.spec,
        trials=trials,
        foreign=tuple(trial for trial in listed if trial.foreign),
        digest=stored.digest,
        num_images=num_images,
    )


def study_record(study: str, *, storage: str | None = None) -> StudyRecord:
    """Read a study with all its trials.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as stored:
        return read_study(stored)

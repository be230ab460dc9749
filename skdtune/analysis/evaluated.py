"""Evaluated studies, and the rows of a comparison between them: plain numbers and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field

from skdtune.analysis.statistics import PairedComparison, Summary


@dataclass(frozen=True, kw_only=True)
class EvaluatedSeed:
    """One training on train and validation images, and what it was worth on the test images."""

    seed_index: int
    """Which seed of the evaluation; trainings of one index are paired."""

    seed: int
    accuracy: float
    """Share of test images, 0 to 1; so is `top5`."""

    top5: float
    ece: float
    """Expected calibration error, 0 to 1."""

    nll: float
    """Mean negative log-likelihood in nats."""

    images: int
    """Images trained on, every view counted."""

    seconds: float
    """Sum of the epochs' times."""

    peak_memory_mb: float | None
    trial: int


@dataclass(frozen=True, kw_only=True)
class EvaluatedStudy:
    """One setting of a study, trained from several seeds."""

    study: str
    method: str
    candidate_trial: int
    """The trial of the search that the setting is from."""

    seeds: tuple[EvaluatedSeed, ...]
    data_fingerprint: str
    network: str
    epochs: int
    search_images: int | None
    """Images that the whole search trained on; None where it is not known."""

    search_seconds: float | None
    num_search_trials: int | None
    digest: str
    """Of the study spec."""

    versions: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    """What is the same in all trials of the study and no part of the method, by dotted path."""

    devices: tuple[str, ...] = ()
    """Where the trainings ran, with their precision."""

    num_failed: int = 0
    """Trainings that ended without a score, by a loss that became non-finite or otherwise."""

    num_left: int = 0
    """Trainings that are not finished yet."""

    has_teacher: bool = False
    """A network that was trained before took part; its own training is in no number here."""

    computed_by: InitVar[tuple[str, ...]] = ()
    """See `kernels`."""

    mixed: InitVar[tuple[str, ...]] = ()
    """See `mixtures`. Neither is a field: the fields are what programs read."""

    def __post_init__(self, computed_by: tuple[str, ...], mixed: tuple[str, ...]) -> None:
        object.__setattr__(self, "_kernels", computed_by)
        object.__setattr__(self, "_mixtures", mixed)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Which form of the layers computed the trainings."""
        found: tuple[str, ...] = self._kernels  # type: ignore[attr-defined]
        return found

    @property
    def mixtures(self) -> tuple[str, ...]:
        """What the trials of its search, or its trainings, should have in common and have not."""
        found: tuple[str, ...] = self._mixtures  # type: ignore[attr-defined]
        return found


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One setting beside the baseline."""

    label: str
    """The study; with the number of its trial where a study gave several settings."""

    study: str
    method: str
    candidate_trial: int
    accuracy: Summary
    accuracy_vs_baseline: PairedComparison | None
    """None for the baseline itself, here and below."""

    top5: Summary
    ece: Summary
    ece_vs_baseline: PairedComparison | None
    """Lower is better."""

    nll: Summary
    nll_vs_baseline: PairedComparison | None
    """Lower is better."""

    images: float
    """Mean per training."""

    images_ratio: float | None
    """Over the baseline's; None where that is 0."""

    seconds: float
    """Mean per training."""

    seconds_ratio: float | None
    peak_memory_mb: float | None
    """Mean over the seeds; None where a training did not measure it."""

    peak_memory_ratio: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every setting beside the baseline, the baseline first."""

    baseline: str
    """Label of the baseline's row."""

    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    """What differs between the studies beside the method, one sentence each."""

    alpha: float
    studies: tuple[EvaluatedStudy, ...]
    """What the numbers were made of, in the order of the rows."""

    @property
    def others(self) -> tuple[ComparisonRow, ...]:
        """All rows but the baseline."""
        return self.rows[1:]

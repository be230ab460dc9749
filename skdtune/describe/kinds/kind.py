"""What a kind of study says: how its trials are made, judged, named and shown.

A kind is one file of this folder and one line of its catalogue, which names the field of the spec
that holds its ``settings``. Everybody else asks the kind, and no one which kind it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from skdtune.describe.space import Scalar, SearchSpace

#: What is called after the images that a search is judged on.
VALIDATION_ACCURACY = "validation accuracy"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a note tells of a study, whatever its kind."""

    epochs: int
    num_trials: int
    window_epochs: int
    """Last epochs that the objective is the mean of."""

    sampler: str
    pruner: str
    search: SearchSpace
    base_params: Mapping[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings that a study trains again, from a trial of the study that was searched."""

    trial: int
    """Its number there."""

    params: Mapping[str, Scalar]


class Kind(ABC):
    """How the trials of a study are made, judged, named and shown."""

    written_by: ClassVar[str] = ""
    """Who alone writes the settings, and why; empty if a study file may."""

    # How trials learn and are judged

    metric_name: ClassVar[str]
    """The number that trials are judged by."""

    step_name: ClassVar[str]
    """The number that is stored of every epoch."""

    value_heading: ClassVar[str]
    """What heads a column with the one or the other, as far as a trial has come."""

    learns_from_all_images: ClassVar[bool]
    """Trials learn from training and validation images together, and have none to be judged on."""

    is_tested: ClassVar[bool]
    """A trial is scored on the test images, once, after its last epoch."""

    judged_images: ClassVar[Literal["validation", "test"]]
    """What a trial's objective was measured on."""

    scores_prefix: ClassVar[Literal["val", "test"]]
    """Start of the attributes with the other scores on these images."""

    # What may be chosen

    picks_best: ClassVar[bool]
    """The trial of the highest value is a result: it is shown, compared and handed out as one."""

    keeps_every_network: ClassVar[bool]
    """The networks of all trials are kept where a spec says ``best``."""

    @property
    def source(self) -> str | None:
        """Name of the study whose trials this one trains again; None where they are sampled."""
        return None

    @property
    def source_lineage(self) -> str | None:
        """Token of that study's creation, by which it is found under whatever name it has now."""
        return None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Settings that are trained again, the best first; none where they are sampled.

        The first trials of the study are one of each.
        """
        return ()

    def candidate_of(self, number: int) -> Candidate | None:
        """Return the settings that a trial trains again; None where they are sampled."""
        return None

    # How trials are made

    @abstractmethod
    def params_of(self, number: int, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a trial.

        Args:
            number: Its number.
            sampled: What was sampled for it.
        """

    @abstractmethod
    def seed_of(self, number: int, study_seed: int) -> int:
        """Return the seed of a trial."""

    def origin_of(self, number: int) -> dict[str, int]:
        """Return the attributes that say what a trial trains again."""
        return {}

    @abstractmethod
    def never_pruned(self, number: int, is_queued: bool) -> str:
        """Say why a trial runs to its end, whatever the pruner says; empty if it may be pruned.

        Others are judged against its values all the same.

        Args:
            number: Its number.
            is_queued: A person chose parameters of it.
        """

    @abstractmethod
    def require_consistent(self, search: SearchSpace, pruner: str) -> None:
        """Refuse a spec that is none of this kind.

        Raises:
            ValueError: If something does not belong together.
        """

    # What is said of them

    @abstractmethod
    def require_picking(self, study: str) -> None:
        """Refuse to pick the best trial where that would choose on the test images.

        Raises:
            StudyError: If none is picked.
        """

    @abstractmethod
    def require_evaluable(self, study: str) -> None:
        """Refuse a final evaluation of a study whose trials none is picked of.

        Raises:
            StudyError: If it cannot be evaluated.
        """

    @abstractmethod
    def require_queueable(self, study: str) -> None:
        """Refuse trials whose parameters a person chooses where they are given.

        Raises:
            StudyError: If none can be queued.
        """

    @abstractmethod
    def default_trial(self, ranked: Sequence[int]) -> int:
        """Return the trial that is handed out unless another one is named.

        Args:
            ranked: Numbers of the complete trials, the best first; at least one.
        """

    @abstractmethod
    def without_network(self, study: str, keep_networks: str) -> str:
        """Say why the network of a complete trial may be missing, and what can be done.

        The text stands behind ``the network of trial N of 'study' was not kept``.
        """

    @abstractmethod
    def result_command(self, study: str) -> str:
        """Return what a person types to see the result."""

    def made_by(self, study: str, num_trials: int, epochs: int) -> list[str] | None:
        """Return the command that makes such a study from another one, without ``skdtune``.

        Args:
            study: Its name.
            num_trials: Its trials.
            epochs: Epochs of each.

        Returns:
            Its words; None where a preset or a study file makes it.
        """
        return None

    def tried_paths(self, search: SearchSpace) -> list[str]:
        """List the paths of the parameters that trials differ in."""
        return list(search)

    @abstractmethod
    def note(self, outline: Outline) -> list[str]:
        """Say in Markdown, line by line, what the study does and what it tries."""


def note_row(*cells: str) -> str:
    """Write one row of a table of a note."""
    # The dashboard draws tables without any space between columns: each cell brings its own.
    gap = "\N{EM SPACE}"
    one_line = (" ".join(cell.split()).replace("|", "/") for cell in cells)
    return "| " + " | ".join(f"{cell}{gap}" for cell in one_line) + " |"

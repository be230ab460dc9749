"""A final evaluation: chosen trials of a search are trained again, and tested once per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from skdtune.describe.identity import StudyName, derive_seed
from skdtune.describe.kinds.kind import Candidate, Kind, Outline, note_row
from skdtune.describe.settings import LATER, Frozen
from skdtune.describe.space import Scalar, SearchSpace
from skdtune.errors import StudyError

#: What the name of an evaluation adds to that of its study.
SUFFIX = ".test"


def evaluation_name(study: str) -> str:
    """Return the usual name of the final evaluation of a study."""
    return f"{study}{SUFFIX}"


class EvaluationConfig(Frozen):
    """What a final evaluation tests: chosen trials of a search, each with several seeds.

    Trial n of the evaluation is candidate n modulo their number: whatever stops it, all
    candidates have been trained with nearly as many seeds.
    """

    of_first_release = True

    source: StudyName
    """The study that was searched."""

    lineage: str
    """Random token of that study's creation."""

    digest: str
    """Hash of that study's spec."""

    trials: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Numbers of the candidates in that study, the best one first."""

    params: tuple[dict[str, Scalar], ...]
    """Parameters of each candidate."""

    search_epochs: Annotated[int | None, LATER] = Field(default=None, ge=1)
    """Epochs of the trials of that study, where the trainings of this one have others."""

    @model_validator(mode="after")
    def _complete(self) -> EvaluationConfig:
        if len(self.params) != len(self.trials):
            raise ValueError(
                f"evaluation.params: expected {len(self.trials)} sets, one for each candidate, "
                f"received {len(self.params)}"
            )
        return self

    def place(self, number: int) -> tuple[int, int]:
        """Return the index of the candidate and that of the seed of a trial of the evaluation."""
        seed_index, candidate = divmod(number, len(self.trials))
        return candidate, seed_index


@dataclass(frozen=True)
class FinalEvaluation(Kind):
    """A study of (candidate, seed): it searches nothing, and nothing of it is picked."""

    settings: EvaluationConfig
    written_by = "only `skdtune evaluate` writes it, which knows the winners"
    metric_name = "test accuracy"
    step_name = "training loss"
    value_heading = "value"
    learns_from_all_images = True
    is_tested = True
    judged_images = "test"
    scores_prefix = "test"
    picks_best = False
    keeps_every_network = True

    @property
    def source(self) -> str:
        """Name of the study that was searched."""
        return self.settings.source

    @property
    def source_lineage(self) -> str:
        """Token of that study's creation."""
        return self.settings.lineage

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The chosen trials, the best of the search first."""
        chosen = zip(self.settings.trials, self.settings.params, strict=True)
        return tuple(Candidate(trial=trial, params=params) for trial, params in chosen)

    def candidate_of(self, number: int) -> Candidate:
        """Return the chosen trial that a trial trains again."""
        index, _ = self.settings.place(number)
        return Candidate(trial=self.settings.trials[index], params=self.settings.params[index])

    def params_of(self, number: int, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Return the candidate's; nothing is sampled."""
        return {**self.candidate_of(number).params, **sampled}

    def seed_of(self, number: int, study_seed: int) -> int:
        """Return one that is the same in every evaluation: their results are pairs."""
        _, seed_index = self.settings.place(number)
        return derive_seed(0, "evaluation", seed_index)

    def origin_of(self, number: int) -> dict[str, int]:
        """Name the candidate and the seed."""
        index, seed_index = self.settings.place(number)
        return {"evaluated_trial": self.settings.trials[index], "seed_index": seed_index}

    def never_pruned(self, number: int, is_queued: bool) -> str:
        """Spare none: there is no pruner."""
        return ""

    def require_consistent(self, search: SearchSpace, pruner: str) -> None:
        """Refuse a search space and a pruner."""
        if search or pruner != "none":
            raise ValueError("evaluation: a final evaluation has no search space and no pruner")

    def require_picking(self, study: str) -> None:
        """Refuse it."""
        raise StudyError(
            f"study {study!r} is the final evaluation of {self.source}, of which none is picked: "
            f"{self.result_command(study)} shows its mean"
        )

    def require_evaluable(self, study: str) -> None:
        """Refuse it."""
        raise StudyError(
            f"study {study!r} is itself the final evaluation of {self.source}: "
            f"skdtune evaluate {self.source}"
        )

    def require_queueable(self, study: str) -> None:
        """Refuse it."""
        raise StudyError(
            f"study {study!r} is the final evaluation of {self.source}, whose trials are its "
            f"candidates; skdtune evaluate {self.source} --seeds N trains more seeds of them"
        )

    def default_trial(self, ranked: Sequence[int]) -> int:
        """Return the first one, since to choose by the test images is not for it."""
        return min(ranked)

    def without_network(self, study: str, keep_networks: str) -> str:
        """Say no more: its spec, or the worker's log, does."""
        return ""

    def result_command(self, study: str) -> str:
        """Show its mean."""
        usual = study == evaluation_name(self.source)
        return f"skdtune evaluate {self.source}" + ("" if usual else f" --name {study}")

    def made_by(self, study: str, num_trials: int, epochs: int) -> list[str]:
        """Evaluate as many candidates, with as many seeds, for as many epochs."""
        top = len(self.settings.trials)
        words = ["evaluate", self.source, "--top", str(top), "--seeds", str(num_trials // top)]
        words += ["--epochs", str(epochs)] if self.settings.search_epochs is not None else []
        return [*words, "--name", study]

    def tried_paths(self, search: SearchSpace) -> list[str]:
        """List what the candidates differ in."""
        return list(dict.fromkeys(path for params in self.settings.params for path in params))

    def note(self, outline: Outline) -> list[str]:
        """Say what is tested, and list the candidates."""
        settings = self.settings
        seeds = outline.num_trials // len(settings.trials)
        searched = settings.search_epochs
        length = "epochs" if searched is None else f"epochs (the trials of the search: {searched})"
        lines = [
            f"Final evaluation of study `{self.source}` (spec `{settings.digest}`). Each "
            f"trial learns from the training and the validation images for {outline.epochs} "
            f"{length}, and is scored once on the **test images**, after its last epoch. "
            "Nothing is chosen here: the best value says nothing, the mean over the seeds does. "
            "The curves show the training loss.",
            "",
            f"Created with {seeds} seeds of each candidate. Trial n is candidate n modulo "
            f"{len(settings.trials)}.",
            "",
            note_row("candidate", f"trial of {self.source}", "parameters"),
            "| :--- | :--- | :--- |",
        ]
        for index, candidate in enumerate(self.candidates):
            params = ", ".join(f"{path}={value}" for path, value in candidate.params.items())
            row = (str(index), str(candidate.trial), params or "the base configuration")
            lines.append(note_row(*row))
        return lines

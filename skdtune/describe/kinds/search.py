"""A search: parameters are sampled, trials are judged on validation images, the best is picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skdtune.describe.identity import derive_seed
from skdtune.describe.kinds.kind import VALIDATION_ACCURACY, Kind, Outline, note_row
from skdtune.describe.space import SearchSpace


@dataclass(frozen=True)
class Search(Kind):
    """The study that everything begins with."""

    metric_name = VALIDATION_ACCURACY
    step_name = VALIDATION_ACCURACY
    value_heading = "accuracy"
    learns_from_all_images = False
    is_tested = False
    judged_images = "validation"
    scores_prefix = "val"
    picks_best = True
    keeps_every_network = False

    def params_of(self, number: int, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was sampled."""
        return dict(sampled)

    def seed_of(self, number: int, study_seed: int) -> int:
        """Derive it from the study's: trial k of two studies starts from the same weights."""
        return derive_seed(study_seed, "trial", number)

    def never_pruned(self, number: int, is_queued: bool) -> str:
        """Spare what all others are compared with, and what a person wants to know."""
        if number == 0:
            return "the published setting"
        return "it was queued by hand" if is_queued else ""

    def require_consistent(self, search: SearchSpace, pruner: str) -> None:
        """Take any: a search of nothing tries its base with other seeds."""

    def require_picking(self, study: str) -> None:
        """Let it be picked, by the validation images."""

    def require_evaluable(self, study: str) -> None:
        """Let its best be evaluated."""

    def require_queueable(self, study: str) -> None:
        """Let people try what they like."""

    def default_trial(self, ranked: Sequence[int]) -> int:
        """Return the best one."""
        return ranked[0]

    def without_network(self, study: str, keep_networks: str) -> str:
        """Name the setting that decided it, and two ways to have one."""
        return (
            f" (keep_networks is {keep_networks!r}); "
            f"`skdtune evaluate {study}` trains the best one anew, then `skdtune export "
            f"{study}.test`; studies made with --set keep_networks=all keep every one"
        )

    def result_command(self, study: str) -> str:
        """Show the best one."""
        return f"skdtune best {study}"

    def note(self, outline: Outline) -> list[str]:
        """Say what is maximised, and list the parameters with their ranges."""
        window = outline.window_epochs
        mean = f" (mean of the last {window})" if window > 1 else ""
        lines = [
            f"Maximises the **{self.metric_name}** after {outline.epochs} epochs{mean}; "
            "the test data are not opened. Trial 0 is the published setting.",
            "",
            f"{outline.num_trials} trials, sampler `{outline.sampler}`, pruner "
            f"`{outline.pruner}`, at most {outline.num_trials * outline.epochs} epochs in all.",
            "",
            note_row("parameter", "range", "trial 0", "why"),
            "| :--- | :--- | :--- | :--- |",
        ]
        for path, param in outline.search.items():
            value = outline.base_params.get(path, "not active")
            default = f"{value:g}" if isinstance(value, float) else str(value)
            lines.append(note_row(f"`{path}`", param.describe(), default, param.reason))
        return lines

"""Which parameters set the best trials apart, by PED-ANOVA."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

from skdtune.describe.spec import StudySpec

if TYPE_CHECKING:
    import optuna

#: Fewer complete trials say nothing; the best of them would be two or three.
MIN_TRIALS = 10
#: The estimator's authors want at least so many trials among the best.
MIN_BEST = 5


def importance_of(study: optuna.Study, spec: StudySpec) -> tuple[dict[str, float], str]:
    """Compute the share of each searched parameter in reaching the best trials.

    PED-ANOVA (arXiv 2304.10255, for conditional parameters 2601.20800) as Optuna has it: how far
    the best trials' values of a parameter lie from those of all complete trials. The best are the
    best tenth, but five trials at least.

    Returns:
        The shares, largest first and together 1, and what they were computed from; no shares and
        the reason where they cannot be computed.
    """
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    present = {path for trial in complete for path in trial.params}
    params = [path for path in spec.search if path in present]
    if len(complete) < MIN_TRIALS:
        return {}, f"It needs {MIN_TRIALS} complete trials; there are {len(complete)}."
    if len({trial.value for trial in complete}) == 1 or not params:
        return {}, "It cannot be computed: all complete trials came out alike."
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    num_best = max(MIN_BEST, math.ceil(len(complete) / 10))
    with warnings.catch_warnings():
        # It warns where ties leave nothing to compare; the sum below tells the same.
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=num_best / len(complete))
        raw = get_param_importances(study, evaluator=evaluator, params=params, normalize=False)
    total = sum(raw.values())
    if not total > 0 or not math.isfinite(total):
        return {}, "It cannot be computed: too many of the best trials came out alike."
    ordered = sorted(raw.items(), key=lambda item: -item[1])
    shares = {path: value / total for path, value in ordered}
    hint = "" if len(complete) >= 10 * MIN_BEST else " With so few trials it is a hint, no more."
    return shares, f"Computed from the best {num_best} of {len(complete)} complete trials.{hint}"

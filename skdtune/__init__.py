"""skdtune: hyperparameter search for self-knowledge distillation.

The same steps as on the command line, in Python::

    import skdtune

    spec = skdtune.load_spec("digits-drg-dsr", num_trials=16)
    skdtune.create_study(spec, storage="sqlite:///skdtune.db")
    skdtune.run_worker("digits-drg-dsr", storage="sqlite:///skdtune.db", device="cpu")
    print(skdtune.results("digits-drg-dsr", storage="sqlite:///skdtune.db").best)

Nothing heavy is imported before one of these names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "create_evaluation",
    "create_study",
    "evaluated",
    "load_family",
    "load_spec",
    "plan_budget",
    "results",
    "run_worker",
]

if TYPE_CHECKING:
    from skdtune.analysis.evaluation_results import evaluated
    from skdtune.analysis.study_results import results
    from skdtune.describe.budget_planning import plan_budget
    from skdtune.describe.presets import load_family, load_spec
    from skdtune.queue.final_evaluation import create_evaluation
    from skdtune.queue.stored_study import create_study
    from skdtune.worker.worker import run_worker

_HOMES = {
    "create_evaluation": "skdtune.queue.final_evaluation",
    "create_study": "skdtune.queue.stored_study",
    "evaluated": "skdtune.analysis.evaluation_results",
    "load_family": "skdtune.describe.presets",
    "load_spec": "skdtune.describe.presets",
    "plan_budget": "skdtune.describe.budget_planning",
    "results": "skdtune.analysis.study_results",
    "run_worker": "skdtune.worker.worker",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

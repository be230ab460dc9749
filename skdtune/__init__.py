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
    from skdtune.budget_planning import plan_budget
    from skdtune.evaluation_results import evaluated
    from skdtune.presets import load_family, load_spec
    from skdtune.search.evaluation import create_evaluation
    from skdtune.search.study import create_study
    from skdtune.search.worker import run_worker
    from skdtune.study_results import results

_HOMES = {
    "create_evaluation": "skdtune.search.evaluation",
    "create_study": "skdtune.search.study",
    "evaluated": "skdtune.evaluation_results",
    "load_family": "skdtune.presets",
    "load_spec": "skdtune.presets",
    "plan_budget": "skdtune.budget_planning",
    "results": "skdtune.study_results",
    "run_worker": "skdtune.search.worker",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

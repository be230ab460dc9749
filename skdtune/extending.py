"""What a package of one's own is made of: all names that ``docs/extending.md`` uses.

Nothing is imported before one of the names is used, so that a module that only describes stays
free of torch. What these names promise changes only with a line in the changelog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

_HOMES = {
    "skdtune.catalogues.models": ("Family", "Network"),
    "skdtune.data.batches": ("Batch",),
    "skdtune.data.data_set": (
        "ArrayDataSet",
        "DecodedPart",
        "FileDataSet",
        "FileListing",
        "PartRequest",
    ),
    "skdtune.describe.data_config": ("DataConfig",),
    "skdtune.describe.data_facts": ("DataFacts",),
    "skdtune.describe.model_config": ("ModelConfig",),
    "skdtune.describe.settings": ("Stages",),
    "skdtune.describe.term_config": ("LabelTermConfig", "TaughtTermConfig", "TermConfig"),
    "skdtune.engines.engine": ("Engine", "FailedWorker", "Job", "Placement", "Slot"),
    "skdtune.errors": ("DataError", "InputError"),
    "skdtune.methods.base": ("BuildContext", "Step", "Term", "no_loss", "outside_autocast"),
    "skdtune.models.backbone": ("Backbone", "Outputs", "StagedBackbone"),
    "skdtune.models.heads.auxiliary": ("auxiliary_classifiers",),
    "skdtune.worker.hooks.hook": ("Hook", "TrialInHand"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        import importlib

        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

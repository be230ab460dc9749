"""What a package of one's own is made of: all names that ``docs/extending.md`` uses.

Nothing is imported before one of the names is used, so that a module that only describes stays
free of torch. What these names promise changes only with a line in the changelog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "ArrayDataSet",
    "Backbone",
    "Batch",
    "BuildContext",
    "DataConfig",
    "DataError",
    "DataFacts",
    "DecodedPart",
    "Engine",
    "FailedWorker",
    "Family",
    "FileDataSet",
    "FileListing",
    "Glance",
    "Hook",
    "InputError",
    "Job",
    "LabelTermConfig",
    "ModelConfig",
    "Network",
    "Outputs",
    "PartRequest",
    "Placement",
    "Slot",
    "StagedBackbone",
    "Stages",
    "Step",
    "TaughtTermConfig",
    "Term",
    "TermConfig",
    "TrainingLength",
    "TrialInHand",
    "auxiliary_classifiers",
    "no_loss",
    "outside_autocast",
]

if TYPE_CHECKING:
    from skdtune.catalogues.models import Family, Network
    from skdtune.data.batches import Batch
    from skdtune.data.data_set import (
        ArrayDataSet,
        DecodedPart,
        FileDataSet,
        FileListing,
        Glance,
        PartRequest,
    )
    from skdtune.describe.data_config import DataConfig
    from skdtune.describe.data_facts import DataFacts
    from skdtune.describe.model_config import ModelConfig
    from skdtune.describe.settings import Stages
    from skdtune.describe.term_config import LabelTermConfig, TaughtTermConfig, TermConfig
    from skdtune.describe.training_length import TrainingLength
    from skdtune.engines.engine import Engine, FailedWorker, Job, Placement, Slot
    from skdtune.errors import DataError, InputError
    from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
    from skdtune.models.backbone import Backbone, Outputs, StagedBackbone
    from skdtune.models.heads.auxiliary import auxiliary_classifiers
    from skdtune.worker.hooks.hook import Hook, TrialInHand

_HOMES = {
    "ArrayDataSet": "skdtune.data.data_set",
    "Backbone": "skdtune.models.backbone",
    "Batch": "skdtune.data.batches",
    "BuildContext": "skdtune.methods.base",
    "DataConfig": "skdtune.describe.data_config",
    "DataError": "skdtune.errors",
    "DataFacts": "skdtune.describe.data_facts",
    "DecodedPart": "skdtune.data.data_set",
    "Engine": "skdtune.engines.engine",
    "FailedWorker": "skdtune.engines.engine",
    "Family": "skdtune.catalogues.models",
    "FileDataSet": "skdtune.data.data_set",
    "FileListing": "skdtune.data.data_set",
    "Glance": "skdtune.data.data_set",
    "Hook": "skdtune.worker.hooks.hook",
    "InputError": "skdtune.errors",
    "Job": "skdtune.engines.engine",
    "LabelTermConfig": "skdtune.describe.term_config",
    "ModelConfig": "skdtune.describe.model_config",
    "Network": "skdtune.catalogues.models",
    "Outputs": "skdtune.models.backbone",
    "PartRequest": "skdtune.data.data_set",
    "Placement": "skdtune.engines.engine",
    "Slot": "skdtune.engines.engine",
    "StagedBackbone": "skdtune.models.backbone",
    "Stages": "skdtune.describe.settings",
    "Step": "skdtune.methods.base",
    "TaughtTermConfig": "skdtune.describe.term_config",
    "Term": "skdtune.methods.base",
    "TermConfig": "skdtune.describe.term_config",
    "TrainingLength": "skdtune.describe.training_length",
    "TrialInHand": "skdtune.worker.hooks.hook",
    "auxiliary_classifiers": "skdtune.models.heads.auxiliary",
    "no_loss": "skdtune.methods.base",
    "outside_autocast": "skdtune.methods.base",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

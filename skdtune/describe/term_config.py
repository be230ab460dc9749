"""What the settings of every term have in common: what a method may declare of itself.

The settings of a method import no torch. They name the term that is built from them, and say what
the study, the data and the worker have to know of the method, none of which knows it by name.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig
from skdtune.describe.settings import Frozen
from skdtune.describe.training_length import TrainingLength

#: How the images of a step are chosen; see ``skdtune.data.plans``. Every plan knows the index of
#: every image, ``indexed`` also promises that no image comes twice in an epoch.
BatchPlanName = Literal[
    "plain", "indexed", "class_pairs", "groups", "two_views", "two_views_joint"
]


class TermConfig(Frozen):
    """Base of the settings of all terms.

    Every field is a setting that can be set and, unless it says otherwise, searched under
    ``method.<name>.<field>``. A weight of zero switches a term off.
    """

    term: ClassVar[str]
    """``module:class`` of the :class:`~skdtune.methods.base.Term` that is built from them."""

    not_searchable: ClassVar[frozenset[str]] = frozenset()
    """Fields that must be the same for all trials of a study."""

    why_unmixed: ClassVar[str] = "it does not say that it can learn from two labels"
    """Why mixup and CutMix are of no use to the term; empty if it takes them. Its losses then go
    through ``Step.over_labels`` where they depend on labels."""

    memory_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of which a larger value costs more memory."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """The batch plan that the term needs; ``plain`` goes along with every other."""
        return "plain"

    @property
    def companions(self) -> int:
        """Images of its class beside each image, where the batch plan is ``groups``."""
        return 0

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse settings that data or network do not allow.

        Args:
            name: The method's name, for the message.
            data: Images and batches of the trial.
            model: Network of the trial.

        Raises:
            ValueError: One line that opens with the dotted path of the setting.
        """

    def require_length(self, name: str, length: TrainingLength) -> None:
        """Refuse a training that is too short for the term to do anything.

        Args:
            name: The method's name, for the message.
            length: Epochs, and what an epoch is made of.

        Raises:
            ValueError: One line that opens with the dotted path of the method.
        """


class LabelTermConfig(TermConfig):
    """Base of the settings of terms that learn from the labels; a method has exactly one.

    Every one has a field ``name`` with a literal: that which it has in the catalogue.
    """

    name: str


class TaughtTermConfig(TermConfig):
    """Base of the settings of terms whose teacher was trained before, and is read from a file."""

    not_searchable = frozenset({"teacher", "teacher_sha256"})

    teacher: str
    """File of the trained baseline, ``model.safetensors`` of `skdtune export`, on the worker."""

    teacher_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Its checksum; `create-study` fills it in where the file is at hand."""

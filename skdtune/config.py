"""The fully resolved, frozen configuration of one trial.

Everything here is data: no torch, no Optuna. A dotted path such as ``method.dsr.temperature``
names a field, in the search space, in ``--set`` and in error messages alike.

Published settings are those of *Lightweight Self-Knowledge Distillation with Multi-source
Information Fusion* (arXiv 2305.09183) and of its public training recipe.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Number of residual stages of every backbone, so that a laptop without torch can check a
#: choice of stages. ``skdtune.models`` builds exactly these; a test compares the two.
NUM_STAGES: dict[str, int] = {
    "resnet8": 3,
    "resnet20": 3,
    "resnet18": 4,
    "resnet34": 4,
    "resnet50": 4,
    "resnet101": 4,
}


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


def encode_stages(stages: tuple[int, ...]) -> str:
    """Write a choice of stages as the one word that the storage keeps, for example ``1+3``."""
    return "+".join(str(stage) for stage in stages)


def _decode_stages(value: Any) -> Any:
    """Read ``"1+3"`` as ``(1, 3)``; anything else is left for the validation to judge."""
    if isinstance(value, str) and all(part.isdigit() for part in value.split("+")):
        return tuple(map(int, value.split("+")))
    # After this function the value no longer counts as JSON, where a list may be a tuple.
    return tuple(value) if isinstance(value, list) else value


Stages = Annotated[tuple[int, ...], BeforeValidator(_decode_stages)]


class DataConfig(Frozen):
    """Which images a trial learns from, how they are split, augmented and batched."""

    name: Literal["digits", "cifar10", "cifar100", "imagefolder"]
    """Family of data sets."""

    root: str | None = None
    """Folder of the data on the worker; default ``data/`` under SKDTUNE_HOME."""

    download: bool = True
    """Fetch a data set that is missing, where the family knows how and a network is there."""

    image_size: int = Field(default=32, ge=4, le=512)
    """Side in pixels to which ``imagefolder`` images are resized; others have their own."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training data, stratified by class, that the search is judged on."""

    split_seed: int = Field(default=0, ge=0)
    """Seed of the split into training and validation data."""

    max_per_class: int | None = Field(default=None, ge=2)
    """Keep at most so many training images of each class (before the split); default all."""

    batch_size: int = Field(default=128, ge=2)
    """Images in one training step; the last, smaller batch of an epoch is dropped."""

    crop: Literal["none", "pad", "resized"] = "pad"
    """Random crop: ``pad`` pads by ``crop_padding`` and crops, ``resized`` is the published
    random resized crop (area 8 to 100%)."""

    crop_padding: int = Field(default=4, ge=1, le=32)
    """Pixels of zero padding on each side for ``crop: pad``."""

    flip: bool = True
    """Flip half of the images left to right."""

    @model_validator(mode="after")
    def _has_images(self) -> DataConfig:
        if self.name == "imagefolder" and self.root is None:
            raise ValueError(
                "data.root: imagefolder needs the folder that holds train/<class>/ "
                "(--set data.root=DIR), received nothing"
            )
        return self


class ModelConfig(Frozen):
    """Which network is trained, and in which arithmetic."""

    name: Literal["resnet8", "resnet20", "resnet18", "resnet34", "resnet50", "resnet101"]
    """Backbone with a CIFAR stem (3x3 convolution, no max-pool)."""

    width: int | None = Field(default=None, ge=4, le=512)
    """Channels of the first stage; default 64, or 16 for resnet8 and resnet20."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 autocast where the device computes in it, else float32."""

    @property
    def num_stages(self) -> int:
        """Number of residual stages of the backbone."""
        return NUM_STAGES[self.name]


class OptimizerConfig(Frozen):
    """SGD with momentum and a learning-rate schedule."""

    lr: float = Field(default=0.1, gt=0)
    """Peak learning rate."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""

    nesterov: bool = False
    """Use Nesterov momentum."""

    weight_decay: float = Field(default=5e-4, ge=0)
    """L2 penalty, on all parameters as in the published recipe."""

    schedule: Literal["multistep", "cosine"] = "multistep"
    """``multistep`` multiplies by ``gamma`` at the milestones, ``cosine`` falls to zero."""

    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.6, 0.8)
    """Milestones as shares of the planned epochs (60, 120 and 160 of the published 200)."""

    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor at each milestone."""

    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear warm-up from zero, counted step by step."""

    def drop_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs, from 0, that are the first with a lower rate; none under a cosine.

        Args:
            epochs: Planned epochs.
        """
        if self.schedule == "cosine":
            return ()
        # A hair more than the product, because 0.29 * 100 is 28.999...; never before the first
        # epoch has had the peak rate.
        return tuple(max(1, math.floor(share * epochs + 1e-9)) for share in self.milestones)


class BudgetConfig(Frozen):
    """How long one trial may train."""

    epochs: int = Field(default=200, ge=1, le=100_000)
    """Planned epochs; the schedule is scaled to them."""


class CrossEntropyConfig(Frozen):
    """The label term of the baseline: plain cross-entropy."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """Name of the label term."""


class LabelSmoothingConfig(Frozen):
    """The label term with smoothed labels."""

    name: Literal["label_smoothing"] = "label_smoothing"
    """Name of the label term."""

    smoothing: float = Field(default=0.1, gt=0, lt=1)
    """Probability moved from the label to the C-1 other classes together."""


class DrgConfig(Frozen):
    """Distillation with reverse guidance: shallow auxiliary classifiers teach the final one."""

    weight: float = Field(default=0.2, ge=0)
    """Weight of the distillation term (published: 0.2)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    stages: Stages = (2,)
    """Stages that carry an auxiliary classifier, counted from 1 (published: stage 2)."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean cross-entropy of the auxiliary classifiers (published: 1)."""

    teacher: Literal["mean_probs", "mean_logits"] = "mean_probs"
    """How several stages make one teacher; the same thing for one stage."""

    align_corners: bool | Literal["published"] = False
    """Up-sampling of the attention gate; ``published`` is true on stage 2 and false elsewhere."""


class DsrConfig(Frozen):
    """Distillation with shape-wise regularization: ranked outputs follow the batch before."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature, DSR's own (published: 4)."""

    pairing: Literal["row", "batch_mean"] = "row"
    """Target of row i: row i of the batch before (published), or its mean profile."""


LabelTerm = Annotated[CrossEntropyConfig | LabelSmoothingConfig, Field(discriminator="name")]


class MethodConfig(Frozen):
    """One label term and any number of distillation terms; their losses are added."""

    label: LabelTerm = CrossEntropyConfig()
    """The term that learns from the labels."""

    drg: DrgConfig | None = None
    """Distillation with reverse guidance; null switches it off."""

    dsr: DsrConfig | None = None
    """Distillation with shape-wise regularization; null switches it off."""


class TrialConfig(Frozen):
    """Everything that decides what one trial trains."""

    data: DataConfig
    """Images, split, augmentation, batches."""

    model: ModelConfig
    """Backbone and arithmetic."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""

    budget: BudgetConfig = BudgetConfig()
    """Length of the training."""

    method: MethodConfig = MethodConfig()
    """Loss terms."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of weights, data order and augmentation."""

    @model_validator(mode="after")
    def _stages_exist(self) -> TrialConfig:
        if self.method.drg is not None:
            check_stages(self.method.drg.stages, self.model)
        if self.optimizer.warmup_epochs >= self.budget.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below budget.epochs ({self.budget.epochs}), "
                f"received {self.optimizer.warmup_epochs:g}"
            )
        return self


def check_stages(stages: tuple[int, ...], model: ModelConfig) -> None:
    """Refuse stages that cannot carry an auxiliary classifier.

    The last stage feeds the final classifier itself, so there a teacher would be its own student.

    Raises:
        ValueError: naming the key, what was received and the stages the backbone offers.
    """
    usable = tuple(range(1, model.num_stages))
    wrong = [stage for stage in stages if stage not in usable]
    if wrong or not stages or tuple(sorted(set(stages))) != stages:
        raise ValueError(
            f"method.drg.stages: {model.name} has {model.num_stages} stages and can carry "
            f"auxiliary classifiers on stages {', '.join(map(str, usable))}, in ascending order, "
            f"received {list(stages)}"
        )

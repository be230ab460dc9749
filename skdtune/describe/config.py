"""The fully resolved, frozen configuration of one trial.

Everything here is data: no torch, no Optuna. A dotted path such as ``method.dsr.temperature``
names a field, in the search space, in ``--set`` and in error messages alike.

Published settings are those of *Lightweight Self-Knowledge Distillation with Multi-source
Information Fusion* (arXiv 2305.09183) and of its public training recipe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.models import networks
from skdtune.describe.data_facts import facts_of
from skdtune.describe.settings import Frozen, Stages

if TYPE_CHECKING:
    DataSetName = str
    NetworkName = str
else:
    # Literals of what the catalogues hold, so that an error lists it.
    DataSetName = Literal[tuple(DATASETS)]
    NetworkName = Literal[tuple(networks())]


class DataConfig(Frozen):
    """Which images a trial learns from, how they are split, augmented and batched."""

    of_first_release = True

    name: DataSetName
    """Name of the data set."""

    root: str | None = None
    """Folder of the data on the worker; default ``data/`` under SKDTUNE_HOME."""

    download: bool = True
    """Fetch a data set that is missing, where the family knows how and a network is there."""

    image_size: int = Field(default=32, ge=4, le=512)
    """Side in pixels to which images of any size are resized; most data sets have their own."""

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
        needed = facts_of(self.name).needs_root
        if needed and self.root is None:
            raise ValueError(
                f"data.root: {self.name} needs {needed} (--set data.root=DIR), received nothing"
            )
        return self


class ModelConfig(Frozen):
    """Which network is trained, and in which arithmetic."""

    of_first_release = True

    name: NetworkName
    """Name of the backbone."""

    width: int | None = Field(default=None, ge=4, le=512)
    """Channels of the first stage; default those of the published network."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 autocast where the device computes in it, else float32."""

    @property
    def num_stages(self) -> int:
        """Number of stages of the backbone."""
        return networks()[self.name].num_stages

    @property
    def has_maps(self) -> bool:
        """Every stage puts out a map ``[B, C, H, W]``, which some methods need."""
        return networks()[self.name].has_maps

    @property
    def channels(self) -> int | None:
        """Channels of the first stage, those of the published network if none are named."""
        return self.width or networks()[self.name].width

    @model_validator(mode="after")
    def _width_can_be_chosen(self) -> ModelConfig:
        if self.width is not None and networks()[self.name].width is None:
            raise ValueError(f"model.width: {self.name} has one width only, received {self.width}")
        return self


class OptimizerConfig(Frozen):
    """SGD with momentum and a learning-rate schedule."""

    of_first_release = True

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
    """How long one trial may train: epochs, or what they are derived from."""

    of_first_release = True

    epochs: int = Field(default=200, ge=1, le=100_000)
    """Planned epochs; the schedule is scaled to them."""

    images: int | None = Field(default=None, ge=1)
    """Images to train on, all views and companions counted; `create-study` derives the epochs."""

    seconds: float | None = Field(default=None, gt=0)
    """Device seconds to train for; `create-study` measures an epoch and derives the epochs."""

    planned: bool = False
    """The epochs were derived from images or seconds."""

    @property
    def is_open(self) -> bool:
        """The epochs still have to be derived from images or seconds."""
        return not self.planned and (self.images is not None or self.seconds is not None)

    @model_validator(mode="after")
    def _one_measure(self) -> BudgetConfig:
        if self.images is not None and self.seconds is not None:
            raise ValueError("budget: give epochs, or images, or seconds; received two of them")
        if self.planned and self.images is None and self.seconds is None:
            raise ValueError("budget.planned: nothing is given to derive the epochs from")
        return self


#: How the images of a step are chosen; see ``skdtune.data.plans``. Every plan knows the index of
#: every image, ``indexed`` also promises that no image comes twice in an epoch.
BatchPlanName = Literal[
    "plain", "indexed", "class_pairs", "groups", "two_views", "two_views_joint"
]


class TermConfig(Frozen):
    """Base of the settings of all terms."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """The batch plan that the term needs; ``plain`` goes along with every other."""
        return "plain"


class CrossEntropyConfig(TermConfig):
    """The label term of the baseline: plain cross-entropy."""

    of_first_release = True

    name: Literal["cross_entropy"] = "cross_entropy"
    """Name of the label term."""


class LabelSmoothingConfig(TermConfig):
    """The label term with smoothed labels."""

    of_first_release = True

    name: Literal["label_smoothing"] = "label_smoothing"
    """Name of the label term."""

    smoothing: float = Field(default=0.1, gt=0, lt=1)
    """Probability moved from the label to the C-1 other classes together."""


class PsKdConfig(TermConfig):
    """Progressive self-knowledge distillation: the label is mixed with remembered predictions."""

    of_first_release = True

    name: Literal["ps_kd"] = "ps_kd"
    """Name of the label term."""

    weight: float = Field(default=0.8, ge=0, le=1)
    """Share of the remembered prediction in the last planned epoch's target (published: 0.8)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image once in an epoch: what is remembered of it is one prediction."""
        return "indexed" if self.weight else "plain"


class DrgConfig(TermConfig):
    """Distillation with reverse guidance: shallow auxiliary classifiers teach the final one."""

    of_first_release = True

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


class DsrConfig(TermConfig):
    """Distillation with shape-wise regularization: ranked outputs follow the batch before."""

    of_first_release = True

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature, DSR's own (published: 4)."""

    pairing: Literal["row", "batch_mean"] = "row"
    """Target of row i: row i of the batch before (published), or its mean profile."""


class ByotConfig(TermConfig):
    """Be your own teacher: the final classifier teaches auxiliary classifiers."""

    of_first_release = True

    weight: float = Field(default=0.1, ge=0, lt=1)
    """Share of the distillation; every cross-entropy gets the rest (published: 0.1)."""

    temperature: float = Field(default=3.0, gt=0)
    """Softmax temperature (published: 3)."""

    stages: Stages | None = None
    """Stages that carry an auxiliary classifier, counted from 1; default all but the last."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the summed cross-entropies of the auxiliary classifiers (published: 1)."""

    match_features: bool = True
    """Pull the features of the auxiliary classifiers to the final ones too."""

    feature_weight: float = Field(default=1e-6, ge=0)
    """Weight of that, a sum over batch and channels and so small (published: 1e-6)."""


class CsKdConfig(TermConfig):
    """Class-wise self-knowledge distillation: another image of the class is the teacher."""

    of_first_release = True

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1, and 3 for fine-grained data)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image with another one of its class."""
        return "class_pairs" if self.weight else "plain"


class DlbConfig(TermConfig):
    """Distillation from the last mini-batch, whose second views are classified again."""

    of_first_release = True

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term; 0 switches the whole method off (none is published)."""

    temperature: float = Field(default=3.0, gt=0)
    """Softmax temperature (3 in the name that the published script gives its results)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image in two views, of which one is kept for the next step."""
        return "two_views" if self.weight else "plain"


class TfKdSelfConfig(TermConfig):
    """Teacher-free distillation (self): a trained baseline of the same network teaches."""

    of_first_release = True

    teacher: str
    """File of the trained baseline, ``model.safetensors`` of `skdtune export`, on the worker."""

    teacher_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Its checksum; `create-study` fills it in where the file is at hand."""

    weight: float = Field(default=0.95, ge=0, lt=1)
    """Share of the distillation; the label term gets the rest (published: 0.95)."""

    temperature: float = Field(default=6.0, gt=0)
    """Softmax temperature (published: 6)."""

    multiplier: float | None = Field(default=None, gt=0)
    """Factor of the elementwise mean; default half the classes (published: 50 of 100)."""


class TfKdRegConfig(TermConfig):
    """Teacher-free distillation (regularization): a nearly uniform target, made by hand."""

    of_first_release = True

    weight: float = Field(default=0.1, ge=0, lt=1)
    """Share of the distillation; the label term gets the rest (published: 0.1)."""

    correct_prob: float = Field(default=0.99, gt=0, lt=1)
    """Probability of the label before the target is softened (published: 0.99)."""

    temperature: float = Field(default=20.0, gt=0)
    """Temperature that softens those probabilities (published: 20; next to no influence)."""

    multiplier: float | None = Field(default=None, gt=0)
    """Factor of the elementwise mean; default the number of classes (published: 100 of 100)."""


class BakeConfig(TermConfig):
    """Batch knowledge ensembling: similar images of the batch teach each other."""

    of_first_release = True

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    omega: float = Field(default=0.5, ge=0, lt=1)
    """How much of a target comes from other images (published: 0.5)."""

    num_companions: int = Field(default=3, ge=1, le=31)
    """Images of the same class beside each image; one more of them must divide the batch."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image with companions of its class."""
        return "groups" if self.weight else "plain"


class DdgsdConfig(TermConfig):
    """Data-distortion guided self-distillation: two views of an image teach each other."""

    of_first_release = True

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation terms; 0 switches the whole method off (reference: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (reference: 4)."""

    match_features: bool = True
    """Pull the mean features of the two views together too."""

    feature_weight: float = Field(default=5e-4, ge=0)
    """Weight of that (published: 5e-4)."""

    discrepancy: Literal["scalar", "linear"] = "scalar"
    """``scalar`` compares the means over everything, as the reference does; ``linear`` those of
    each channel."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image in two views, in one forward."""
        return "two_views_joint" if self.weight else "plain"


class FrskdConfig(TermConfig):
    """Feature refinement: a pyramid network on all stages teaches final classifier and stages."""

    of_first_release = True

    weight: float = Field(default=2.0, ge=0)
    """Weight of the distillation term (published: 2)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    match_attention: bool = True
    """Pull the attention maps of the stages to the refined ones too."""

    attention_weight: float = Field(default=100.0, ge=0)
    """Weight of that (published: 100)."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the pyramid's own cross-entropy (published: 1)."""

    width: int = Field(default=2, ge=1, le=4)
    """Channels of the pyramid as a multiple of the stage's (published: 2)."""

    depth: int = Field(default=2, ge=1, le=4)
    """Convolutions of each node (published: 2)."""


class ZipfConfig(TermConfig):
    """Zipf's label smoothing: the other classes follow a power law of their ranks."""

    of_first_release = True

    weight: float = Field(default=0.1, ge=0)
    """Weight of the distillation term (published: 0.1, and 1 for Tiny-ImageNet)."""

    power: float = Field(default=1.0, gt=0)
    """Exponent of the power law (published: 1)."""

    dense: bool = True
    """Rank by the votes of all positions of the last feature map, not by the logits."""

    upsample: bool = True
    """Double that map first, bilinearly (published for CIFAR)."""


LabelTerm = Annotated[
    CrossEntropyConfig | LabelSmoothingConfig | PsKdConfig, Field(discriminator="name")
]


class MethodConfig(Frozen):
    """One label term and any number of distillation terms; their losses are added."""

    of_first_release = True

    label: LabelTerm = CrossEntropyConfig()
    """The term that learns from the labels."""

    drg: DrgConfig | None = None
    """Distillation with reverse guidance; null switches it off."""

    dsr: DsrConfig | None = None
    """Distillation with shape-wise regularization; null switches it off."""

    byot: ByotConfig | None = None
    """Be your own teacher; null switches it off."""

    cs_kd: CsKdConfig | None = None
    """Class-wise self-knowledge distillation; null switches it off."""

    dlb: DlbConfig | None = None
    """Distillation from the last mini-batch; null switches it off."""

    tf_kd_self: TfKdSelfConfig | None = None
    """Teacher-free distillation from a trained baseline; null switches it off."""

    tf_kd_reg: TfKdRegConfig | None = None
    """Teacher-free distillation from a target made by hand; null switches it off."""

    bake: BakeConfig | None = None
    """Batch knowledge ensembling; null switches it off."""

    ddgsd: DdgsdConfig | None = None
    """Data-distortion guided self-distillation; null switches it off."""

    frskd: FrskdConfig | None = None
    """Feature refinement; null switches it off."""

    zipf: ZipfConfig | None = None
    """Zipf's label smoothing; null switches it off."""

    def terms(self) -> dict[str, TermConfig]:
        """Return the settings of the terms that are on, the label term first."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: term for name, term in chosen.items() if term is not None}

    @property
    def batch_plan(self) -> BatchPlanName:
        """The batch plan that all terms together need."""
        plans = {name: term.batch_plan for name, term in self.terms().items()}
        return next((plan for plan in plans.values() if plan != "plain"), "plain")

    @property
    def images_per_anchor(self) -> int:
        """Images that are trained on for every image of a plain epoch: the cost of an epoch."""
        if self.batch_plan == "groups" and self.bake is not None:
            return 1 + self.bake.num_companions
        return 1 if self.batch_plan in ("plain", "indexed") else 2

    @model_validator(mode="after")
    def _plans_agree(self) -> MethodConfig:
        plans = {
            name: term.batch_plan
            for name, term in self.terms().items()
            if term.batch_plan != "plain"
        }
        if len(set(plans.values())) > 1:
            wanted = ", ".join(f"{name} needs {plan}" for name, plan in plans.items())
            raise ValueError(
                f"method: these cannot share their batches: {wanted}; switch off all but one"
            )
        return self


class TrialConfig(Frozen):
    """Everything that decides what one trial trains."""

    of_first_release = True

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
    def _parts_fit(self) -> TrialConfig:
        if self.method.drg is not None:
            check_stages("drg", self.method.drg.stages, self.model)
        if self.method.byot is not None and self.method.byot.stages is not None:
            check_stages("byot", self.method.byot.stages, self.model)
        bake = self.method.bake
        if bake is not None and self.data.batch_size % (1 + bake.num_companions):
            raise ValueError(
                f"method.bake.num_companions: one more than it must divide data.batch_size "
                f"({self.data.batch_size}), received {bake.num_companions}"
            )
        if self.optimizer.warmup_epochs >= self.budget.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below budget.epochs ({self.budget.epochs}), "
                f"received {self.optimizer.warmup_epochs:g}"
            )
        return self


def check_stages(method: str, stages: tuple[int, ...], model: ModelConfig) -> None:
    """Refuse stages that cannot carry an auxiliary classifier.

    The last stage feeds the final classifier itself, so there a teacher would be its own student.

    Raises:
        ValueError: naming the key, what was received and the stages the backbone offers.
    """
    usable = tuple(range(1, model.num_stages))
    wrong = [stage for stage in stages if stage not in usable]
    if wrong or not stages or tuple(sorted(set(stages))) != stages:
        raise ValueError(
            f"method.{method}.stages: {model.name} has {model.num_stages} stages and can carry "
            f"auxiliary classifiers on stages {', '.join(map(str, usable))}, in ascending order, "
            f"received {list(stages)}"
        )

"""Which images a trial learns from, how they are split, augmented and batched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from skdtune.catalogues.datasets import DATASETS
from skdtune.describe.data_facts import facts_of
from skdtune.describe.settings import LATER, Frozen

if TYPE_CHECKING:
    DataSetName = str
else:
    # A literal of what the catalogue holds, so that an error lists it.
    DataSetName = Literal[tuple(DATASETS)]


#: Settings that no loaded image depends on: how they are put together and changed in training.
OF_BATCHES = frozenset(
    {"batch_size", "crop", "crop_padding", "flip", "policy", "policy_operations"}
    | {"policy_magnitude", "jitter", "erasing", "mixup", "cutmix"}
)


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

    policy: Annotated[Literal["none", "randaugment", "trivialaugment"], LATER] = "none"
    """Operations that are drawn for each image, by torchvision's tables."""

    policy_operations: Annotated[int, LATER] = Field(default=2, ge=1, le=4)
    """Operations one after the other of ``policy: randaugment`` (published: 2)."""

    policy_magnitude: Annotated[int, LATER] = Field(default=9, ge=0, le=30)
    """Their strength of ``policy: randaugment``, in steps of 30 (published: 9)."""

    jitter: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Change brightness, contrast and saturation by up to this share; 0 is off."""

    erasing: Annotated[float, LATER] = Field(default=0.0, ge=0, le=1)
    """Probability that a box of an image is erased (published: 0.5); 0 is off."""

    mixup: Annotated[float, LATER] = Field(default=0.0, ge=0, le=10)
    """Mix images and labels of a batch by shares of a beta distribution with this parameter;
    0 is off."""

    cutmix: Annotated[float, LATER] = Field(default=0.0, ge=0, le=10)
    """Put boxes of other images of the batch in, of areas of such a distribution; 0 is off."""

    @property
    def mixes(self) -> str:
        """The setting by which images are mixed with each other; empty where none are."""
        return "mixup" if self.mixup else "cutmix" if self.cutmix else ""

    @model_validator(mode="after")
    def _has_images(self) -> DataConfig:
        needed = facts_of(self.name).needs_root
        if needed and self.root is None:
            raise ValueError(
                f"data.root: {self.name} needs {needed} (--set data.root=DIR), received nothing"
            )
        return self

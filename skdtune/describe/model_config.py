"""Which network is trained, and in which arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from skdtune.catalogues.models import StemChoice, networks
from skdtune.describe.settings import LATER, Frozen

if TYPE_CHECKING:
    NetworkName = str
else:
    # A literal of what the catalogue holds, so that an error lists it.
    NetworkName = Literal[tuple(networks())]


class ModelConfig(Frozen):
    """Which network is trained, and in which arithmetic."""

    of_first_release = True

    name: NetworkName
    """Name of the backbone."""

    width: int | None = Field(default=None, ge=4, le=512)
    """Channels of the first stage; default those of the published network."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 autocast where the device computes in it, else float32."""

    stem: Annotated[StemChoice, LATER] = "default"
    """What the network begins with. ``32px`` keeps the size of the images, ``64px`` halves it,
    ``imagenet`` takes a quarter, as published; ``by_size`` chooses by the images, ``32px`` up to
    48 pixels and ``64px`` up to 96. ``default`` is ``32px`` for residual networks and ``by_size``
    for all others."""

    @property
    def num_stages(self) -> int:
        """Number of stages of the backbone."""
        return networks()[self.name].num_stages

    @property
    def has_maps(self) -> bool:
        """Every stage puts out a map ``[B, C, H, W]``, which some methods need."""
        return networks()[self.name].has_maps

    @property
    def min_size(self) -> int:
        """Height and width in pixels that an image must have."""
        return networks()[self.name].min_size

    @property
    def channels(self) -> int | None:
        """Channels of the first stage, those of the published network if none are named."""
        return self.width or networks()[self.name].width

    @model_validator(mode="after")
    def _width_can_be_chosen(self) -> ModelConfig:
        if self.width is not None and networks()[self.name].width is None:
            raise ValueError(f"model.width: {self.name} has one width only, received {self.width}")
        return self

    @model_validator(mode="after")
    def _has_the_stem(self) -> ModelConfig:
        network = networks()[self.name]
        if self.stem not in ("default", "by_size", *network.stems):
            try:
                network.stem_for(self.stem, (0, 0))
            except ValueError as error:
                raise ValueError(f"model.stem: {self.name} {error}") from None
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

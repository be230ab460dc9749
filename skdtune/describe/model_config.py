"""Which network is trained, and in which arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from skdtune.catalogues.models import (
    MAX_STAGES,
    Network,
    StemChoice,
    is_of_open_family,
    network_named,
    networks,
)
from skdtune.describe.settings import LATER, Frozen


def _catalogue_or_open_family(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, str) and is_of_open_family(value) else read(value)


if TYPE_CHECKING:
    NetworkName = str
else:
    # A literal of what the catalogue holds, so that an error lists it.
    NetworkName = Annotated[Literal[tuple(networks())], WrapValidator(_catalogue_or_open_family)]

# Behind the validator of the whole a list no longer counts as JSON, where it may be a tuple.
_Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=80)], ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class ModelConfig(Frozen):
    """Which network is trained, and in which arithmetic."""

    of_first_release = True

    name: NetworkName
    """Name of the backbone; ``<family>/<name>`` for a family that has more than it lists."""

    width: int | None = Field(default=None, ge=4, le=512)
    """Channels of the first stage; default those of the published network."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` takes bfloat16 autocast where the device computes in it, else float32."""

    stem: Annotated[StemChoice, LATER] = "default"
    """What the network begins with. ``32px`` keeps the size of the images, ``64px`` halves it,
    ``imagenet`` takes a quarter, as published; ``by_size`` chooses by the images, ``32px`` up to
    48 pixels and ``64px`` up to 96. ``default`` is ``32px`` for residual networks and ``by_size``
    for all others."""

    stages: Annotated[_Names, LATER] = ()
    """Stages of a network that no catalogue lists, as its package named them where the study was
    created, which fills them in: whoever reads the study need not have the package."""

    puts_out: Annotated[Literal["maps", "tokens"] | None, LATER] = None
    """What the stages of such a network put out; filled in along with them."""

    weights_sha256: Annotated[str | None, LATER] = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Checksum of the weights that a training begins with in place of drawn ones; the option
    ``--weights`` says where they are, and fills it in."""

    @property
    def network(self) -> Network:
        """What is known of the backbone."""
        if self.name in networks():
            return networks()[self.name]
        return Network(stages=self.stages, has_maps=self.puts_out == "maps")

    @property
    def num_stages(self) -> int:
        """Number of stages of the backbone."""
        return self.network.num_stages

    @property
    def has_maps(self) -> bool:
        """Every stage puts out a map ``[B, C, H, W]``, which some methods need."""
        return self.network.has_maps

    @property
    def min_size(self) -> int:
        """Height and width in pixels that an image must have."""
        return self.network.min_size

    @property
    def channels(self) -> int | None:
        """Channels of the first stage, those of the published network if none are named."""
        return self.width or self.network.width

    @model_validator(mode="before")
    @classmethod
    def _described_by_its_family(cls, raw: Any) -> Any:
        """Ask the family of a network that no catalogue lists, unless it was asked before."""
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str) or not is_of_open_family(name) or raw.get("stages"):
            return raw
        network = network_named(name)
        puts_out = "maps" if network.has_maps else "tokens"
        return {**raw, "stages": network.stages, "puts_out": puts_out}

    @model_validator(mode="after")
    def _only_what_is_not_listed_is_described(self) -> ModelConfig:
        if self.name in networks() and (self.stages or self.puts_out):
            raise ValueError(
                f"model.stages: those of {self.name} are known, and cannot be set; drop "
                "model.stages and model.puts_out"
            )
        if self.name not in networks():
            if not 1 <= len(set(self.stages)) == len(self.stages) <= MAX_STAGES:
                raise ValueError(
                    f"model.stages: must be 1 to {MAX_STAGES} different names, received "
                    f"{list(self.stages)}; drop model.stages, and they are filled in"
                )
            if self.puts_out is None:
                raise ValueError(
                    "model.puts_out: must be there if model.stages is; drop both, and they are "
                    "filled in"
                )
        return self

    @model_validator(mode="after")
    def _width_can_be_chosen(self) -> ModelConfig:
        if self.width is not None and self.network.width is None:
            raise ValueError(f"model.width: {self.name} has one width only, received {self.width}")
        return self

    @model_validator(mode="after")
    def _has_the_stem(self) -> ModelConfig:
        network = self.network
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
    if not usable:
        raise ValueError(
            f"method.{method}: {model.name} has one stage only, and the last one can carry no "
            f"auxiliary classifier; take another network, or method.{method}=null"
        )
    wrong = [stage for stage in stages if stage not in usable]
    if wrong or not stages or tuple(sorted(set(stages))) != stages:
        raise ValueError(
            f"method.{method}.stages: {model.name} has {model.num_stages} stages and can carry "
            f"auxiliary classifiers on stages {', '.join(map(str, usable))}, in ascending order, "
            f"received {list(stages)}"
        )

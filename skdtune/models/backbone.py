"""What every backbone is, however it was built: stages to be read, and one linear classifier.

To add a family, write one file in ``families/`` with a function like :class:`Builder`, and one
line in ``skdtune/catalogues/models.py``. A network whose stages follow each other is a
:class:`StagedBackbone`; any other one is a :class:`Backbone` with a forward of its own.

What a forward was asked for it returns; nothing hooks into it from outside. ``torch.compile`` does
not see hooks that come and go, and would go on with the graph of the stages read before.

Tensor shapes: B batch, C channels, H height, W width, K classes, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from skdtune.catalogues.catalogue import imported, load_target
from skdtune.catalogues.models import (
    MODELS,
    Stem,
    StemChoice,
    family_of,
    network_named,
    usable_family,
)
from skdtune.describe.model_config import ModelConfig
from skdtune.errors import InputError


class Outputs(NamedTuple):
    """What a forward returns."""

    logits_BK: Tensor
    """Logits ``[B, K]``."""

    stage_features: dict[int, Tensor]
    """For each stage that was asked for its output: a map ``[B, C_s, H_s, W_s]``, or what the
    family puts out, ``[B, T_s, C_s]`` or ``[B, C_s]`` for example. They belong to the autograd
    graph, and must not be changed in place."""

    pooled_BC: Tensor
    """Input ``[B, C]`` of the classifier."""


class Backbone(nn.Module):
    """A network of 1 to 5 stages, counted from 1, that ends in a linear classifier.

    All tensors that it computes with are in its state dict, under names of its own: a network file
    holds nothing else. It computes the same for any stages that are asked for.
    """

    classifier: nn.Linear
    """Makes the logits of the pooled features."""

    num_stages: int
    """Number of stages, as the catalogue says."""

    names_elsewhere: tuple[tuple[str, str], ...] = ()
    """What others call its tensors, where weights of theirs fit: regular expressions, of which
    the first that matches is replaced."""

    def forward(self, images_BCHW: Tensor, stages: tuple[int, ...] = ()) -> Outputs:
        """Classify images, and return the outputs of some stages along with the logits.

        Args:
            images_BCHW: Normalised images.
            stages: Stages to return, counted from 1; no other one is kept alive.

        Raises:
            ValueError: If there is no such stage.
        """
        raise NotImplementedError


class StagedBackbone(Backbone):
    """A chain: stem, stages, pooling, classifier."""

    def __init__(
        self, stem: nn.Module, stages: Iterable[nn.Module], pool: nn.Module, classifier: nn.Linear
    ) -> None:
        """Put the parts together; their names in state dicts are those of the arguments.

        Args:
            stem: Makes of images what the first stage takes.
            stages: Each takes what the one before puts out.
            pool: Makes of the last stage's output ``[B, C]``, or ``[B, C, 1, 1]``.
            classifier: Makes the logits of that.
        """
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.pool = pool
        self.classifier = classifier
        self.num_stages = len(self.stages)

    def forward(self, images_BCHW: Tensor, stages: tuple[int, ...] = ()) -> Outputs:
        """Classify images, as :meth:`Backbone.forward` says."""
        for number in stages:
            if not 1 <= number <= self.num_stages:
                raise ValueError(f"the network has stages 1 to {self.num_stages}, not {number}")
        features: dict[int, Tensor] = {}
        feature = self.stem(images_BCHW)
        for number, stage in enumerate(self.stages, 1):
            feature = stage(feature)
            if number in stages:
                features[number] = feature
        pooled_BC = self.pool(feature).flatten(1)
        return Outputs(self.classifier(pooled_BC), features, pooled_BC)


class ImageClassifier(nn.Module):
    """A backbone as one uses it when it is trained: images in, logits out.

    Its state dict is that of the backbone.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Wrap a backbone, which stays the same object."""
        super().__init__()
        self.backbone = backbone

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of normalised images."""
        logits_BK: Tensor = self.backbone(images_BCHW).logits_BK
        return logits_BK

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state dict of the backbone."""
        return self.backbone.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load a state dict of the backbone."""
        return self.backbone.load_state_dict(*args, **kwargs)


class Builder(Protocol):
    """The function of a family that builds its networks."""

    def __call__(
        self,
        name: str,
        *,
        width: int | None,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        **stem: Stem,
    ) -> Backbone:
        """Build a network in float32 and training mode, on torch's default device.

        That may be ``meta``, where tensors have shapes and no values: a network file is held
        against such a network before anything of it is believed.

        Args:
            name: One of the family's names in the catalogue.
            width: Channels of the first stage; None where the catalogue says that they cannot be
                chosen.
            in_channels: Channels of the images.
            image_size: Height and width of the images in pixels.
            num_classes: K, the number of logits.
            stem: Nothing; for a network with stems in the catalogue ``stem``, one of them.

        Returns:
            A network with fresh weights, drawn from torch's global generator: the same seed gives
            the same weights.
        """
        ...


def build_backbone(
    name: str,
    *,
    width: int | None = None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: StemChoice = "default",
) -> Backbone:
    """Build a network of the catalogue, whichever family it belongs to, with fresh weights.

    Args:
        name: Name of the network.
        width: Channels of the first stage; default those of the published network.
        in_channels: Channels of the images.
        image_size: Height and width of the images in pixels.
        num_classes: K, the number of logits.
        stem: What it begins with.

    Raises:
        KeyError: If there is no such network.
        ValueError: If it has no such stem.
        InputError: If what builds it cannot be imported, or builds something else than the
            catalogue promises.
    """
    family = family_of(name)
    build, network = builder_of(family), network_named(name)
    chosen = network.stem_for(stem, image_size)
    backbone = build(
        name,
        width=width or network.width,
        in_channels=in_channels,
        image_size=image_size,
        num_classes=num_classes,
        # Only to whom it was promised: a family may come from a package that knows of no stems.
        **({} if chosen is None else {"stem": chosen}),
    )
    if broken := _broken_promise(backbone, network.num_stages, num_classes):
        raise InputError(
            f"{MODELS.described(family)} cannot be used: what it builds for {name!r} {broken}"
        )
    return backbone


def builder_of(family: str) -> Builder:
    """Return what builds the networks of a family.

    Raises:
        InputError: If it cannot be imported.
    """
    load = partial(load_target, usable_family(family).build)
    builder: Builder = imported(f"what builds {MODELS.described(family)}", load)
    return builder


def require_as_stored(model: ModelConfig) -> None:
    """Refuse a network whose package has other stages for it than where its study was created.

    Raises:
        InputError: If it has.
    """
    here, then = network_named(model.name), model.network
    if (here.stages, here.has_maps) != (then.stages, then.has_maps):
        package = usable_family(family_of(model.name)).package
        raise InputError(
            f"{model.name} has the stages {', '.join(here.stages)} here, and had "
            f"{', '.join(then.stages)} where its study was created: install the {package} that "
            "was there"
        )


def _broken_promise(built: object, num_stages: int, num_classes: int) -> str | None:
    """Say what a network lacks to be the one that was asked for."""
    if not isinstance(built, Backbone):
        return f"is a {type(built).__name__}, not a skdtune.models.backbone.Backbone"
    received = getattr(built, "num_stages", None)
    if received != num_stages:
        return f"has {received} stages, its catalogue line {num_stages}"
    classifier = getattr(built, "classifier", None)
    if not isinstance(classifier, nn.Linear) or classifier.out_features != num_classes:
        return f"has no torch.nn.Linear with {num_classes} outputs as its classifier"
    stored = built.state_dict()
    hidden = [name for name, _ in built.named_buffers() if name not in stored]
    plain = [name for name, value in stored.items() if not isinstance(value, Tensor)]
    if hidden or plain:
        return f"holds {(hidden + plain)[0]}, which is no tensor of its state dict"
    return None

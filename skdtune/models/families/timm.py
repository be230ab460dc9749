"""Any network of the package timm by its name there, with timm's own features and classifier.

Source: https://github.com/huggingface/pytorch-image-models. ``timm/resnet18d`` is what
``timm.create_model("resnet18d")`` makes, with fresh weights and without a change: its stages are
those of its ``feature_info``, as ``features_only`` gives them, and its classifier is its own.

Vision transformers give tokens, without those of class and registers, and all others maps. Where
timm knows more than five features, five are stages: of maps the last ones, of tokens some that
are evenly spaced, the last one among them.

Networks that cannot be taken, which is said when a study is created: those without
``forward_intermediates``, and those that do not end in one linear layer, for example with a second
one for distillation.

Tensor shapes: B batch, C channels, H height, W width, T tokens, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from skdtune.catalogues.models import MAX_STAGES, Network
from skdtune.errors import InputError, in_one_line
from skdtune.models.backbone import Backbone, Outputs

try:
    import timm
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'skdtune[timm]'") from None

# The size of images that most weights of timm were made for.
_USUAL_SIZE = (224, 224)


class TimmBackbone(Backbone):
    """A network of timm whose classifier is taken apart, so that its input can be read."""

    def __init__(self, model: nn.Module, indices: tuple[int, ...], *, has_maps: bool) -> None:
        """Take over a network.

        Args:
            model: A network of timm with a linear classifier.
            indices: Which of timm's features are the stages.
            has_maps: Whether they are maps or tokens.
        """
        super().__init__()
        classifier = model.get_classifier()  # type: ignore[operator]
        assert isinstance(classifier, nn.Linear)
        called = next(name for name, module in model.named_modules() if module is classifier)
        self.names_elsewhere = ((rf"^{re.escape(called)}\.", "classifier."), (r"^", "model."))
        model.reset_classifier(0)  # type: ignore[operator]
        self.model: Any = model
        self.classifier = classifier
        self.num_stages = len(indices)
        self._indices = indices
        self._format = "NCHW" if has_maps else "NLC"
        for module in model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                # A network file holds all that a network computes with.
                module.register_buffer(name, buffer, persistent=True)

    def forward(self, images_BCHW: Tensor, stages: tuple[int, ...] = ()) -> Outputs:
        """Classify images, see :meth:`~skdtune.models.backbone.Backbone.forward`."""
        for number in stages:
            if not 1 <= number <= self.num_stages:
                raise ValueError(f"the network has stages 1 to {self.num_stages}, not {number}")
        features: dict[int, Tensor] = {}
        if stages:
            read = tuple(sorted(set(stages)))
            last, intermediates = self.model.forward_intermediates(
                images_BCHW,
                indices=[self._indices[number - 1] for number in read],
                output_fmt=self._format,
            )
            features = dict(zip(read, intermediates, strict=True))
        else:
            last = self.model.forward_features(images_BCHW)
        pooled_BC = self.model.forward_head(last)
        return Outputs(self.classifier(pooled_BC), features, pooled_BC)


def describe(name: str) -> Network:
    """Describe a network of timm; torch's ``meta`` device holds it meanwhile, without memory.

    Args:
        name: ``timm/`` and its name in timm.

    Raises:
        InputError: If timm has none of this name, or it cannot be taken.
    """
    return Network(stages=tuple(stage for _, stage in _stages(name)), has_maps=_has_maps(name))


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> TimmBackbone:
    """Build a network of timm, see :class:`~skdtune.models.backbone.Builder`.

    Raises:
        InputError: If it cannot take images of this size.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        tried = _create(name, in_channels, image_size, num_classes).eval()
        try:
            with torch.no_grad():
                tried(torch.empty(1, in_channels, *image_size))
        except Exception as error:
            size, reason = "x".join(map(str, image_size)), in_one_line(error).rstrip(".")
            raise InputError(
                f"{name} cannot take images of {size}: {reason}; take larger images, or another "
                "network"
            ) from error
    model = _create(name, in_channels, image_size, num_classes)
    indices = tuple(index for index, _ in _stages(name))
    return TimmBackbone(model, indices, has_maps=_has_maps(name))


def weights(name: str) -> Mapping[str, Tensor]:
    """Return the state dict that timm has for a name, with or without its tag.

    Raises:
        InputError: If timm has no network of this name.
        Exception: Whatever timm raises if its weights are not at hand and cannot be downloaded.
    """
    # Nothing but a registered name, as below.
    if not timm.is_model(name):
        raise InputError(f"timm {timm.__version__} has no network {name!r}")
    state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return state


def _create(
    name: str, in_channels: int, image_size: tuple[int, int], num_classes: int
) -> nn.Module:
    plain = name.partition("/")[2]
    # Nothing but a registered name: timm also takes addresses of files, and of a hub.
    if not timm.is_model(plain):
        near = get_close_matches(plain, timm.list_models(), 1)
        hint = f"; did you mean timm/{near[0]}?" if near else ""
        raise InputError(f"timm {timm.__version__} has no network {plain!r}{hint}")
    facts = timm.get_pretrained_cfg(plain, allow_unregistered=False)
    sized: dict[str, Any] = (
        {"img_size": image_size} if facts is not None and facts.fixed_input_size else {}
    )
    try:
        model: nn.Module = timm.create_model(
            plain, pretrained=False, num_classes=num_classes, in_chans=in_channels, **sized
        )
    except Exception as error:
        size = "x".join(map(str, image_size))
        raise InputError(
            f"timm cannot build {plain} for images of {size}: {in_one_line(error)}"
        ) from error
    return model


def _outline(name: str) -> nn.Module:
    # Who builds the network next must draw the same weights, whoever asked for its stages before.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _create(name, 3, _USUAL_SIZE, 10)


@cache
def _stages(name: str) -> tuple[tuple[int, str], ...]:
    """Return the stages as timm numbers and names them."""
    model = _outline(name)
    if not hasattr(model, "forward_intermediates"):
        raise InputError(f"{name} cannot be taken: timm gives no features of its stages")
    classifier = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear):
        raise InputError(
            f"{name} cannot be taken: it ends in a {type(classifier).__name__}, not in one linear "
            "layer"
        )
    modules = [str(feature["module"]) for feature in list(model.feature_info)]  # type: ignore[arg-type]
    total, count = len(modules), min(MAX_STAGES, len(modules))
    if _has_maps(name):
        indices = list(range(total - count, total))
    else:
        indices = [round(total * number / count) - 1 for number in range(1, count + 1)]
    names = [modules[index] for index in indices]
    if len(set(names)) < count:
        names = [f"stage{number}" for number in range(1, count + 1)]
    return tuple(zip(indices, names, strict=True))


@cache
def _has_maps(name: str) -> bool:
    """Try whether timm gives tokens; whatever else it has are maps."""
    model: Any = _outline(name).eval()
    images_BCHW = torch.empty(1, 3, *_USUAL_SIZE, device="meta")
    try:
        with torch.no_grad():
            model.forward_intermediates(images_BCHW, indices=1, output_fmt="NLC")
    except AssertionError:
        return True
    return False

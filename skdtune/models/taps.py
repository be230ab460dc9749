"""Reading what the stages of any backbone put out.

A tap is a forward hook that exists for one forward only: a forward that asks for no stage costs
nothing extra, and nothing keeps a feature map alive but the caller.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StageShape:
    """Shape of one stage's output for one image."""

    channels: int
    """Channels C."""

    height: int
    """Height H in positions."""

    width: int
    """Width W in positions."""


@dataclass(frozen=True)
class Outputs:
    """What a forward hands out."""

    logits_BK: Tensor
    """Logits ``[B, K]``."""

    stage_features: dict[int, Tensor]
    """For each tapped stage its output ``[B, C_s, H_s, W_s]``."""

    pooled_BC: Tensor | None
    """Input ``[B, C]`` of the final classifier, where it was asked for."""


class TappedBackbone(nn.Module):
    """Any backbone together with the modules that are its stages.

    The stages are not registered a second time, so all keys of the state dict start with
    ``backbone.`` and name each tensor once.
    """

    def __init__(
        self,
        backbone: nn.Module,
        stages: Iterable[nn.Module],
        classifier: nn.Linear | None = None,
    ) -> None:
        """Wrap a backbone.

        Args:
            backbone: maps images ``[B, C, H, W]`` to logits ``[B, K]``.
            stages: modules inside ``backbone``, first to last, each of which returns one feature
                map; stage 1 is the first.
            classifier: the linear layer inside ``backbone`` that makes the logits; needed only
                where it or its input is read.

        Raises:
            ValueError: if there is no stage, or one is not part of the backbone.
        """
        super().__init__()
        self.backbone = backbone
        # A tuple hides the stages from nn.Module, which would otherwise list them twice.
        self._stages = tuple(stages)
        self._classifier = (classifier,)
        inside = set(backbone.modules())
        missing = [number for number, stage in enumerate(self._stages, 1) if stage not in inside]
        if missing or not self._stages:
            raise ValueError(
                "the stages must be modules of the backbone, at least one; "
                f"received {len(self._stages)}, not part of it: {missing}"
            )

    @property
    def num_stages(self) -> int:
        """Number of stages that can be tapped."""
        return len(self._stages)

    @property
    def classifier(self) -> nn.Linear:
        """The final classifier.

        Raises:
            ValueError: if it was not named.
        """
        (classifier,) = self._classifier
        if classifier is None:
            raise ValueError("the final classifier of the backbone was not named")
        return classifier

    def forward(
        self, images_BCHW: Tensor, tapped: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Classify images and hand out the outputs of some stages.

        The feature maps are the very tensors the backbone went on with: they belong to the
        autograd graph, and must not be changed in place.

        Args:
            images_BCHW: images.
            tapped: stages to read, counted from 1.

        Returns:
            Logits ``[B, K]``, and for each tapped stage its output ``[B, C_s, H_s, W_s]``.

        Raises:
            ValueError: if a tapped stage does not exist.
            RuntimeError: if a tapped stage took no part in the forward.
        """
        outputs = self.outputs(images_BCHW, tapped)
        return outputs.logits_BK, outputs.stage_features

    def outputs(
        self, images_BCHW: Tensor, tapped: Collection[int] = (), *, pooled: bool = False
    ) -> Outputs:
        """Classify images, as :meth:`forward`, and hand out the classifier's input on demand."""
        features: dict[int, Tensor] = {}
        inputs: list[Tensor] = []

        def record_input(_classifier: nn.Module, received: tuple[Tensor, ...]) -> None:
            inputs[:] = received[:1]

        with ExitStack() as hooks:
            for number in sorted(set(tapped)):
                if not 1 <= number <= self.num_stages:
                    raise ValueError(
                        f"the backbone has stages 1 to {self.num_stages}, received {number} to tap"
                    )
                stage, hook = self._stages[number - 1], _recorder(features, number)
                hooks.enter_context(stage.register_forward_hook(hook))
            if pooled:
                hooks.enter_context(self.classifier.register_forward_pre_hook(record_input))
            logits_BK: Tensor = self.backbone(images_BCHW)
        unseen = set(tapped) - features.keys()
        if unseen:
            raise RuntimeError(f"stages {sorted(unseen)} took no part in the forward")
        return Outputs(logits_BK, features, inputs[0] if inputs else None)

    def stage_shapes(self, image_shape: tuple[int, int, int]) -> tuple[StageShape, ...]:
        """Measure the output of every stage with one forward of a zero image.

        Nothing is left changed: not the statistics of batch normalization, not the training mode
        of any module, not the state of the random generators.

        Args:
            image_shape: channels, height and width of one image.

        Returns:
            One shape for each stage, first to last.

        Raises:
            ValueError: if the output of a stage is not a map of shape ``[B, C, H, W]``.
        """
        reference = next(self.parameters(), torch.empty(0))
        image_BCHW = torch.zeros(1, *image_shape, device=reference.device, dtype=reference.dtype)
        cuda_devices = [reference.device] if reference.is_cuda else []
        every_stage = range(1, self.num_stages + 1)
        with _evaluation_mode(self), torch.no_grad(), torch.random.fork_rng(cuda_devices):
            _, features = self(image_BCHW, every_stage)
        shapes = []
        for number in every_stage:
            feature = features[number]
            if not isinstance(feature, Tensor) or feature.ndim != 4:
                received = getattr(feature, "shape", type(feature).__name__)
                raise ValueError(
                    f"stage {number} must put out a map [B, C, H, W], received {received}"
                )
            shapes.append(StageShape(*feature.shape[1:]))
        return tuple(shapes)


def _recorder(
    features: dict[int, Tensor], number: int
) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
    def record(_stage: nn.Module, _inputs: tuple[object, ...], feature_BCHW: Tensor) -> None:
        features[number] = feature_BCHW

    return record


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    # Module by module: a caller may have put only a part of the network into evaluation mode.
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training

"""The least that a term is given: a step of a small network on made-up numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skdtune.data.batches import Batch
from skdtune.describe.config import ModelConfig
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.models.backbone import Backbone, build_backbone
from skdtune.models.description import StageShape

MODEL = ModelConfig(name="resnet8", width=4)
NUM_CLASSES = 5
NUM_TRAIN = 20
SHAPES = (StageShape(4, 8, 8), StageShape(8, 4, 4), StageShape(16, 2, 2))
CONTEXT = BuildContext(SHAPES, NUM_CLASSES, NUM_TRAIN, MODEL)


def make_network() -> Backbone:
    """Build the network, with the same weights every time."""
    torch.manual_seed(3)
    return build_backbone(
        MODEL.name, width=4, in_channels=1, image_size=(8, 8), num_classes=NUM_CLASSES
    )


def make_step(
    seed: int = 0, num_rows: int = 6, dtype: torch.dtype = torch.float32, **changes: Any
) -> Step:
    """Make a step of a seed, with outputs of a dtype."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def output(*shape: int) -> Tensor:
        return random(*shape).to(dtype).requires_grad_()

    features = {
        number: output(num_rows, shape.channels, shape.height, shape.width)
        for number, shape in enumerate(SHAPES, 1)
    }
    batch = Batch(
        random(num_rows, 1, 8, 8),
        torch.arange(num_rows) % NUM_CLASSES,
        torch.randperm(NUM_TRAIN, generator=generator)[:num_rows],
        random(num_rows, 1, 8, 8),
    )
    step = Step(
        batch=batch,
        logits_BK=output(num_rows, NUM_CLASSES),
        stage_features=features,
        pooled_BC=output(num_rows, SHAPES[-1].channels),
        network=make_network(),
        epoch=0,
        planned_epochs=10,
    )
    return replace(step, **changes)


def close(left: Tensor, right: Tensor) -> bool:
    """Compare losses; one that is a sum may be added up in another order."""
    return torch.allclose(left, right, rtol=1e-6, atol=1e-7)


def dtypes_of(term: Term, dtype: torch.dtype, *, autocast: bool) -> dict[str, torch.dtype]:
    """Return the dtypes of the losses of two steps with outputs of a dtype; each is a number."""
    dtypes: dict[str, torch.dtype] = {}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for seed in range(2):
            for name, loss in term(make_step(seed, dtype=dtype)).items():
                assert loss.shape == ()
                assert dtypes.setdefault(name, loss.dtype) == loss.dtype
    return dtypes

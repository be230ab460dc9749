from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from skdtune.data.policies import NUM_MAGNITUDES, Policy
from skdtune.describe.data_config import DataConfig


def images(channels: int, number: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (number, channels, 12, 10)
    drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return drawn.contiguous(memory_format=torch.channels_last)


def policy(name: str) -> Policy:
    config = DataConfig.model_validate({"name": "digits", "policy": name, "policy_operations": 1})
    return Policy.of(config, 12, 10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_every_operation_is_torchvisions(name: str, channels: int) -> None:
    theirs = v2.RandAugment() if name == "randaugment" else v2.TrivialAugmentWide()
    ours, raw_BCHW = policy(name), images(channels)
    table = theirs._AUGMENTATION_SPACE
    assert list(ours.space) == list(table)
    for number, (operation, (magnitudes, has_sign)) in enumerate(table.items()):
        steps = magnitudes(NUM_MAGNITUDES, 12, 10)
        for step in (0, 9, 17, 30):
            for is_negative in (0, 1) if has_sign else (0,):
                magnitude = 0.0 if steps is None else float(steps[step])
                expected = theirs._apply_image_or_video_transform(
                    raw_BCHW,
                    operation,
                    -magnitude if is_negative else magnitude,
                    interpolation=theirs.interpolation,
                    fill=theirs._fill,
                )
                drawn = torch.tensor([[number, step, is_negative]]).expand(4, 1, 3)
                found = ours.apply(raw_BCHW, drawn)
                assert torch.equal(found, expected), (operation, step, is_negative)


def test_each_image_goes_through_its_own_operations() -> None:
    raw_BCHW = images(3, number=40)
    ours = Policy(policy("randaugment").space, num_layers=2, step=None)
    drawn = ours.draw(40, torch.Generator().manual_seed(1))
    together = ours.apply(raw_BCHW, drawn)
    alone = [ours.apply(raw_BCHW[i : i + 1], drawn[i : i + 1]) for i in range(40)]
    assert torch.equal(together, torch.cat(alone))
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(together, raw_BCHW)


def test_randaugment_has_one_strength_and_trivialaugment_all() -> None:
    generator = torch.Generator().manual_seed(0)
    assert set(policy("randaugment").draw(500, generator)[..., 1].flatten().tolist()) == {9}
    drawn = policy("trivialaugment").draw(2000, generator)
    assert drawn.shape == (2000, 1, 3)
    assert set(drawn[..., 1].flatten().tolist()) == set(range(NUM_MAGNITUDES))
    assert set(drawn[..., 0].flatten().tolist()) == set(range(14))

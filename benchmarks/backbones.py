"""How fast each network trains: skdtune's trainer beside torchvision's own module in a plain loop.

    python benchmarks/backbones.py [--models resnet18 ...] [--image-size 64] [--stem imagenet]
                                   [--batch 32] [--classes 100] [--rounds 3] [--device cpu|cuda]
                                   [--json]

Cross-entropy, one process, random images. Three contenders take turns, a window of two steps each
on a CPU; ratios are taken within a round, and medians are printed with the least and the largest:

- ``ours``: a trial's trainer, augmentation and optimiser included.
- ``torchvision``: its own module with random images that are there already: the same precision and
  channels last, forward, loss, backward, SGD. With the stem ``imagenet`` both compute the same; of
  what torchvision has not, this column is empty.
- ``ceiling``: the network's convolutions alone, forward and backward, each in its faster form. Of
  a network without convolutions to speak of (ViT) it says nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training import GPU_STEPS, SilentReporter, convolution, convolutions, machine

STEPS = 2
THEIRS = {
    "resnext50": "resnext50_32x4d",
    "wide_resnet50": "wide_resnet50_2",
    "shufflenet_v2": "shufflenet_v2_x1_0",
}


@dataclass(frozen=True)
class Setting:
    """What is trained on what."""

    model: str
    stem: str
    image_size: int
    batch: int
    num_classes: int
    device: str

    @property
    def steps(self) -> int:
        return STEPS if self.device == "cpu" else GPU_STEPS


def build_trainer(setting: Setting) -> Any:
    import numpy as np
    import torch

    from skdtune.data.batches import DeviceImages
    from skdtune.data.images import image_set
    from skdtune.describe.config import DataConfig, ModelConfig, TrialConfig
    from skdtune.training.trainer import Trainer

    generator, side = np.random.default_rng(0), setting.image_size

    def random_images(number: int) -> Any:
        pixels_NHWC = generator.integers(0, 256, (number, side, side, 3), dtype=np.uint8)
        labels_N = generator.integers(0, setting.num_classes, number)
        names = tuple(map(str, range(setting.num_classes)))
        half, device = np.full(3, 0.5, np.float32), torch.device(setting.device)
        return DeviceImages(image_set(pixels_NHWC, labels_N, names), half, half, device)

    stem = setting.stem if has_stems(setting.model) else "default"
    config = TrialConfig(
        data=DataConfig(name="imagefolder", root=".", image_size=side, batch_size=setting.batch),
        model=ModelConfig(name=setting.model, stem=stem),  # type: ignore[arg-type]
    )
    train, val = random_images(setting.steps * setting.batch), random_images(2)
    return Trainer(config, train, val, setting.num_classes, torch.device(setting.device))


def has_stems(model: str) -> bool:
    from skdtune.catalogues.models import networks

    return bool(networks()[model].stems)


def ours(setting: Setting, trainer: Any) -> Callable[[], object]:
    return lambda: trainer._train_epoch(0, SilentReporter())


def torchvision(setting: Setting, trainer: Any) -> Callable[[], object] | None:
    """Its module in a loop that does nothing but train."""
    import torch
    import torch.nn.functional as F
    import torchvision.models as models

    from skdtune.training.device import autocast

    name, device = THEIRS.get(setting.model, setting.model), torch.device(setting.device)
    if setting.model == "vit_tiny" or not hasattr(models, name) or setting.stem != "imagenet":
        return None
    network = getattr(models, name)(num_classes=setting.num_classes)
    network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    side = setting.image_size
    images_BCHW = torch.randn(setting.batch, 3, side, side, device=device)
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    labels_B = torch.randint(setting.num_classes, (setting.batch,), device=device)

    def window() -> None:
        for _ in range(setting.steps):
            with autocast(trainer.dtype, device):
                loss = F.cross_entropy(network(images_BCHW).float(), labels_B)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return window


def ceiling(setting: Setting, trainer: Any) -> Callable[[], object]:
    import torch

    dtype = trainer.dtype or torch.float32
    seen = convolutions(trainer, grouped=True)
    # Those of one step of the window.
    calls = [
        convolution(*shape, dtype, setting.device, "faster")
        for shape in seen[: len(seen) // setting.steps]
    ]

    def window() -> None:
        for _ in range(setting.steps):
            for call in calls:
                call()

    return window


CONTENDERS = {"ours": ours, "torchvision": torchvision, "ceiling": ceiling}


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    """Give each contender a window in turn; images per second, and ratios of one round."""
    import torch

    trainer = build_trainer(setting)
    made = {name: make(setting, trainer) for name, make in CONTENDERS.items()}
    windows = {name: window for name, window in made.items() if window is not None}
    rates: dict[str, list[float]] = {name: [] for name in windows}
    for number in range(rounds + 1):
        for name, window in windows.items():
            start = time.perf_counter()
            window()
            if setting.device != "cpu":
                torch.cuda.synchronize()
            # The first round warms up.
            if number:
                seconds = time.perf_counter() - start
                rates[name].append(setting.steps * setting.batch / seconds)

    def ratio(other: str) -> list[float] | None:
        if other not in rates:
            return None
        pairs = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
        return [round(value, 2) for value in (statistics.median(pairs), min(pairs), max(pairs))]

    return {
        "model": setting.model,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "stages": trainer.network.num_stages,
        "images_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratio_to_torchvision": ratio("torchvision"),
        "share_of_ceiling": ratio("ceiling"),
    }


def row(result: dict[str, Any]) -> str:
    """Lay out a result as a row of Markdown."""

    def told(values: list[float] | None) -> str:
        return "-" if values is None else f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"

    theirs = result["images_per_second"].get("torchvision")
    cells = [
        result["model"],
        f"{result['parameters']:,}",
        str(result["stages"]),
        f"{result['images_per_second']['ours']:,.0f}",
        "-" if theirs is None else f"{theirs:,.0f}",
        told(result["ratio_to_torchvision"]),
        told(result["share_of_ceiling"]),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure the networks one after the other."""
    from skdtune.catalogues.models import networks

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(networks()), default=list(networks()))
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--stem", choices=["32px", "64px", "imagenet"], default="imagenet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    for model in options.models:
        print(f"{model} ...", file=sys.stderr)
        setting = Setting(
            model, options.stem, options.image_size, options.batch, options.classes, options.device
        )
        results.append(measure(setting, options.rounds))
    about = machine(options.device)
    if options.json:
        print(json.dumps({"machine": about, "networks": results}, indent=2))
        return
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    print("| network | parameters | stages | images/s | torchvision | ratio | share of ceiling |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(map(row, results)))


if __name__ == "__main__":
    main()

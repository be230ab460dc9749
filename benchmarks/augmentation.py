"""What augmentation costs, beside torchvision's own transforms.

    python benchmarks/augmentation.py [--size 32] [--batch 128] [--rounds 5]

Both change the same images, one thread, in turn. torchvision's transforms take one image after
the other, as in a data loader; skdtune takes a batch, and draws what chance decides beforehand.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from skdtune.data.batches import DeviceImages, TrainBatches
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import image_set
from skdtune.describe.data_config import DataConfig

#: For each augmentation its settings, and torchvision's transform of one image.
CASES: Mapping[str, tuple[dict[str, object], Callable[[int], v2.Transform]]] = {
    "pad, crop, flip": (
        {"crop": "pad", "flip": True},
        lambda size: v2.Compose([v2.RandomCrop(size, 4), v2.RandomHorizontalFlip()]),
    ),
    "resized crop": ({"crop": "resized"}, lambda size: v2.RandomResizedCrop(size)),
    "RandAugment": ({"policy": "randaugment"}, lambda _size: v2.RandAugment()),
    "TrivialAugment": ({"policy": "trivialaugment"}, lambda _size: v2.TrivialAugmentWide()),
    "jitter 0.4": ({"jitter": 0.4}, lambda _size: v2.ColorJitter(0.4, 0.4, 0.4)),
    "erasing 0.5": (
        {"erasing": 0.5},
        lambda _size: v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RandomErasing(0.5)]),
    ),
}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(size: int, batch: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return milliseconds of a batch, ours and torchvision's, the medians of some rounds."""
    generator = np.random.default_rng(0)
    images = image_set(
        generator.integers(0, 256, (4 * batch, size, size, 3), dtype=np.uint8),
        np.arange(4 * batch) % 10,
        tuple(map(str, range(10))),
    )
    on_device = DeviceImages(images, *channel_statistics(images), "cpu")
    plain = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])])
    found = {}
    for name, (settings, build) in CASES.items():
        values = {"name": "cifar10", "batch_size": batch, "crop": "none", "flip": False}
        ours = TrainBatches(on_device, DataConfig.model_validate({**values, **settings}), seed=0)
        theirs = v2.Compose([build(size), plain])

        def per_image(theirs: v2.Compose = theirs) -> None:
            for image in on_device.images_NCHW:
                theirs(image)

        def as_batches(ours: TrainBatches = ours) -> None:
            for _ in ours.epoch(0):
                pass

        pairs = [(seconds(as_batches), seconds(per_image)) for _ in range(rounds + 1)][1:]
        found[name] = tuple(statistics.median(side) * 250 for side in zip(*pairs, strict=True))
    return found  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"ms for {options.batch} images of {options.size} pixels, one thread")
    for column in ("", "skdtune", "torchvision", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, (ours, theirs) in measure(options.size, options.batch, options.rounds).items():
        table.add_row(name, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""How fast photographs are decoded at 224 pixels: skdtune beside torchvision's loader.

    python benchmarks/decoding.py [--images 400] [--size 224] [--rounds 3] [--json]

The photographs are scikit-learn's two, cut and scaled to 500 x 375 JPEG files of quality 90, each
a little different. Everything runs on one core, in turn, medians over the rounds:

- ``skdtune``: what fills the cache, once for all trials: each file to a square of ``--size``.
- ``loader``: ``ImageFolder`` with Resize and CenterCrop in a DataLoader that works in one process,
  which a plain training loop does in every epoch.
- ``torchvision``: ``torchvision.io.decode_jpeg`` alone, without the resize.
- ``cache``: the same images again, from the cache: what an epoch costs here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Measure each way in turn and print images per second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="skdtune-decoding-") as folder:
        root = Path(folder)
        paths = write_photographs(root, options.images)
        ways = ways_to_decode(root, paths, options.size)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                # The first round warms up.
                if number:
                    rates[name].append(options.images / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates["skdtune"], values, strict=True))
        for name, values in rates.items()
    }
    if options.json:
        print(json.dumps({"images_per_second": medians, "skdtune_to": ratios}, indent=2))
        return
    print("| way | images/s of one core | skdtune's decoding to it |")
    print("| --- | ---: | ---: |")
    for name, rate in medians.items():
        print(f"| {name} | {rate:,.0f} | {ratios[name]:.2f} |")


def write_photographs(root: Path, number: int) -> list[str]:
    """Write JPEG files of two classes."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    paths = []
    for index in range(number):
        pixels = photographs[index % len(photographs)]
        shift = index % 40
        image = Image.fromarray(pixels[shift : shift + 380, shift : shift + 560])
        path = f"train/{index % 2}/{index:05}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.resize((500, 375)).save(root / path, quality=90)
        paths.append(path)
    return paths


def ways_to_decode(root: Path, paths: list[str], size: int) -> dict[str, Callable[[], object]]:
    """Return what decodes all files once, by name."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.io import decode_jpeg, read_file

    from skdtune.data.batches import DeviceImages
    from skdtune.data.decoding import decode_files
    from skdtune.data.images import image_set
    from skdtune.data.mapped_images import MappedImages

    torch.set_num_threads(1)
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    loader = DataLoader(ImageFolder(str(root / "train"), transforms.Compose(steps)), batch_size=64)
    path = root / "images.npy"
    np.save(path, decode_files(root, paths, size))
    labels_N, half = np.arange(len(paths)) % 2, np.full(3, 0.5, np.float32)
    stored = image_set(np.load(path, mmap_mode="r"), labels_N, ("0", "1"))
    mapped: DeviceImages = MappedImages(stored, half, half, torch.device("cpu"))
    rows = torch.split(torch.randperm(len(paths)), 64)

    def with_torchvision() -> None:
        for name in paths:
            decode_jpeg(read_file(str(root / name)))

    return {
        "skdtune": lambda: decode_files(root, paths, size),
        "loader": lambda: [batch for batch in loader],
        "torchvision": with_torchvision,
        "cache": lambda: [images for images in mapped.in_turn(rows)],
    }


if __name__ == "__main__":
    main()

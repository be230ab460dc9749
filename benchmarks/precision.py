"""Whether bfloat16 changes what a trial learns: final accuracies beside those of float32.

    python benchmarks/precision.py --images cifar10-jpeg [--seeds 8] [--models resnet8] [--json]

The published DRG + DSR setting on the data of ``benchmarks/curves.py``, the same seeds (weights,
order, augmentation) in both precisions. Printed are the accuracies on the 10,000 test images, mean
and sample standard deviation over the seeds, and the paired difference with its 95% interval: a
difference that matters would be larger than the noise between seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from curves import load_images, recorded_spec, train_once

PRECISIONS = ("float32", "bfloat16")


def train(images: str, model: str, seed: int, precision: str, epochs: int) -> dict[str, Any]:
    """Train one seed in one precision on one thread."""
    import torch

    from skdtune.describe import dotted
    from skdtune.describe.config import TrialConfig

    torch.set_num_threads(1)
    spec = recorded_spec(images)
    train, val, held_out = load_images(spec)
    raw: Any = spec.trial_config({}, seed).model_dump(mode="json")
    settings = {
        "model.name": model,
        "model.width": None,
        "model.precision": precision,
        "budget.epochs": epochs,
    }
    for path, value in settings.items():
        raw = dotted.put(raw, path, value)
    config = TrialConfig.model_validate_json(json.dumps(raw))
    start = time.perf_counter()
    row = train_once(config, train, val, held_out)
    row["seconds"] = time.perf_counter() - start
    return {"seed": seed, "precision": precision, "model": model, **row}


def summary(rows: list[dict[str, Any]], model: str) -> dict[str, Any]:
    by = {
        precision: {
            row["seed"]: 100 * (row["test_accuracy"] or 0.0)
            for row in rows
            if (row["model"], row["precision"]) == (model, precision)
        }
        for precision in PRECISIONS
    }
    differences = [by["bfloat16"][seed] - by["float32"][seed] for seed in by["float32"]]
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(differences) - 1)) * deviation / math.sqrt(len(differences))
    return {
        "model": model,
        "seeds": len(differences),
        **{
            precision: {
                "mean": round(statistics.fmean(values.values()), 2),
                "deviation": round(statistics.stdev(values.values()), 2),
                "each": [round(values[seed], 2) for seed in sorted(values)],
            }
            for precision, values in by.items()
        },
        "paired_difference": {
            "mean": round(mean, 2),
            "95%": [round(mean - half, 2), round(mean + half, 2)],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", required=True, help="folder of train/ and test/")
    parser.add_argument("--models", nargs="+", default=["resnet8"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    jobs = [
        (options.images, model, seed, precision, options.epochs)
        for model in options.models
        for seed in range(options.seeds)
        for precision in PRECISIONS
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        rows = list(pool.map(train, *zip(*jobs, strict=True)))
    found = [summary(rows, model) for model in options.models]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for each in found:
        print(f"{each['model']}, {each['seeds']} seeds, {options.epochs} epochs: test accuracy, %")
        for precision in PRECISIONS:
            values = each[precision]
            middle = f"{values['mean']:.2f} ± {values['deviation']:.2f}"
            print(f"  {precision:<9} {middle}  {values['each']}")
        low, high = each["paired_difference"]["95%"]
        print(f"  difference {each['paired_difference']['mean']:+.2f} [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    main()

"""What each method costs beside cross-entropy: time and memory of the same trainer.

    python benchmarks/method_costs.py [--model resnet20] [--device cpu|cuda] [--rounds 5]
                                      [--methods cross_entropy byot ...] [--json]

Every method trains in a process of its own, with one thread on the CPU, as the workers of `launch`
do. The processes take turns: a round gives each one window of some steps, ratios are taken within
a round, and medians over the rounds are printed with the least and the largest. Images are random:
nothing here depends on what they show.

``per image`` counts every view, partner and companion: what a method adds to the work on an
image. ``per epoch`` counts an epoch of the same images, of which some methods see more views.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from training import peak_mb, random_images

from skdtune.engines.local_slots import MALLOC_VARIABLE, plan_slots

BATCH = 128
NUM_CLASSES = 100
STEPS = {"resnet8": 24, "resnet20": 12, "resnet18": 3}
GPU_STEPS = 200

METHODS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "label_smoothing": {"label": {"name": "label_smoothing"}},
    "dsr": {"dsr": {}},
    "drg": {"drg": {}},
    "drg+dsr": {"drg": {}, "dsr": {}},
    "byot": {"byot": {}},
    "ps_kd": {"label": {"name": "ps_kd"}},
    "tf_kd_reg": {"tf_kd_reg": {}},
    "tf_kd_self": {"tf_kd_self": {}},
    "zipf": {"zipf": {}},
    "frskd": {"frskd": {}},
    "cs_kd": {"cs_kd": {}},
    "dlb": {"dlb": {}},
    "ddgsd": {"ddgsd": {}},
    "bake": {"bake": {}},
}


def serve(connection: Connection, method: str, model: str, device: str, folder: str) -> None:
    """Build a training, then run one window for every message; answer with seconds and images."""
    import torch

    from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict

    class OneEpoch(NullReporter):
        def epoch_finished(self, report: EpochReport) -> Verdict:
            return Verdict.INTERRUPT

    if device == "cpu":
        torch.set_num_threads(1)
    trainer, plain_images = build(method, model, device, Path(folder))
    trainer.run(OneEpoch())
    connection.send("ready")
    while connection.recv() == "go":
        start = time.perf_counter()
        trainer.run(OneEpoch())
        if device != "cpu":
            torch.cuda.synchronize()
        connection.send((time.perf_counter() - start, trainer.images_per_epoch, plain_images))
    connection.send(peak_mb(device))


def build(method: str, model: str, device: str, folder: Path) -> tuple[Any, int]:
    """Build a training whose epoch is one window, whatever its batch plan is."""
    import numpy as np
    import torch

    from skdtune.data.batches import DeviceImages
    from skdtune.describe.config import DataConfig, MethodConfig, ModelConfig, TrialConfig
    from skdtune.training.trainer import Trainer

    settings = dict(METHODS[method])
    if "tf_kd_self" in settings:
        settings["tf_kd_self"] = write_teacher(model, folder)
    chosen = MethodConfig.model_validate(settings)
    config = TrialConfig(
        data=DataConfig(name="cifar100", batch_size=BATCH),
        model=ModelConfig(name=model),  # type: ignore[arg-type]
        method=chosen,
    )
    steps = STEPS[model] if device == "cpu" else GPU_STEPS
    # As many images in all: a plan with more views gets fewer of them.
    plain_images = steps * BATCH // chosen.images_per_anchor
    half, target = np.full(3, 0.5, np.float32), torch.device(device)
    train, val = (
        DeviceImages(random_images(number), half, half, target) for number in (plain_images, 2)
    )
    return Trainer(config, train, val, NUM_CLASSES, target), plain_images


def write_teacher(model: str, folder: Path) -> dict[str, str]:
    """Write an untrained network, which costs what a trained one does."""
    from skdtune.catalogues.models import networks
    from skdtune.models.backbone import build_backbone
    from skdtune.models.network_file import NetworkInfo, write_network

    info = NetworkInfo(
        model=model,
        width=networks()[model].width,
        in_channels=3,
        height=32,
        image_width=32,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        data_fingerprint="",
        trained_on="train",
        config={},
        study="none",
        trial=0,
        accuracy=0.0,
        precision="float32",
        environment={},
    )
    network = build_backbone(model, in_channels=3, image_size=(32, 32), num_classes=NUM_CLASSES)
    content = write_network(info, network.state_dict())
    path = folder / "teacher.safetensors"
    path.write_bytes(content)
    return {"teacher": str(path), "teacher_sha256": hashlib.sha256(content).hexdigest()}


def measure(methods: list[str], model: str, device: str, rounds: int) -> dict[str, Any]:
    """Let all methods take turns; return their times by round, and their peaks."""
    context = multiprocessing.get_context("spawn")
    times: dict[str, list[tuple[float, int, int]]] = {method: [] for method in methods}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        served = {}
        for method in methods:
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(there, method, model, device, folder), daemon=True
            )
            process.start()
            # One after the other: two that warm up at once would fight for the cores.
            here.recv()
            served[method] = (here, process)
        for _ in range(rounds):
            for method, (here, _process) in served.items():
                here.send("go")
                times[method].append(here.recv())
        for method, (here, process) in served.items():
            here.send("stop")
            peaks[method] = here.recv()
            process.join()
    return {"times": times, "peak_mb": peaks}


def summarise(found: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """Take ratios to cross-entropy within each round."""
    reference = found["times"]["cross_entropy"]
    rows = []
    for method, windows in found["times"].items():
        ratios: dict[str, list[float]] = {"per_image": [], "per_epoch": []}
        for (seconds, images, plain), (base_s, base_images, base_plain) in zip(
            windows, reference, strict=True
        ):
            ratios["per_image"].append((seconds / images) / (base_s / base_images))
            ratios["per_epoch"].append((seconds / plain) / (base_s / base_plain))
        rows.append(
            {
                "method": method,
                "views": round(windows[0][1] / windows[0][2]),
                "images_per_s": statistics.median(i / s for s, i, _ in windows),
                **{
                    name: [statistics.median(values), min(values), max(values)]
                    for name, values in ratios.items()
                },
                "peak_mb": found["peak_mb"][method],
                "peak_ratio": found["peak_mb"][method] / found["peak_mb"]["cross_entropy"],
                "rounds": rounds,
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| method | views | images/s | time per image | time per epoch | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        image, epoch = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*row[name]) for name in ("per_image", "per_epoch")
        )
        print(
            f"| {row['method']} | {row['views']} | {row['images_per_s']:,.0f} | {image} | {epoch} "
            f"| {row['peak_ratio']:.2f} ({row['peak_mb']:,.0f} MB) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=STEPS, default="resnet20")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    methods = list(dict.fromkeys(["cross_entropy", *arguments.methods]))
    if arguments.device == "cpu":
        # As `launch` gives its workers their memory; the processes inherit it.
        os.environ[MALLOC_VARIABLE] = plan_slots("none", 1)[0].environment[MALLOC_VARIABLE]
    found = measure(methods, arguments.model, arguments.device, arguments.rounds)
    rows = summarise(found, arguments.rounds)
    print(json.dumps(rows, indent=2)) if arguments.json else print_table(rows)


if __name__ == "__main__":
    main()

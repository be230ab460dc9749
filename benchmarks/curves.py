"""Record learning curves of random configurations, for ``benchmarks/search.py`` to replay.

    python benchmarks/curves.py --images cifar10-jpeg [--configs 120] [--workers 2]

``--images`` is a folder of ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``. Every configuration
of the DRG + DSR search space is trained three times, by skdtune's own trainer: over the full
schedule, and over schedules of a third and a ninth of its epochs. A row holds the validation
accuracy after every epoch and the accuracy on the test images after the last one, which no search
looks at: it only scores what a search would have chosen.

Rows are appended as they are finished and those that are there are skipped, so that it can be
stopped and started again at any time. Configuration 0 is the published setting.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from skdtune.describe.config import BudgetConfig, TrialConfig
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec

TABLE = Path(__file__).parent / "data" / "curves.csv"
EPOCHS = (27, 9, 3)
HEAD = ("config", "epochs", "seed", "seconds", "test_accuracy")


def recorded_spec(images: str) -> StudySpec:
    """Return the study whose space is sampled: a small ResNet on 2,400 images, 800 to validate."""
    return load_spec(
        "imagefolder-drg-dsr",
        overrides=[
            f"data.root={images}",
            "data.max_per_class=320",
            "data.val_fraction=0.25",
            "data.batch_size=64",
            "model.name=resnet8",
            f"budget.epochs={EPOCHS[0]}",
        ],
    )


def random_params(spec: StudySpec, number: int) -> list[dict[str, Any]]:
    """Sample so many configurations, the published one first."""
    import optuna

    from skdtune.describe.space import sample

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    fixed = spec.fixed_values()
    found = [sample(spec.search, study.ask(), fixed) for _ in range(number - 1)]
    return [spec.base_params(), *found]


def columns(spec: StudySpec) -> list[str]:
    return [*HEAD, *spec.search, *(f"val_{epoch}" for epoch in range(1, EPOCHS[0] + 1))]


def done_rows(table: Path) -> set[tuple[int, int]]:
    if not table.exists():
        return set()
    with filelock.FileLock(f"{table}.lock"), table.open(newline="") as file:
        # A line that a kill cut off is written again.
        whole = [row for row in csv.DictReader(file) if None not in row.values()]
    return {(int(row["config"]), int(row["epochs"])) for row in whole}


def append(table: Path, fields: list[str], row: dict[str, Any]) -> None:
    with filelock.FileLock(f"{table}.lock"), table.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def work(images: str, table: Path, number: int, part: int, parts: int) -> None:
    """Train the configurations of one worker, each on all schedules."""
    import torch

    torch.set_num_threads(1)
    spec = recorded_spec(images)
    train, val, held_out = load_images(spec)
    params = random_params(spec, number)
    for config in range(part, number, parts):
        for epochs in EPOCHS:
            if (config, epochs) in done_rows(table):
                continue
            trial = spec.trial_config(params[config], config)
            trial = TrialConfig(**{**dict(trial), "budget": BudgetConfig(epochs=epochs)})
            row = train_once(trial, train, val, held_out)
            append(table, columns(spec), {"config": config, **params[config], **row})
            print(f"{config} {epochs} {row['test_accuracy']} {row['seconds']} s", flush=True)


def load_images(spec: StudySpec) -> tuple[Any, Any, Any]:
    """Return the images to train and to validate on, and those of the test, which only score."""
    from skdtune.data.batches import DeviceImages
    from skdtune.data.catalogue import load_search_data, load_test_images
    from skdtune.data.wall import test_split_open
    from skdtune.home import home

    at = home()
    data = load_search_data(spec.data, data_dir=at.data, cache_dir=at.cache)
    with test_split_open():
        test = load_test_images(spec.data, data_dir=at.data, cache_dir=at.cache)
    train, val, held_out = (
        DeviceImages(part, data.mean_C, data.std_C, "cpu") for part in (data.train, data.val, test)
    )
    return train, val, held_out


def train_once(config: TrialConfig, train: Any, val: Any, held_out: Any) -> dict[str, Any]:
    """Train one configuration and return its curve; after a NaN the curve simply ends."""
    from skdtune.errors import NonFiniteLossError
    from skdtune.training.trainer import Trainer

    reporter = Recorder()
    start = time.perf_counter()
    trainer = Trainer(config, train, val, 10, train.device)
    test: float | str = ""
    try:
        trainer.run(reporter)
        scores = trainer.measure(held_out)
        test = round(scores.accuracy, 4)
    except NonFiniteLossError:
        pass
    return {
        "epochs": config.budget.epochs,
        "seed": config.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "test_accuracy": test,
        **{f"val_{epoch}": value for epoch, value in reporter.curve()},
    }


class Recorder:
    """A reporter that keeps the validation accuracies."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def epoch_finished(self, report: Any) -> Any:
        from skdtune.describe.epoch_report import Verdict

        self._values.append(report.val_accuracy)
        return Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        return False

    def curve(self) -> Iterator[tuple[int, float]]:
        return ((epoch, round(value, 5)) for epoch, value in enumerate(self._values, 1))


def sort_table(table: Path, fields: list[str]) -> None:
    with table.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda r: (int(r["config"]), -int(r["epochs"])))
    sorted_table = table.with_suffix(".sorted")
    with sorted_table.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(sorted_table, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", required=True, help="folder of train/ and test/")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--configs", type=int, default=120)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=work,
            args=(options.images, options.table, options.configs, part, options.workers),
        )
        for part in range(options.workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(1)
    sort_table(options.table, columns(recorded_spec(options.images)))


if __name__ == "__main__":
    main()

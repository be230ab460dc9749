"""How long a worker does not train: from its start to the first step, and between two trials.

    python benchmarks/idle.py [--trials 30] [--starts 5] [--storage URL] [--json]

A real worker runs a study of scikit-learn's digits, whose data need no decoding: what is left is
start-up, storage, sampling and building. The gap between two trials is from the return of one
``Trainer.run`` to the call of the next; the gap between two epochs is a checkpoint and a report.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS = ["model.width=16", "budget.epochs=4", "pruner={name: none}"]


def start_seconds(name: str, storage: str) -> dict[str, float]:
    """Start ``skdtune worker`` as a person would, and wait for its lines."""
    marks = {"starts on": "trial claimed", "epoch 1/": "first step"}
    start = time.perf_counter()
    command = [sys.executable, "-m", "skdtune", "--storage", storage, "-v", "worker", name]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--max-trials", "1"], stderr=subprocess.PIPE, text=True
    )
    found: dict[str, float] = {}
    assert process.stderr is not None
    for line in process.stderr:
        for words, mark in marks.items():
            if words in line:
                found.setdefault(mark, time.perf_counter() - start)
    process.wait()
    return found


def gaps_seconds(name: str, storage: str, trials: int) -> dict[str, list[float]]:
    """Run trials in this process, and note when the trainer runs and when it does not."""
    import torch

    from skdtune.training.trainer import Trainer
    from skdtune.worker.worker import run_worker

    torch.set_num_threads(1)
    runs: list[tuple[float, float]] = []
    between: list[float] = []
    original_run, original_epoch = Trainer.run, Trainer._run_epoch

    def run(self: Any, reporter: Any, **options: Any) -> Any:
        start, ends = time.perf_counter(), []

        def epoch(self: Any, *arguments: Any) -> Any:
            if ends:
                between.append(time.perf_counter() - ends[-1])
            report = original_epoch(self, *arguments)
            ends.append(time.perf_counter())
            return report

        Trainer._run_epoch = epoch  # type: ignore[method-assign]
        verdict = original_run(self, reporter, **options)
        runs.append((start, time.perf_counter()))
        return verdict

    Trainer.run = run  # type: ignore[method-assign]
    run_worker(name, storage=storage, device="cpu", max_trials=trials)
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(runs)]
    return {"between trials": gaps, "between epochs": between}


def measure(trials: int, starts: int, storage: str) -> dict[str, Any]:
    from skdtune.describe.presets import load_spec
    from skdtune.queue.stored_study import create_study

    name = f"idle-{os.getpid()}"
    number = trials + starts + 1
    spec = load_spec("digits-drg-dsr", overrides=SETTINGS, name=name, num_trials=number)
    create_study(spec, storage=storage)
    begun = [start_seconds(name, storage) for _ in range(starts + 1)][1:]
    gaps = gaps_seconds(name, storage, trials)
    found = {f"start to {mark}": [each[mark] for each in begun] for mark in begun[0]} | gaps
    return {what: spread(values) for what, values in found.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median_s": round(statistics.median(values), 4),
        "min_s": round(min(values), 4),
        "max_s": round(max(values), 4),
        "count": len(values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--storage", help="default: an SQLite file that is thrown away")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["SKDTUNE_HOME"] = str(folder)
        found = measure(
            options.trials, options.starts, options.storage or f"sqlite:///{folder / 'idle.db'}"
        )
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for what, values in found.items():
        print(f"{what:<24} {values['median_s']:.3f} s [{values['min_s']}, {values['max_s']}]")


if __name__ == "__main__":
    main()

"""Train methods with their published setting, several seeds each, and compare them on test images.

    python benchmarks/published_setting.py cifar100 --model resnet20 --epochs 20 --seeds 3
                                           [--methods baseline drg dsr drg-dsr] [--root DIR]
                                           [--set KEY=VALUE ...] [--workers 1] [--threads 1]
                                           [--records FILE] [--runs DIR] [--table]

This fills a row of docs/results.md. Nothing is searched: `skdtune train DATA-METHOD --test` runs
once for each seed and method, seed by seed, so that whatever stands is a whole comparison of fewer
seeds. A training that was left goes on where it was, exactly; one that the records hold is not run
again. Ctrl-C leaves all of them. The records are one line of JSON per training; `--table` prints
what they say and trains nothing. Each method is compared with the baseline by the paired t test
over the seeds, after Holm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

from skdtune.analysis.statistics import compare_all, format_mean_sd, sentence, summarise

KEPT = (
    "name", "run_hash", "seed", "epochs", "trained_on", "num_train_images", "num_val_images",
    "val_accuracy", "test_accuracy", "test_standard_error", "num_test_images", "test_top5",
    "test_ece", "test_nll", "test_fingerprint", "data_fingerprint", "device", "versions",
)  # fmt: skip
"""What a record keeps of a result."""

BASELINE = "baseline"


def main() -> int:
    """Train what is missing, then print the table."""
    arguments = _arguments()
    records = arguments.records or Path(
        f"benchmarks/records/{arguments.data}-{arguments.model}-{arguments.epochs}-epochs.jsonl"
    )
    stopped = False if arguments.table else _train_missing(arguments, records)
    print(_table(_read(records), arguments.methods))
    return 130 if stopped else 0


def _train_missing(arguments: argparse.Namespace, records: Path) -> bool:
    """Train each method with each seed unless it is on record; tell whether it was interrupted."""
    done = {(record["method"], record["seed"]) for record in _read(records)}
    wanted = [(m, seed) for seed in range(arguments.seeds) for m in arguments.methods]
    stop, writing = Event(), Lock()
    children: list[subprocess.Popen[str]] = []

    def leave(*_: object) -> None:
        stop.set()
        for child in list(children):
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)

    def train(method: str, seed: int) -> None:
        if stop.is_set():
            return
        # In a process group of its own: Ctrl-C reaches it through us, once.
        child = subprocess.Popen(
            _command(arguments, method, seed), stdout=subprocess.PIPE, text=True, process_group=0,
            env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)},
        )  # fmt: skip
        children.append(child)
        assert child.stdout is not None
        last: dict[str, Any] = {}
        for line in child.stdout:
            last = json.loads(line)
            if "epoch" in last:
                of_all, accuracy = f"{last['epoch']} of {last['epochs']}", last["val_accuracy"]
                text = f"epoch {of_all}, {last['seconds']:.0f} s, {accuracy:.2%}"
                print(f"{method} seed {seed}: {text}", flush=True)
        children.remove(child)
        if child.wait() == 0 and last.get("finished"):
            record = {"method": method, "machine": _machine(), **{k: last.get(k) for k in KEPT}}
            with writing:
                records.parent.mkdir(parents=True, exist_ok=True)
                with records.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        elif not stop.is_set():
            print(
                f"{method} seed {seed}: failed with exit code {child.returncode}", file=sys.stderr
            )

    with ThreadPoolExecutor(arguments.workers) as pool:
        for job in [pool.submit(train, *pair) for pair in wanted if pair not in done]:
            job.result()
    return stop.is_set()


def _command(arguments: argparse.Namespace, method: str, seed: int) -> list[str]:
    folder = f"{arguments.data}-{method}-{arguments.model}-{arguments.epochs}-seed{seed}"
    changes = [f"model.name={arguments.model}", *arguments.set]
    if arguments.root:
        changes.append(f"data.root={arguments.root}")
    return [
        sys.executable, "-m", "skdtune", "train", f"{arguments.data}-{method}", "--test", "--json",
        "--seed", str(seed), "--epochs", str(arguments.epochs),
        "--threads", str(arguments.threads),
        "--output", str(arguments.runs / folder),
        *(part for change in changes for part in ("--set", change)),
    ]  # fmt: skip


def _table(records: list[dict[str, Any]], methods: list[str]) -> str:
    """Lay out the records as Markdown, a row per method, and say what the differences are."""
    values = {
        method: {r["seed"]: r["test_accuracy"] for r in records if r["method"] == method}
        for method in methods
    }
    values = {method: of_seed for method, of_seed in values.items() if of_seed}
    if not values:
        return "no training is on record yet"
    compared = compare_all(values, BASELINE) if values.keys() > {BASELINE} else {}
    lines = [
        "| method | seeds | test accuracy (%) | difference | 95% interval | p (Holm) | verdict |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    said = []
    for method, of_seed in values.items():
        row = [method, str(len(of_seed)), format_mean_sd(summarise(list(of_seed.values())))]
        if comparison := compared.get(method):
            low, high = comparison.ci_low, comparison.ci_high
            row += [
                "-" if comparison.difference is None else f"{100 * comparison.difference:+.2f}",
                "-" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f}",
                "-" if comparison.p_holm is None else f"{comparison.p_holm:.3f}",
                comparison.verdict,
            ]
            said.append(sentence(method, BASELINE, comparison))
        else:
            row += ["-", "-", "-", "baseline" if method == BASELINE else "-"]
        lines.append("| " + " | ".join(row) + " |")
    machines = sorted({record["machine"] for record in records})
    return "\n".join([*lines, "", *said, f"machines: {'; '.join(machines)}"])


def _read(records: Path) -> list[dict[str, Any]]:
    if not records.exists():
        return []
    return [json.loads(line) for line in records.read_text().splitlines()]


def _machine() -> str:
    """Name the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="a data set that has presets")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=[BASELINE, "drg", "dsr", "drg-dsr"])
    parser.add_argument("--root", help="where the images lie, if not in the home")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each on a CPU")
    parser.add_argument("--records", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

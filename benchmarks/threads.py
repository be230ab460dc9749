"""What threads bring to one training, on an idle machine and beside busy neighbours.

    python benchmarks/threads.py [--rounds 3] [--threads 1 2] [--cases 8x8 ...] [--json]

A training of DRG + DSR, a process of its own for each network and batch, computes a window of
steps with every number of threads in turn, alone and beside one and two processes that keep a core
busy each. Ratios to one thread are taken within a round, medians over the rounds are printed, and
beside them what the worker's rule (`skdtune/worker/threads.py`) chooses there, asked in that
process while the neighbours are busy. About five minutes on two cores; the machine must be quiet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

NEIGHBOURS = (0, 1, 2)
#: A window takes about so long with one thread, and has at least two steps.
WINDOW_S = 0.5
#: Seconds for which a neighbour has been busy before anything is measured.
SETTLE_S = 0.3


@dataclass(frozen=True)
class Case:
    """A network on images of a size, in batches."""

    model: str
    side: int
    batch: int

    @property
    def label(self) -> str:
        return f"{self.model} {self.side}x{self.side} b{self.batch}"


CASES = (
    Case("resnet8", 8, 32),
    Case("resnet8", 8, 256),
    Case("resnet20", 8, 64),
    Case("resnet8", 32, 32),
    Case("resnet8", 32, 128),
    Case("resnet20", 32, 64),
    Case("resnet20", 32, 128),
    Case("resnet18", 32, 32),
)


# --- in a process of its own --------------------------------------------------------------------


def spin() -> None:
    while True:
        pass


def serve(connection: Connection, case: Case) -> None:
    """Build a training, then answer each number of threads with the seconds of a step."""
    import numpy as np
    import torch

    from skdtune.data.batches import DeviceImages
    from skdtune.data.images import image_set
    from skdtune.describe.config import DataConfig, MethodConfig, ModelConfig, TrialConfig
    from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict
    from skdtune.training.trainer import Trainer
    from skdtune.worker.threads import Threads

    config = TrialConfig(
        data=DataConfig(name="cifar100", batch_size=case.batch),
        model=ModelConfig(name=case.model),
        method=MethodConfig.model_validate({"drg": {}, "dsr": {}}),
    )

    class OneEpoch(NullReporter):
        def epoch_finished(self, report: EpochReport) -> Verdict:
            return Verdict.INTERRUPT

    def build(steps: int) -> Trainer:
        def images(number: int) -> Any:
            shape = (number, case.side, case.side, 3)
            generator = np.random.default_rng(0)
            pixels = generator.integers(0, 256, shape, dtype=np.uint8)
            # Every class is there, or DSR would have nothing to compare.
            labels = np.arange(number) % 10
            loaded = image_set(pixels, labels, tuple(map(str, range(10))))
            half = np.full(3, 0.5, np.float32)
            return DeviceImages(loaded, half, half, cpu)

        cpu = torch.device("cpu")
        return Trainer(config, images(steps * case.batch), images(10), 10, cpu)

    def step_s(trainer: Trainer, threads: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        trainer.run(OneEpoch())
        return (time.perf_counter() - start) / trainer.steps_per_epoch

    # As for a person who starts one worker: no variable decides.
    os.environ.pop("OMP_NUM_THREADS", None)
    short = build(2)
    step_s(short, 1)
    trainer = build(max(2, round(WINDOW_S / step_s(short, 1))))
    connection.send({"layer_work": trainer.layer_work()})
    while (asked := connection.recv()) is not None:
        if asked == "rule":
            with Threads(torch.device("cpu")) as rule:
                rule.take(trainer.layer_work)
                connection.send(torch.get_num_threads())
        else:
            connection.send(step_s(trainer, asked))


# --- in this process ----------------------------------------------------------------------------


@contextlib.contextmanager
def running(target: Any, *arguments: Any) -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=arguments, daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure(case: Case, threads: list[int], rounds: int) -> dict[str, Any]:
    """Measure one case with each number of threads, beside each number of neighbours."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with running(serve, theirs, case):
        found: dict[str, Any] = {"case": case.label, **ours.recv()}
        beside = []
        for neighbours in NEIGHBOURS:
            with contextlib.ExitStack() as stack:
                for _ in range(neighbours):
                    stack.enter_context(running(spin))
                time.sleep(SETTLE_S)
                ours.send("rule")
                chosen = ours.recv()
                times: dict[int, list[float]] = {number: [] for number in threads}
                for _ in range(rounds):
                    for number in threads:
                        ours.send(number)
                        times[number].append(ours.recv())
            gains = {
                number: [one / each for one, each in zip(times[threads[0]], taken, strict=True)]
                for number, taken in times.items()
            }
            beside.append(
                {
                    "neighbours": neighbours,
                    "step_ms": {n: statistics.median(t) * 1000 for n, t in times.items()},
                    "gain": {n: statistics.median(g) for n, g in gains.items()},
                    "gain_least": {n: min(g) for n, g in gains.items()},
                    "gain_most": {n: max(g) for n, g in gains.items()},
                    "rule": chosen,
                }
            )
        ours.send(None)
        return {**found, "beside": beside}


def table(results: list[dict[str, Any]], threads: list[int]) -> str:
    """Write the gains over one thread as a table for docs/performance.md."""
    several = threads[1:]
    head = ["network, images, batch", "million products", "ms, 1 thread"]
    for neighbours in NEIGHBOURS:
        where = ("idle", "1 busy", "2 busy")[neighbours]
        head += [f"{where}: {n} threads" for n in several] + [f"{where}: rule"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for result in results:
        idle = result["beside"][0]
        line = [
            result["case"],
            f"{result['layer_work'] / 1e6:,.1f}",
            f"{idle['step_ms'][threads[0]]:.1f}",
        ]
        for beside in result["beside"]:
            line += [
                f"{beside['gain'][n]:.2f} [{beside['gain_least'][n]:.2f}, "
                f"{beside['gain_most'][n]:.2f}]"
                for n in several
            ]
            line.append(str(beside["rule"]))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    from skdtune.cores import num_cores

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 to the number of cores")
    parser.add_argument("--cases", nargs="+", help="parts of the cases' names; default: all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cores = num_cores()
    threads = sorted({1, *(options.threads or range(1, cores + 1))})
    wanted = [c for c in CASES if not options.cases or any(o in c.label for o in options.cases)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("SKDTUNE_NATIVE", folder)
        for case in wanted:
            results.append(measure(case, threads, options.rounds))
            print(f"{case.label} is done", file=sys.stderr)
    if options.json:
        print(json.dumps({"cores": cores, "rounds": options.rounds, "cases": results}, indent=2))
    else:
        print(table(results, threads))


if __name__ == "__main__":
    main()

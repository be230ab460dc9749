"""What an epoch of a study's published setting costs here: images, and device seconds.

Run as a process: ``python -m skdtune.worker.probes.epoch_cost FOLDERS`` reads the study from its
standard input and prints the cost as JSON; an error of the input is one line and exit code 2.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch

from skdtune.data.store import DataStore
from skdtune.describe.config import TrialConfig
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.describe.spec import spec_from_json
from skdtune.errors import InputError
from skdtune.training.device import resolve_device
from skdtune.training.trainer import Trainer
from skdtune.worker.objective import build_trainer

#: The first steps allocate and choose kernels; they say nothing of the others.
_WARM_UP_STEPS = 3
_MEASURED_S = 3.0
_FEWEST_STEPS = 5
_MOST_EPOCHS = 1000


def epoch_cost(config: TrialConfig, store: DataStore, *, is_timed: bool) -> dict[str, float]:
    """Return ``images`` and, where it is timed, ``seconds`` of one epoch, validation included.

    Args:
        config: A trial's full configuration.
        store: The data, on the device to measure on.
        is_timed: Train some steps and validate, to measure the time.

    Raises:
        InputError: If the data cannot be used.
    """
    data = store.get(config.data)
    trainer = build_trainer(config, data)
    cost = {"images": float(trainer.images_per_epoch)}
    return {**cost, "seconds": _seconds(trainer)} if is_timed else cost


def _seconds(trainer: Trainer) -> float:
    watch = _Watch(trainer.device)
    trainer.run(watch)
    if watch.epochs_s:
        return statistics.mean(watch.epochs_s)
    return statistics.mean(watch.steps_s) * trainer.steps_per_epoch + watch.validate(trainer)


class _Watch:
    """A reporter that times steps and epochs, and ends the training after a few seconds.

    Whole epochs are the better measure, where more than the first one fits into these seconds.
    """

    def __init__(self, device: torch.device) -> None:
        self.steps_s: list[float] = []
        self.epochs_s: list[float] = []
        self._device = device
        self._last = math.nan
        self._num_steps = 0

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Note the time of an epoch after the first."""
        if report.epoch > 0:
            self.epochs_s.append(report.seconds)
        return Verdict.PRUNE if self._has_enough() else Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        """Note the time since the step before, if that was of the same epoch."""
        now = self._now()
        self._num_steps += 1
        if progress > 0 and self._num_steps > _WARM_UP_STEPS:
            self.steps_s.append(now - self._last)
        self._last = now
        return self._has_enough() and not self.epochs_s

    def validate(self, trainer: Trainer) -> float:
        """Return the time that the validation takes."""
        trainer.validate()
        start = self._now()
        trainer.validate()
        return self._now() - start

    def _has_enough(self) -> bool:
        if len(self.epochs_s) > 1 and sum(self.epochs_s) >= _MEASURED_S:
            return True
        return len(self.steps_s) >= _FEWEST_STEPS and sum(self.steps_s) >= _MEASURED_S

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def main() -> int:
    """Read a study from the standard input and print the cost of an epoch."""
    folders, asked = json.loads(sys.argv[1]), json.load(sys.stdin)
    try:
        spec = spec_from_json(json.dumps(asked["spec"]))
        device = resolve_device(None)
        if device.type == "cpu":
            # As `launch` runs its workers.
            torch.set_num_threads(1)
        store = DataStore(Path(folders["data"]), Path(folders["cache"]), device)
        config = spec.trial_config({}, 0)
        # What is planned so far is no limit to what is measured.
        budget = config.budget.model_copy(update={"epochs": _MOST_EPOCHS})
        config = config.model_copy(update={"budget": budget})
        cost = epoch_cost(config, store, is_timed=asked["is_timed"])
    except InputError as error:
        print(error, file=sys.stderr)
        return InputError.exit_code
    print(json.dumps(cost))
    return 0


if __name__ == "__main__":
    sys.exit(main())

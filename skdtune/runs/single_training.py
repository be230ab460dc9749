"""One training without a study or a database, from its first step or checkpoint to a result."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skdtune.analysis.tables import format_count
from skdtune.data.store import DataStore
from skdtune.describe.config import config_hash
from skdtune.describe.data_source import DataSource
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.errors import (
    CheckpointError,
    InputError,
    NonFiniteLossError,
    OtherDataError,
    SkdtuneError,
)
from skdtune.home import Home, home
from skdtune.networks.description import describe_network
from skdtune.networks.network_artifact import pack_network
from skdtune.queue.checked_values import whole
from skdtune.runs.card import card_of_run
from skdtune.runs.plan import RunPlan
from skdtune.runs.preparation import RunData, prepare_run
from skdtune.runs.result import scored_on_test, summed_up, versions_of
from skdtune.runs.run_folder import CARD, CHECKPOINTS, NETWORK, RESULT, RunFolder
from skdtune.runs.watcher import RunStart, Watcher
from skdtune.signals import StopRequest
from skdtune.training.checkpoint import CheckpointOwner, TrialCheckpoints
from skdtune.training.compilation import compile_mode
from skdtune.training.device import (
    arithmetic_on,
    is_out_of_memory,
    prepare_kernels,
    resolve_device,
)
from skdtune.training.peak_memory import PeakMemory
from skdtune.training.trainer import Trainer
from skdtune.worker.threads import Threads


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What became of a training."""

    folder: Path
    num_epochs: int
    """Finished epochs."""

    result: Mapping[str, Any] | None
    """What it came to, as ``result.json`` holds it; None if it was left before its end."""

    was_finished: bool = False
    """All was there already, and nothing was done."""


def train_once(
    plan: RunPlan,
    *,
    folder: Path | None = None,
    test: bool = False,
    device: str | None = None,
    threads: int | None = None,
    at: Home | None = None,
    stop: StopRequest | None = None,
    watcher: Watcher | None = None,
) -> RunOutcome:
    """Train once, or go on where it was left; on the CPU bit by bit as it would have.

    Args:
        plan: What is trained.
        folder: Where to keep it; default a folder of its own below ``runs`` in the current one.
        test: Score the network on the test images after the last epoch, once.
        device: ``cpu``, ``cuda`` or ``cuda:1``; default the first GPU, else the CPU.
        threads: Threads to compute with; default as a worker has.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.
        stop: Stop request to obey; default one of its own, without signals.
        watcher: Is told of every step and epoch.

    Raises:
        InputError: If device, data or folder cannot be used; nothing was changed.
        NonFiniteLossError: If a training loss became NaN or infinite.
        SkdtuneError: If memory or disk is full.
    """
    if plan.all_images and not test:
        raise InputError(
            "who learns from all images has none to be judged on: add --test, which scores the "
            "test images once, after the last epoch"
        )
    resolved, at = resolve_device(device), at or home()
    # A wrong mode must be said before anything is written.
    compile_mode()
    target = folder if folder is not None else Path("runs") / plan.folder_name
    run = RunFolder(target.expanduser().absolute())
    if (finished := _finished(run, plan, test)) is not None:
        return finished
    stop, watcher = stop or StopRequest(), watcher or Watcher()
    with Threads(resolved, threads) as in_use:
        store = DataStore(at.data, at.cache, resolved)
        data = prepare_run(plan, store, test=test)
        prepare_kernels(resolved, lambda: stop.requested)
        with run.held():
            # Another process may have ended it meanwhile.
            if (finished := _finished(run, plan, test)) is not None:
                return finished
            training = SingleTraining(plan, run, store, data, in_use, stop, watcher)
            return training.run(test=test)


def _finished(run: RunFolder, plan: RunPlan, test: bool) -> RunOutcome | None:
    """Return what a finished training came to; None if something is left to do."""
    if run.require_for(plan) is None:
        return None
    result = run.result()
    if result is None or (test and "test_accuracy" not in result):
        return None
    epochs = plan.config.budget.epochs
    return RunOutcome(folder=run.path, num_epochs=epochs, result=result, was_finished=True)


class SingleTraining:
    """One process at one training; it is the trainer's reporter, too.

    Args:
        plan: What is trained.
        folder: Where it is kept; held by this process.
        store: The data.
        data: The images of the training.
        threads: Those of this process.
        stop: What the signals asked for.
        watcher: Is told of every step and epoch.
    """

    def __init__(
        self,
        plan: RunPlan,
        folder: RunFolder,
        store: DataStore,
        data: RunData,
        threads: Threads,
        stop: StopRequest,
        watcher: Watcher,
    ) -> None:
        self._known = folder.require_for(plan) or {}
        # Its own configuration, given again, does not say where it was from.
        self._plan = dataclasses.replace(plan, origin=plan.origin or self._known.get("from") or {})
        self._folder = folder
        self._store = store
        self._data = data
        self._threads = threads
        self._stop = stop
        self._watcher = watcher
        self._num_planned = plan.config.budget.epochs
        self._attempt = (whole(self._known.get("attempts")) or 0) + 1
        owner = CheckpointOwner(
            plan.spec.name, plan.digest, 0, config_hash(plan.config), data.source.digest
        )
        self._checkpoints = TrialCheckpoints(str(folder.path), owner, self._attempt, CHECKPOINTS)
        self._epochs: list[EpochReport] = []

    def run(self, *, test: bool) -> RunOutcome:
        """Train to the last epoch, or until a signal.

        Args:
            test: Score the network on the test images then.

        Raises:
            InputError: If the folder was begun with other images, or cannot be gone on with.
            SkdtuneError: One line with what went wrong and what is kept.
        """
        self._require_same_images()
        peak = PeakMemory(self._store.device)
        try:
            self._trainer, began_with = self._begin()
            self._take_threads(began_with)
            self._watcher.begins(self._start(), self._epochs)
            verdict = self._trainer.run(self, first_epoch=len(self._epochs))
            result = None
            if verdict is Verdict.CONTINUE:
                more = {"peak_memory_mb": peak.mebibytes, "attempts": self._attempt}
                result = self._finish(more, test=test)
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"{error}; {self._kept(len(self._epochs))}, and the same command would come to "
                "the same: try a lower optimizer.lr or other weights, which are another run"
            ) from None
        except CheckpointError as error:
            raise SkdtuneError(
                f"epoch {len(self._epochs)} cannot be kept: {error}; "
                f"{self._kept(len(self._epochs) - 1)}; make room, then the same command goes on"
            ) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise SkdtuneError(
                f"the memory of {self._store.device} is full; {self._kept(len(self._epochs))}: a "
                "smaller data.batch_size or network, or another --device"
            ) from error
        finally:
            self._watcher.ends()
        return RunOutcome(folder=self._folder.path, num_epochs=len(self._epochs), result=result)

    # What the trainer reports

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Write a checkpoint, then the curve.

        Raises:
            CheckpointError: If the checkpoint cannot be written.
            SkdtuneError: If the curve cannot.
        """
        self._epochs.append(report)
        curve = [dataclasses.asdict(each) for each in self._epochs]
        self._checkpoints.save(len(curve), self._trainer.state(), curve)
        self._folder.write_curve(self._epochs)
        self._watcher.epoch(report)
        is_last = len(self._epochs) == self._num_planned
        return Verdict.INTERRUPT if self._stop.interrupted and not is_last else Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        """Leave at the next step after a signal: what the epoch has learned so far is lost."""
        self._watcher.step(progress)
        return self._stop.interrupted

    # The way from the first step to the result

    def _begin(self) -> tuple[Trainer, Mapping[str, Any]]:
        """Build the training, bring it to its newest checkpoint, and write down what it is.

        Returns:
            The training, and what its epochs so far were computed with.
        """
        trainer, began_with = self._build(), {}
        checkpoint = self._checkpoints.load(self._watcher.say) if self._known else None
        if checkpoint is not None:
            try:
                trainer.load_state(checkpoint.state)
                self._epochs, began_with = checkpoint.reports(), dict(checkpoint.arithmetic)
                said = f"goes on after epoch {checkpoint.epochs}, from its checkpoint"
            except CheckpointError as error:
                trainer = self._build()
                said = f"the checkpoint is of no use, the training starts over: {error}"
            self._watcher.say(said)
        if self._folder.result() is not None and len(self._epochs) < self._num_planned:
            raise InputError(
                f"{self._folder.path} is finished, and its last checkpoint is gone: the test "
                "images can be scored by another run only; choose another --output"
            )
        self._folder.begin(self._plan, self._data.source, self._attempt)
        if self._epochs:
            self._folder.write_curve(self._epochs)
        return trainer, began_with

    def _build(self) -> Trainer:
        images = self._data.images
        return Trainer(
            self._plan.config, images.train, images.val, images.num_classes, self._store.device
        )

    def _take_threads(self, began_with: Mapping[str, Any]) -> None:
        """Compute with the threads of the epochs so far, and say what else is not as in them."""
        self._threads.take(self._trainer.layer_work, whole(began_with.get("threads")))
        now = dataclasses.asdict(arithmetic_on(self._store.device, self._trainer.dtype))
        on_cpu = self._store.device.type == "cpu"
        changed = [
            f"{name} {began_with[name]} (now {value})"
            for name, value in now.items()
            # Beside a GPU threads decide nothing.
            if began_with.get(name, value) != value and (on_cpu or name != "threads")
        ]
        if changed:
            self._watcher.say(f"the epochs so far were computed with {', '.join(changed)}")

    def _finish(self, more: Mapping[str, Any], *, test: bool) -> dict[str, Any]:
        """Score, keep the network with its card, and write down what it all came to."""
        plan, data, trainer = self._plan, self._data, self._trainer
        # What was finished before is only scored on the test images now.
        result = self._folder.result() or {
            **summed_up(plan, data, trainer, self._epochs),
            **more,
        }
        if test:
            result |= scored_on_test(plan, data, trainer, self._store)
        images = data.images
        info = describe_network(
            trainer,
            images,
            study=plan.spec.name,
            trial=0,
            accuracy=result["val_accuracy" if "val_accuracy" in result else "test_accuracy"],
            versions=versions_of(plan),
        )
        shown = images.train if images.val is None else images.val
        packed = pack_network(trainer.network, shown, trainer.dtype, info)
        self._folder.write(NETWORK, packed)
        result["network_sha256"] = hashlib.sha256(packed).hexdigest()
        self._folder.write(CARD, card_of_run(self._folder.path, result).encode())
        # The last one: it says that the training is over.
        self._folder.write_json(RESULT, result)
        return result

    def _require_same_images(self) -> None:
        """Refuse to go on with other images than the run was begun with."""
        if not self._known:
            return
        path, now = self._folder.path, self._data.source
        try:
            before = DataSource.from_plain(self._known.get("source"))
        except ValueError as error:
            raise InputError(
                f"{path}: its note of its data is damaged: {error}; choose another --output"
            ) from None
        if before != now:
            _, what = before.first_difference(now)
            raise OtherDataError(
                f"{path} was begun with other training images than {now.folder} has now: {what}; "
                "use the same data, or another --output"
            )

    def _start(self) -> RunStart:
        arithmetic = arithmetic_on(self._store.device, self._trainer.dtype)
        images = self._data.images
        return RunStart(
            name=self._plan.spec.name,
            folder=self._folder.path,
            seed=self._plan.spec.seed,
            epochs=self._num_planned,
            num_train=len(images.train),
            num_val=None if images.val is None else len(images.val),
            computes=f"{self._store.device}, {arithmetic.precision}, {arithmetic.kernels} "
            f"kernels, {self._threads}",
        )

    def _kept(self, num_epochs: int) -> str:
        if num_epochs < 1:
            return "no epoch was finished"
        return f"{self._folder.path} keeps the {format_count(num_epochs, 'epoch')} before it"

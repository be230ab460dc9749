"""One training without a study or a database, from its first step or checkpoint to a result."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import skdtune
from skdtune.analysis.tables import format_count
from skdtune.analysis.verdict import standard_error
from skdtune.data.store import DataOnDevice, DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.config import config_hash
from skdtune.describe.data_source import DataSource
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.describe.packages import package_versions
from skdtune.describe.training_length import require_long_enough
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
from skdtune.queue.trial_attributes import describe_epochs
from skdtune.runs.card import card_of_run
from skdtune.runs.plan import RunPlan
from skdtune.runs.run_folder import CARD, CHECKPOINTS, NETWORK, RESULT, RunFolder
from skdtune.runs.watcher import RunStart, Watcher
from skdtune.signals import StopRequest
from skdtune.training.checkpoint import Checkpoint, CheckpointOwner, TrialCheckpoints
from skdtune.training.compilation import compile_mode
from skdtune.training.device import (
    Arithmetic,
    arithmetic_on,
    describe_device,
    is_out_of_memory,
    prepare_kernels,
    resolve_device,
)
from skdtune.training.peak_memory import PeakMemory
from skdtune.training.trainer import Trainer
from skdtune.worker.requirements import require_importable, tell_of_data
from skdtune.worker.teacher import require_honest_teacher
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
    compile_mode()
    target = folder if folder is not None else Path("runs") / plan.folder_name
    run = RunFolder(target.expanduser().absolute())
    if (outcome := _finished(run, plan, test)) is not None:
        return outcome
    stop, watcher = stop or StopRequest(), watcher or Watcher()
    with Threads(resolved, threads) as in_use:
        training = SingleTraining(
            plan, run, DataStore(at.data, at.cache, resolved), in_use, stop, watcher, test=test
        )
        training.prepare()
        prepare_kernels(resolved, lambda: stop.requested)
        with run.held():
            # Another process may have ended it meanwhile.
            return _finished(run, plan, test) or training.run()


def _finished(run: RunFolder, plan: RunPlan, test: bool) -> RunOutcome | None:
    """Return what a finished training came to; None if something is left to do."""
    if run.require_for(plan) is None:
        return None
    result = run.result()
    if result is None or (test and "test_accuracy" not in result):
        return None
    epochs = plan.config.budget.epochs
    return RunOutcome(folder=run.path, num_epochs=epochs, result=result, was_finished=True)


@dataclass
class SingleTraining:
    """One process at one training; it is the trainer's reporter, too.

    Args:
        plan: What is trained.
        folder: Where it is kept.
        store: The data.
        threads: Those of this process.
        stop: What the signals asked for.
        watcher: Is told of every step and epoch.
        test: Score the network on the test images, once.
    """

    plan: RunPlan
    folder: RunFolder
    store: DataStore
    threads: Threads
    stop: StopRequest
    watcher: Watcher
    test: bool
    epochs: list[EpochReport] = field(default_factory=list, init=False)

    def prepare(self) -> None:
        """Load what the training needs, so that what is missing is said before it begins.

        Raises:
            OtherDataError: If it, or the study that it is from, was begun with other images.
            InputError: If something is missing or cannot be used.
        """
        spec = self.plan.spec
        require_importable(spec)
        name = self.plan.origin.get("study", spec.name)
        self._source = self.store.hold(spec.data, "train", name, self.plan.pinned)
        if self.test:
            with test_split_open():
                self.store.hold(spec.data, "test", name, None)
        self._data = self._load()
        require_long_enough(spec, len(self._data.train))
        if self._data.val is not None:
            require_honest_teacher(spec, self._data.fingerprint)
        if self.test:
            with test_split_open():
                self.store.decode_test(spec.data)
        tell_of_data(self.store, spec.data, is_tested=self.test)

    def run(self) -> RunOutcome:
        """Train to the last epoch, or until a signal; the folder is held by now.

        Raises:
            SkdtuneError: One line with what went wrong and what is kept.
        """
        known = self.folder.require_for(self.plan) or {}
        self._require_same_images(known)
        try:
            verdict = self._train((whole(known.get("attempts")) or 0) + 1)
            if verdict is not Verdict.CONTINUE:
                return self._outcome(None)
            return self._outcome(self._finish())
        except NonFiniteLossError as error:
            raise NonFiniteLossError(
                f"{error}; {self._kept}, and the same command would come to the same: try a lower "
                "optimizer.lr or other weights, which are another run"
            ) from None
        except CheckpointError as error:
            raise SkdtuneError(
                f"epoch {len(self.epochs)} cannot be kept: {error}; {self._kept_before}; make "
                "room, then the same command goes on"
            ) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise SkdtuneError(
                f"the memory of {self.store.device} is full; {self._kept}: a smaller "
                "data.batch_size or network, or another --device"
            ) from error
        finally:
            self.watcher.ends()

    # What the trainer reports

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Write a checkpoint, then the curve.

        Raises:
            CheckpointError: If the checkpoint cannot be written.
            SkdtuneError: If the curve cannot.
        """
        self.epochs.append(report)
        curve = [dataclasses.asdict(each) for each in self.epochs]
        self._checkpoints.save(len(curve), self._capture(), curve)
        self.folder.write_curve(self.epochs)
        self.watcher.epoch(report)
        is_last = len(self.epochs) == self.plan.config.budget.epochs
        return Verdict.INTERRUPT if self.stop.interrupted and not is_last else Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        """Leave at the next step after a signal: what the epoch has learned so far is lost."""
        self.watcher.step(progress)
        return self.stop.interrupted

    # The way from the first step to the result

    def _load(self) -> DataOnDevice:
        config = self.plan.config.data
        return self.store.undivided(config) if self.plan.all_images else self.store.get(config)

    def _build(self) -> Trainer:
        data = self._data
        return Trainer(self.plan.config, data.train, data.val, data.num_classes, self.store.device)

    def _train(self, attempt: int) -> Verdict:
        self._peak = PeakMemory(self.store.device)
        self._attempt = attempt
        self._trainer, checkpoint = self._build(), None
        owner = CheckpointOwner(
            self.plan.spec.name, self.plan.digest, 0, config_hash(self.plan.config), self._digest
        )
        path = str(self.folder.path)
        self._checkpoints = TrialCheckpoints(path, owner, attempt, CHECKPOINTS)
        if attempt > 1:
            checkpoint = self._resume()
        self._capture: Callable[[], dict[str, Any]] = self._trainer.state
        is_over = len(self.epochs) == self.plan.config.budget.epochs
        if self.folder.result() is not None and not is_over:
            raise InputError(
                f"{self.folder.path} is finished, and its last checkpoint is gone: the test "
                "images can be scored by another run only; choose another --output"
            )
        self.folder.begin(self.plan, self._source, attempt)
        if self.epochs:
            self.folder.write_curve(self.epochs)
        self._take_threads({} if checkpoint is None else checkpoint.arithmetic)
        self.watcher.begins(self._start(), self.epochs)
        return self._trainer.run(self, first_epoch=len(self.epochs))

    def _resume(self) -> Checkpoint | None:
        """Bring the training to its newest checkpoint that can be used."""
        checkpoint = self._checkpoints.load(self.watcher.say)
        if checkpoint is None:
            return None
        try:
            self._trainer.load_state(checkpoint.state)
            self.epochs = checkpoint.reports()
        except CheckpointError as error:
            self.watcher.say(f"the checkpoint is of no use, the training starts over: {error}")
            self._trainer, self.epochs = self._build(), []
            return None
        self.watcher.say(f"goes on after epoch {checkpoint.epochs}, from its checkpoint")
        return checkpoint

    def _take_threads(self, before: Mapping[str, Any]) -> None:
        """Compute with the threads of the epochs so far, and say what else is not as in them."""
        self.threads.take(self._trainer.layer_work, whole(before.get("threads")))
        now = dataclasses.asdict(self._arithmetic)
        on_cpu = self.store.device.type == "cpu"
        changed = [
            f"{name} {before[name]} (now {value})"
            for name, value in now.items()
            # Beside a GPU threads decide nothing.
            if before.get(name, value) != value and (on_cpu or name != "threads")
        ]
        if changed:
            self.watcher.say(f"the epochs so far were computed with {', '.join(changed)}")

    def _finish(self) -> dict[str, Any]:
        """Score, keep the network with its card, and write down what it all came to."""
        # What was finished before is only scored on the test images now.
        result = self.folder.result() or self._result()
        if self.test:
            result |= self._score_test()
        accuracy = result["val_accuracy" if "val_accuracy" in result else "test_accuracy"]
        images = self._data.train if self._data.val is None else self._data.val
        info = describe_network(
            self._trainer,
            self._data,
            study=self.plan.spec.name,
            trial=0,
            accuracy=accuracy,
            versions=self._versions(),
        )
        packed = pack_network(self._trainer.network, images, self._trainer.dtype, info)
        self.folder.write(NETWORK, packed)
        result["network_sha256"] = hashlib.sha256(packed).hexdigest()
        self.folder.write(CARD, card_of_run(self.folder.path, result).encode())
        # The last one: it says that the training is over.
        self.folder.write_json(RESULT, result)
        return result

    def _result(self) -> dict[str, Any]:
        """Sum up the training as plain data, under the names that a trial's attributes have."""
        last, data = self.epochs[-1], self._data
        num_val = None if data.val is None else len(data.val)
        judged: dict[str, Any] = {}
        if last.val_accuracy is not None:
            judged = {
                "val_accuracy": last.val_accuracy,
                "val_standard_error": standard_error(last.val_accuracy, num_val),
                "num_val_images": num_val,
            }
        summed_up, _ = describe_epochs(self.epochs)
        return {
            "name": self.plan.spec.name,
            "run_hash": self.plan.digest,
            "seed": self.plan.spec.seed,
            "epochs": len(self.epochs),
            "trained_on": "train+val" if data.val is None else "train",
            "num_train_images": len(data.train),
            **judged,
            **summed_up,
            "peak_memory_mb": self._peak.mebibytes,
            "device": f"{self.store.device} ({describe_device(self.store.device)})",
            **dataclasses.asdict(self._arithmetic),
            "versions": {**self._versions(), "torch": torch.__version__},
            "data_fingerprint": data.fingerprint,
            "source": self._digest,
            **({"from": dict(self.plan.origin)} if self.plan.origin else {}),
            "attempts": self._attempt,
        }

    def _score_test(self) -> dict[str, Any]:
        """Look at the test images, here, once, and nowhere else."""
        with test_split_open():
            test = self.store.test(self.plan.config.data)
        scores = self._trainer.score(test.images.normalised_like(self._data.train))
        return {
            "test_accuracy": scores.accuracy,
            "test_standard_error": standard_error(scores.accuracy, len(test.images)),
            "num_test_images": len(test.images),
            "test_top5": scores.top5,
            "test_ece": scores.ece,
            "test_nll": scores.nll,
            "test_fingerprint": test.fingerprint,
        }

    def _require_same_images(self, known: Mapping[str, Any]) -> None:
        if "source" not in known:
            return
        try:
            before = DataSource.from_plain(known["source"])
        except ValueError as error:
            raise InputError(
                f"{self.folder.path}: its note of its data is damaged: {error}; choose another "
                "--output"
            ) from None
        if before != self._source:
            _, what = before.first_difference(self._source)
            raise OtherDataError(
                f"{self.folder.path} was begun with other training images than "
                f"{self._source.folder} has now: {what}; use the same data, or another --output"
            )

    def _start(self) -> RunStart:
        arithmetic, val = self._arithmetic, self._data.val
        return RunStart(
            name=self.plan.spec.name,
            folder=self.folder.path,
            seed=self.plan.spec.seed,
            epochs=self.plan.config.budget.epochs,
            num_train=len(self._data.train),
            num_val=None if val is None else len(val),
            computes=f"{self.store.device}, {arithmetic.precision}, {arithmetic.kernels} kernels, "
            f"{self.threads}",
        )

    def _outcome(self, result: Mapping[str, Any] | None) -> RunOutcome:
        return RunOutcome(folder=self.folder.path, num_epochs=len(self.epochs), result=result)

    def _versions(self) -> dict[str, str]:
        return {
            "skdtune": skdtune.__version__,
            "python": platform.python_version(),
            **package_versions(self.plan.spec),
        }

    @property
    def _arithmetic(self) -> Arithmetic:
        return arithmetic_on(self.store.device, self._trainer.dtype)

    @property
    def _digest(self) -> str:
        return self._source.digest

    @property
    def _kept(self) -> str:
        return _kept(self.folder.path, len(self.epochs))

    @property
    def _kept_before(self) -> str:
        return _kept(self.folder.path, len(self.epochs) - 1)


def _kept(folder: Path, num_epochs: int) -> str:
    if num_epochs < 1:
        return "no epoch was finished"
    return f"{folder} keeps the {format_count(num_epochs, 'epoch')} before it"

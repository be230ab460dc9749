"""The bridge between a training and its trial: checkpoint, report, judgement, after each epoch."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial

from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.errors import CheckpointError, LeaseLostError, StorageAwayError
from skdtune.queue.events import EventKind
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import Claim
from skdtune.queue.trial_attributes import (
    JUDGED_EPOCHS,
    FinalScores,
    describe_epochs,
    describe_test,
    is_queued,
)
from skdtune.queue.trial_queue import TrialQueue
from skdtune.search.rank import describe_rank
from skdtune.training.checkpoint import Checkpoint, TrialCheckpoints
from skdtune.training.trainer import Trainer
from skdtune.worker.departure import Departure
from skdtune.worker.heartbeat import Heartbeat
from skdtune.worker.hooks.hook import Hook

logger = logging.getLogger(__name__)


@dataclass
class TrialReporter:
    """Writes a trial's checkpoints and curve, and asks the pruner at the rungs.

    While the storage is away the training goes on: epochs are kept in their order and stored,
    and judged, when it answers again.

    Args:
        queue: The queue that the trial was claimed from.
        claim: The trial in hand.
        history: What the pruner sees.
        checkpoints: Where the trial's checkpoints lie.
        heartbeat: Knows whether the trial still is this worker's.
        departure: Says when the worker must leave the trial.
        hooks: Told of each epoch.
    """

    queue: TrialQueue
    claim: Claim
    history: TrialHistory
    checkpoints: TrialCheckpoints
    heartbeat: Heartbeat
    departure: Departure
    hooks: Sequence[Hook] = ()
    epochs: list[EpochReport] = field(default_factory=list, init=False)
    pruned_because: str = field(default="", init=False)

    def __post_init__(self) -> None:
        spec = self.queue.stored.spec
        self.began_with: Mapping[str, Any] = {}
        """The arithmetic that the checkpoint in use was computed with; empty without one."""

        self._tested: FinalScores | None = None
        self._pruner = spec.effective_pruner
        self._rungs = self._pruner.judged_epochs(spec.budget.epochs)
        self._num_stored = 0
        self._num_judged = 0
        self._capture: Callable[[], dict[str, Any]] = dict
        self._has_complained = False

    def resume(self, trainer: Trainer, *, trust_nameless: bool = True) -> Verdict:
        """Bring a training, and the stored curve, to the newest checkpoint of the trial.

        Args:
            trainer: The training.
            trust_nameless: Go on from a checkpoint that does not name its images.

        Returns:
            PRUNE if the trial was at a rung when it was cut off, and is judged now.

        Raises:
            CheckpointError: If a checkpoint does not fit the training, which is unusable then.
            LeaseLostError: If the trial is not this worker's any more.
        """
        self._capture = trainer.state
        stored = self.history.get_trial(self.claim.trial_id)
        checkpoint = None
        if self.claim.attempt > 1:
            checkpoint = self.checkpoints.load(self.say, trust_nameless=trust_nameless)
        if checkpoint is not None:
            trainer.load_state(checkpoint.state)
            self.epochs = checkpoint.reports()
            # Earlier versions left it with the trial only.
            self.began_with = checkpoint.arithmetic or stored.user_attrs
        if self.claim.attempt > 1 or stored.intermediate_values:
            self._rewind(checkpoint)
        verdict = self._catch_up(self.queue)
        if verdict is Verdict.CONTINUE:
            self._start_epoch()
        return verdict

    def start_over(self, trainer: Trainer) -> Verdict:
        """Begin again from the first epoch, after a checkpoint turned out to be of no use."""
        self._capture, self.epochs, self.began_with = trainer.state, [], {}
        self._rewind(None)
        self._start_epoch()
        return Verdict.CONTINUE

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Save a checkpoint, store the epoch, and judge the trial if it is at a rung.

        Raises:
            LeaseLostError: If the trial is not this worker's any more.
        """
        for hook in self.hooks:
            hook.epoch_ends()
        self.epochs.append(report)
        if not self.heartbeat.holds():
            raise LeaseLostError("the lease was lost")
        self._save_checkpoint()
        verdict = self._send()
        for hook in self.hooks:
            hook.reported(report)
        if verdict is Verdict.CONTINUE and self.departure.is_asked_for and not self._is_over:
            return Verdict.INTERRUPT
        if verdict is Verdict.CONTINUE:
            self._start_epoch()
        return verdict

    def interrupted(self, progress: float) -> bool:
        """Tell whether the training must be left at once, rather than at the end of the epoch."""
        return self.departure.is_due(progress)

    def settle(self) -> Verdict:
        """Store what is left after the training; waits for a storage that is away.

        Raises:
            LeaseLostError: If the trial is not this worker's any more.
            StorageAwayError: If the storage was away for too long.
        """
        return self._catch_up(self.queue)

    def test_finished(self, scores: FinalScores) -> None:
        """Take note of what the training scored on the test images."""
        self._tested = scores

    def training_left(self) -> None:
        """Forget the training, whose tensors would be held until the next one's are made."""
        self._capture = dict

    @property
    def unstored(self) -> dict[int, float]:
        """Values of epochs, by epoch, that the storage does not have yet."""
        return {r.epoch: r.value for r in self.epochs[self._num_stored :]}

    def value(self) -> float:
        """Return the objective: the mean validation accuracy of the last epochs.

        For a final evaluation it is the accuracy on the test images.
        """
        if self._tested is not None:
            return self._tested.accuracy
        window = self.epochs[-self.queue.stored.spec.objective.window_epochs :]
        return sum(report.value for report in window) / len(window)

    def attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sum up the trial as user and system attributes."""
        user, system = describe_epochs(self.epochs)
        if self._tested is not None:
            tested_user, tested_system = describe_test(self._tested)
            user, system = user | tested_user, system | tested_system
        return user, system

    def say(self, message: str) -> None:
        """Tell people, and the trial's story, of something that the trial outlives."""
        logger.warning("trial %d: %s", self.claim.number, message)
        if self.queue.patience.is_away:
            return
        try:
            self.queue.once.note(self.claim, EventKind.NOTED, len(self.epochs), message)
        except StorageAwayError:
            logger.debug("the storage is away: the note is in this log only")

    @property
    def _is_over(self) -> bool:
        return len(self.epochs) >= self.queue.stored.spec.budget.epochs

    def _start_epoch(self) -> None:
        self.departure.epoch_started(self.epochs)
        for hook in self.hooks:
            hook.epoch_starts(self.epochs)

    def _rewind(self, checkpoint: Checkpoint | None) -> None:
        curve = [report.value for report in self.epochs]
        kind = EventKind.RESTARTED if checkpoint is None else EventKind.RESUMED
        detail = (
            "from its first epoch: there is no checkpoint that can be used"
            if checkpoint is None
            else f"after epoch {checkpoint.epochs}, from the checkpoint of attempt "
            f"{checkpoint.attempt}"
        )
        trial = self.history.get_trial(self.claim.trial_id)
        self._num_judged = min(int(trial.system_attrs.get(JUDGED_EPOCHS, 0)), len(curve))
        marks = self._rung_marks_beyond(self.history.study(), trial)
        marks.append(JUDGED_EPOCHS)
        self.queue.rewind(self.claim, curve, marks, kind, detail)
        self.history.rewind(curve, marks)
        self._num_stored = len(curve)
        if self._num_judged:
            self.queue.note_judged(self.claim, self._num_judged)
        verb = "starts over" if checkpoint is None else "goes on"
        logger.info("trial %d %s %s", self.claim.number, verb, detail)

    def _save_checkpoint(self) -> None:
        curve = [dataclasses.asdict(report) for report in self.epochs]
        try:
            self.checkpoints.save(len(curve), self._capture(), curve)
        except CheckpointError as error:
            if not self._has_complained:
                self._has_complained = True
                self.say(f"it goes on WITHOUT new checkpoints: {error}")
            return
        if self._has_complained:
            self._has_complained = False
            self.say("checkpoints are written again")

    def _send(self) -> Verdict:
        """Store and judge what the storage does not have yet, without waiting for it."""
        if self.queue.patience.is_away:
            # Its silence would cost time at each epoch: the heartbeat finds out that it is back.
            return Verdict.CONTINUE
        try:
            return self._catch_up(self.queue.once)
        except StorageAwayError:
            return Verdict.CONTINUE

    def _catch_up(self, queue: TrialQueue) -> Verdict:
        """Store and judge epoch by epoch, oldest first; what was done stays done."""
        while self._num_judged < len(self.epochs):
            report = self.epochs[self._num_judged]
            if self._num_stored <= report.epoch:
                queue.report(self.claim, report.epoch, report.value)
                self._num_stored = report.epoch + 1
            if self._judge(report.epoch, queue) is Verdict.PRUNE:
                return Verdict.PRUNE
            self._num_judged = report.epoch + 1
        return Verdict.CONTINUE

    def _judge(self, epoch: int, queue: TrialQueue) -> Verdict:
        if epoch + 1 not in self._rungs:
            return Verdict.CONTINUE
        curve = {report.epoch: report.value for report in self.epochs[: epoch + 1]}
        with self.history.through(queue):
            study = self.history.study()
            trial = copy.copy(self.history.get_trial(self.claim.trial_id))
            trial.intermediate_values = curve
            # A judgement that was cut off is made anew: its mark must not count as passed.
            for mark in self._rung_marks_beyond(study, trial):
                trial.system_attrs.pop(mark)
            if not study.pruner.prune(study, trial):
                queue.note_judged(self.claim, epoch + 1)
                return Verdict.CONTINUE
            trials = study.get_trials(deepcopy=False)
        rank = describe_rank(trials, self.claim.number, epoch, curve[epoch])
        kind = self.queue.stored.spec.kind
        if spared := kind.never_pruned(self.claim.number, is_queued(trial.system_attrs)):
            # It was asked all the same: its mark at the rung is what others are judged against.
            told = f"would have been pruned {rank}; is never pruned: {spared}"
            queue.note_judged(self.claim, epoch + 1, told)
            return Verdict.CONTINUE
        # Epochs that were trained on while the storage was away do not count.
        del self.epochs[epoch + 1 :]
        self.pruned_because = rank
        return Verdict.PRUNE

    def _rung_marks_beyond(self, study: Study, trial: FrozenTrial) -> list[str]:
        """Name the marks of a trial at the rungs where it was not judged."""
        epochs = self.queue.stored.spec.budget.epochs
        return self._pruner.rung_marks_beyond(study, trial, epochs, self._num_judged)

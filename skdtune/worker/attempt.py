"""The trial in hand: from its claim to what becomes of it."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Sequence

from optuna.trial import TrialState

from skdtune.describe.config import config_hash
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.errors import (
    LeaseLostError,
    NonFiniteLossError,
    OtherDataError,
    StorageAwayError,
    StorageLostError,
)
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim
from skdtune.queue.storage import DATABASE_ERRORS
from skdtune.queue.trial_attributes import describe_epochs, describe_failure
from skdtune.training.checkpoint import CheckpointOwner, TrialCheckpoints
from skdtune.worker.departure import Departure
from skdtune.worker.endings import Ending, ending_of_error
from skdtune.worker.heartbeat import Heartbeat
from skdtune.worker.hooks.hook import Hook
from skdtune.worker.hooks.left_attributes import attributes_left
from skdtune.worker.hooks.named import hooks_of
from skdtune.worker.objective import resolve_trial, run_trial
from skdtune.worker.reporter import TrialReporter
from skdtune.worker.settlement import Settlement
from skdtune.worker.workplace import Workplace

logger = logging.getLogger(__name__)


class Attempt:
    """One claim of a trial with all that belongs to it: lease, reporter, checkpoints, hooks.

    Args:
        place: The study, its queue and the data.
        claim: The trial that was claimed.
    """

    def __init__(self, place: Workplace, claim: Claim) -> None:
        self.place = place
        self.claim = claim
        self._heartbeat = Heartbeat(place.queue, claim, place.stop.interrupt, place.reap)
        self._departure = Departure(place.stop, self._heartbeat, place.timing.grace_s)
        self._reporter: TrialReporter | None = None
        self._hooks: list[Hook] = []
        self._settlement = Settlement()
        #: Its training raised an error, and may have filled the device.
        self.has_failed = False

    @property
    def epochs(self) -> Sequence[EpochReport]:
        """Its finished epochs, those of earlier attempts included."""
        return () if self._reporter is None else self._reporter.epochs

    def value(self) -> float:
        """Return what its objective came to."""
        assert self._reporter is not None
        return self._reporter.value()

    def say(self, message: str) -> None:
        """Tell people, and the trial's story, of something that the trial outlives."""
        assert self._reporter is not None
        self._reporter.say(message)

    def expire(self, reason: str) -> None:
        """Let the training end as soon as it notices, between two steps."""
        self._departure.expire(reason)

    def run(self) -> None:
        """Train the trial and settle how that ended.

        Raises:
            LeaseLostError: If the trial was taken over, or ended from outside.
            StorageAwayError: If the storage was away for too long.
        """
        with self._heartbeat:
            self._hooks = [make(self) for make in hooks_of(self.place.stored.spec.hooks)]
            ending = self._find_hopeless()
            if ending is None:
                # A hook that cannot begin is no fault of the trial's.
                with contextlib.ExitStack() as around:
                    for hook in self._hooks:
                        around.enter_context(hook)
                    ending = self._train()
            if not self._settlement.take():
                # The other thread ends this process, where it may.
                self._settlement.wait()
                raise LeaseLostError("the trial was settled while its training hung")
            try:
                self._settle(ending)
            except LeaseLostError:
                for hook in self._hooks:
                    hook.lost()
                raise

    def settle_hanging(self, reason: str) -> None:
        """Settle a trial whose training hangs, from the thread that saw it."""
        if not self._settlement.take():
            return
        logger.error("trial %d hangs: %s", self.claim.number, reason)
        try:
            self._settle(Ending(EventKind.TIMEOUT, reason))
        except Exception as error:
            # Its lease runs out; what matters is that this process does not hang on.
            logger.warning("trial %d: %s: %s", self.claim.number, type(error).__name__, error)
        finally:
            if self.place.on_hang is not None:
                self.place.on_hang(self.place.num_finished)
            self._settlement.finish()

    def give_back(self) -> None:
        """Give the trial back because of an error that is no trial's, if the storage answers."""
        with contextlib.suppress(StorageAwayError, StorageLostError):
            if self.place.queue.once.release(self.claim):
                logger.info("trial %d was given back to the queue", self.claim.number)

    def _find_hopeless(self) -> Ending | None:
        """End a trial that killed one worker after the other, without any progress."""
        limit = self.place.stored.spec.faults.retries.lost
        if self.claim.attempt == 1 or limit is None:
            return None
        lost = self.place.queue.num_failures(self.claim, EventKind.LOST)
        if lost <= limit:
            return None
        return Ending(EventKind.LOST, f"{lost} workers died on it without an epoch of progress")

    def _train(self) -> Ending | None:
        """Train the trial and return how that ended; None if it is somebody else's by now."""
        try:
            verdict = self._run_trial()
        except (
            LeaseLostError,
            OtherDataError,
            StorageAwayError,
            StorageLostError,
            *DATABASE_ERRORS,
        ):
            # Nothing that the trial did: it is not the one to fail.
            raise
        except Exception as error:
            ending = ending_of_error(error)
            if not isinstance(error, NonFiniteLossError):
                logger.warning("trial %d failed", self.claim.number, exc_info=True)
                # Its frames hold the tensors that filled the device.
                traceback.clear_frames(error.__traceback__)
                self.has_failed = True
            return ending
        finally:
            if self._reporter is not None:
                self._reporter.training_left()
        if verdict is Verdict.CONTINUE:
            return Ending(EventKind.COMPLETE)
        if verdict is Verdict.PRUNE:
            because = "" if self._reporter is None else self._reporter.pruned_because
            return Ending(EventKind.PRUNED, because)
        if self._departure.expired:
            return Ending(EventKind.TIMEOUT, self._departure.expired)
        if self.place.stop.interrupted:
            return Ending(EventKind.PREEMPTED, "its worker was asked to leave")
        return None

    def _run_trial(self) -> Verdict:
        """Sample the trial's configuration and train it."""
        place, claim, stored = self.place, self.claim, self.place.stored
        sampler = stored.spec.sampler.build(stored.spec.seed, claim.number)
        config = resolve_trial(stored, place.history.begin(claim, sampler))
        place.history.store_params()
        source = place.sources.get("train")
        owner = CheckpointOwner(
            stored.study.study_name,
            stored.lineage,
            claim.number,
            config_hash(config),
            source.digest if source is not None else "",
        )
        self._reporter = TrialReporter(
            queue=place.queue,
            claim=claim,
            history=place.history,
            checkpoints=TrialCheckpoints(place.checkpoints, owner, claim.attempt),
            heartbeat=self._heartbeat,
            departure=self._departure,
            hooks=self._hooks,
        )
        for hook in self._hooks:
            hook.starts()
        return run_trial(config, place.store, self._reporter, place.threads)

    def _settle(self, ending: Ending | None) -> None:
        """Give the trial back if it may be tried again, else end it; one transaction."""
        if ending is None:
            raise LeaseLostError("the lease was lost")
        faults, queue = self.place.stored.spec.faults, self.place.queue
        if ending.consequence.may_retry:
            retries = faults.retries_of(ending.kind.value)
            if retries is None or queue.num_failures(self.claim, ending.kind) < retries:
                if not queue.release(self.claim, ending.kind, len(self.epochs), ending.detail):
                    raise LeaseLostError("the lease was lost")
                for hook in self._hooks:
                    hook.given_back(ending)
                return
        self._finish(ending)
        limit = faults.pause_after_equal_errors
        if ending.consequence.may_pause and limit is not None:
            queue.pause_after_equal_errors(limit)

    def _finish(self, ending: Ending) -> None:
        """End the trial for good, with all that it leaves behind, and drop its checkpoints."""
        reporter, state = self._reporter, ending.consequence.state
        user, system = describe_epochs([]) if reporter is None else reporter.attributes()
        for hook in self._hooks:
            more_user, more_system, problem = attributes_left(hook, ending, {*user, *system})
            user, system = user | more_user, system | more_system
            if problem:
                (logger.warning if reporter is None else reporter.say)(problem)
        if ending.consequence.is_failure:
            user |= describe_failure(ending.kind.value, ending.reason)
        value = None
        if ending.kind is EventKind.COMPLETE and reporter is not None:
            value = reporter.value()
        elif self.epochs and state is TrialState.PRUNED:
            value = self.epochs[-1].val_accuracy
        self.place.queue.finish(
            self.claim,
            state,
            ending.kind,
            value=value,
            epochs=len(self.epochs),
            detail=ending.detail,
            user=user,
            system=system,
            unstored={} if reporter is None else reporter.unstored,
        )
        self.place.num_finished += 1
        if reporter is not None:
            reporter.checkpoints.delete()
        for hook in self._hooks:
            hook.ended(ending, len(self.epochs), value)

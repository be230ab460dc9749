"""The worker: takes trials from the queue, one after the other, until there is none left."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa
import torch
from optuna.trial import TrialState

from skdtune.data.store import DataOnDevice, DataStore
from skdtune.describe.config import ModelConfig, TrialConfig
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.errors import (
    LeaseLostError,
    NonFiniteLossError,
    StorageAwayError,
    StorageError,
    StudyError,
    StudyPausedError,
)
from skdtune.home import (
    Home,
    artifacts_url,
    checkpoints_url,
    home,
    seconds_from_environment,
    storage_url,
)
from skdtune.networks.keeping import is_wanted, keep_network
from skdtune.networks.network_artifact import remove_artifact
from skdtune.queue import leases, pausing
from skdtune.queue import trial_writes as trial_record
from skdtune.queue.events import EventKind, num_failures
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import LEASE_S, Claim, WorkerIdentity, lease_seconds
from skdtune.queue.patience import OUTAGE_S, Patience
from skdtune.queue.storage import DATABASE_ERRORS, require_writable
from skdtune.queue.stored_study import StoredStudy, find_lineage, load_study
from skdtune.search.samplers import build_sampler
from skdtune.signals import StopRequest
from skdtune.training.checkpoint import (
    CheckpointOwner,
    TrialCheckpoints,
    trials_with_checkpoints,
)
from skdtune.training.compilation import compile_mode
from skdtune.training.device import autocast_dtype, describe_kernels, resolve_device
from skdtune.training.files import reason_of
from skdtune.training.peak_memory import PeakMemory
from skdtune.training.trainer import Trainer
from skdtune.worker.departure import GRACE_S, Departure
from skdtune.worker.heartbeat import (
    SUPERVISED_VARIABLE,
    Heartbeat,
    is_orphaned,
    reap_silent,
)
from skdtune.worker.objective import (
    config_hash,
    resolve_trial,
    run_trial,
)
from skdtune.worker.preparation import prepare_study
from skdtune.worker.reporter import TrialReporter, describe_epochs
from skdtune.worker.watchdog import Settlement, Watchdog

logger = logging.getLogger(__name__)

_POLL_S = 2.0
#: Lines of a traceback that are kept with a failed trial.
_TRACEBACK_LINES = 12


@dataclass(frozen=True)
class Timing:
    """The times of a worker, in seconds; a person may set each by a variable."""

    lease_s: float = LEASE_S
    outage_s: float = OUTAGE_S
    grace_s: float = GRACE_S

    @classmethod
    def from_environment(cls) -> Timing:
        """Read ``SKDTUNE_LEASE_SECONDS``, and so on for outage and grace."""
        outage_s = seconds_from_environment("SKDTUNE_OUTAGE_SECONDS", OUTAGE_S)
        grace_s = seconds_from_environment("SKDTUNE_GRACE_SECONDS", GRACE_S)
        return cls(lease_seconds(), outage_s, grace_s)


def run_worker(
    study: str,
    *,
    storage: str | None = None,
    device: str | None = None,
    max_trials: int | None = None,
    drain: bool = False,
    checkpoints: str | None = None,
    at: Home | None = None,
    stop: StopRequest | None = None,
    on_hang: Callable[[int], None] | None = None,
) -> int:
    """Take and train trials of a study until it is finished.

    The study is known from the storage alone; only the data lie on this machine.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        device: ``cpu``, ``cuda`` or ``cuda:1``; default the first GPU, else the CPU.
        max_trials: Leave after so many trials; default as many as there are.
        drain: Leave as soon as nothing waits, even while others still train.
        checkpoints: Folder or fsspec URL of the checkpoints; default ``SKDTUNE_CHECKPOINTS``,
            else a folder of the home. One that all machines share lets any of them go on with
            a trial that another one left.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.
        stop: Stop request to obey; default one of its own, without signals.
        on_hang: Called from another thread, with the number of trials finished so far, when a
            training ran out of its time and does not react. Its trial is settled by then.

    Returns:
        Number of trials this worker finished.

    Raises:
        InputError: If study, storage, device or data cannot be used; no trial was taken.
        StudyPausedError: If the study is paused, or was paused meanwhile.
        StorageAwayError: If the storage did not answer for too long.
    """
    resolved, timing = resolve_device(device), Timing.from_environment()
    # A wrong mode must be said before a trial is taken.
    compile_mode()
    stop = stop or StopRequest()
    with contextlib.closing(
        _open_study(study, storage_url(storage, at=at), timing, stop)
    ) as stored:
        at = at or home()
        store = DataStore(at.data, at.cache, resolved)
        # Missing data must be said before a trial is taken.
        prepare_study(store, stored.spec)
        _log_machine(study, stored.spec.model, resolved)
        worker = Worker(
            stored=stored,
            store=store,
            identity=WorkerIdentity(device=str(resolved)),
            stop=stop,
            checkpoints=checkpoints_url(checkpoints, at=at),
            artifacts=artifacts_url(at=at),
            timing=timing,
            on_hang=on_hang,
        )
        return worker.run(max_trials=max_trials, drain=drain)


def _log_machine(study: str, model: ModelConfig, device: torch.device) -> None:
    """Say what this worker computes with: who starts one alone should know."""
    precision = str(autocast_dtype(model, device) or torch.float32).removeprefix("torch.")
    threads = torch.get_num_threads()
    logger.info(
        "worker of %s on %s: %s, %s kernels, %d %s",
        study,
        device,
        precision,
        describe_kernels(device),
        threads,
        "thread" if threads == 1 else "threads",
    )
    if device.type == "cpu" and threads > 1 and SUPERVISED_VARIABLE not in os.environ:
        logger.info("`skdtune launch` runs one single-threaded worker per core: more in all")


def _open_study(name: str, url: str, timing: Timing, stop: StopRequest) -> StoredStudy:
    """Open a study for writing; who was started by a supervisor waits for a storage that is away.

    The supervisor has seen it a moment ago. A person who names a wrong one is told at once.
    """
    deadline = time.monotonic() + timing.outage_s
    while True:
        try:
            stored = load_study(name, storage=url)
            require_writable(stored.storage)
            return stored
        except StorageError as error:
            supervised = SUPERVISED_VARIABLE in os.environ
            late = time.monotonic() > deadline
            if not (error.may_pass and supervised) or late or stop.requested or is_orphaned():
                raise
            logger.warning("%s; trying again", error)
            stop.wait(_POLL_S)


def prepare_data(study: str, *, storage: str | None = None, at: Home | None = None) -> None:
    """Fetch and decode the data of a study, so that workers find them ready.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.

    Raises:
        InputError: If study, storage or data cannot be used.
    """
    at = at or home()
    with contextlib.closing(load_study(study, storage=storage_url(storage, at=at))) as stored:
        prepare_study(DataStore(at.data, at.cache, torch.device("cpu")), stored.spec)


@dataclass
class Worker:
    """One process that trains trials of one study on one device."""

    stored: StoredStudy
    store: DataStore
    identity: WorkerIdentity
    stop: StopRequest
    checkpoints: str
    artifacts: str = field(default_factory=artifacts_url)
    timing: Timing = Timing()
    on_hang: Callable[[int], None] | None = None
    finished: int = field(default=0, init=False)
    _must_clean: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(
            self.timing.outage_s, lambda: self.stop.interrupted, self.stop.wait
        )
        self._history = TrialHistory(self.stored, self._patience)

    def run(self, *, max_trials: int | None = None, drain: bool = False) -> int:
        """Take trials until the study is finished, the limit is reached or a stop is asked for."""
        while not self._must_leave() and (max_trials is None or self.finished < max_trials):
            try:
                claimed = self._claim()
                if claimed is not None:
                    self._take(claimed)
                elif drain or self._is_finished():
                    self._sweep_checkpoints()
                    break
                else:
                    self.stop.wait(_POLL_S)
            except StorageAwayError:
                # Whoever is asked to leave does not wait for the storage: the lease runs out.
                if not self._must_leave():
                    raise
        return self.finished

    def _sweep_checkpoints(self) -> None:
        """Remove what a worker left that died between the end of its trial and this."""
        study, lineage = self.stored.study.study_name, self.stored.lineage
        numbers = trials_with_checkpoints(self.checkpoints, study, lineage)
        ended = self._patience(
            lambda: leases.finished(self._engine, self.stored.study_id, numbers)
        )
        for number in ended:
            owner = CheckpointOwner(study, lineage, number, "")
            TrialCheckpoints(self.checkpoints, owner, 0).delete()

    def _claim(self) -> Claim | None:
        self._require_same_study()
        study_id, lease_s = self.stored.study_id, self.timing.lease_s
        with contextlib.suppress(StorageAwayError):
            reap_silent(self._engine, study_id, self._patience, lease_s, str(self.identity))
        claimed = self._patience(
            lambda: leases.claim(self._engine, study_id, self.identity, lease_s)
        )
        if claimed is None:
            self._require_not_paused()
        return claimed

    def _require_same_study(self) -> None:
        """Refuse to go on with a study that was deleted, or made anew under its name."""
        name = self.stored.study.study_name
        lineage = self._patience(lambda: find_lineage(self._engine, self.stored.study_id))
        if lineage is None:
            raise StudyError(f"study {name!r} was deleted while this worker ran")
        if lineage != self.stored.lineage:
            raise StudyError(f"study {name!r} was made anew while this worker ran; start it again")

    def _require_not_paused(self) -> None:
        reason = self._patience(lambda: pausing.paused_reason(self._engine, self.stored.study_id))
        if reason is not None:
            name = self.stored.study.study_name
            raise StudyPausedError(
                f"study {name} is paused: {reason}; mend it, then `skdtune resume {name}`"
            )

    def _must_leave(self) -> bool:
        # Short trials end before the heartbeat's first beat, which else notices an orphan.
        return self.stop.requested or is_orphaned()

    @property
    def _engine(self) -> sa.Engine:
        return self.stored.engine

    def _is_finished(self) -> bool:
        """Tell whether no trial can come back to the queue any more."""
        study_id = self.stored.study_id
        counts = self._patience(lambda: leases.counts(self._engine, study_id))
        # Trials that run without a lease are somebody else's: Optuna's own ask and tell.
        holders = self._patience(lambda: leases.holders(self._engine, study_id))
        return counts[TrialState.WAITING] == 0 and not holders

    def _take(self, claimed: Claim) -> None:
        """Train a claimed trial."""
        heartbeat = Heartbeat(
            self._engine, claimed, self.stop.interrupt, self._patience, self.timing.lease_s
        )
        try:
            with heartbeat:
                if not self._is_hopeless(claimed):
                    self._train(claimed, heartbeat)
        except LeaseLostError:
            logger.warning("trial %d was taken over or ended from outside", claimed.number)
        except BaseException as error:
            # An error that is no trial's: a broken installation, a storage that stays away. A
            # second Ctrl-C waits for no storage.
            if not (isinstance(error, KeyboardInterrupt) and self._patience.away_s):
                self._release_if_possible(claimed)
            raise
        if self._must_clean:
            self._must_clean = False
            _clear_device_memory()

    def _release_if_possible(self, claimed: Claim) -> None:
        with contextlib.suppress(StorageAwayError):
            if self._patience.once(lambda: leases.release(self._engine, claimed)):
                logger.info("trial %d was given back to the queue", claimed.number)

    def _train(self, claimed: Claim, heartbeat: Heartbeat) -> None:
        """Train a trial, and settle how it ended; if it hangs, the watchdog's thread does."""
        settlement = Settlement()
        hand: list[TrialReporter] = []

        def settle_hanging(reason: str) -> None:
            if settlement.take():
                self._settle_hanging(claimed, hand[0] if hand else None, reason)
                settlement.finish()

        with Watchdog(self.stored.spec.faults, settle_hanging) as watchdog:
            try:
                ending = self._run(claimed, heartbeat, watchdog, hand)
            finally:
                watchdog.epoch_ended()
        if not settlement.take():
            # The other thread ends this process, where it may.
            settlement.wait()
            raise LeaseLostError("the trial was settled while its training hung")
        reporter = hand.pop() if hand else None
        try:
            ending(reporter)
        except LeaseLostError:
            if reporter is not None and reporter.kept is not None:
                remove_artifact(self.artifacts, reporter.kept.file.artifact_id)
            raise

    def _run(
        self,
        claimed: Claim,
        heartbeat: Heartbeat,
        watchdog: Watchdog,
        hand: list[TrialReporter],
    ) -> Callable[[TrialReporter | None], None]:
        """Train a trial and return what has to be done about how it went."""
        spec = self.stored.spec
        try:
            sampler = build_sampler(spec.sampler, spec.seed, claimed.number)
            trial = self._history.begin(claimed, sampler)
            config = resolve_trial(self.stored, trial)
            self._history.store_params()
            hand.append(self._reporter(claimed, config, heartbeat, watchdog))
            self._log_start(claimed)
            verdict = run_trial(
                config,
                self.store,
                hand[0],
                lambda user: self._describe(claimed, user),
                lambda trainer, data: self._keep(hand[0], trainer, data),
            )
        except (LeaseLostError, StorageAwayError, *DATABASE_ERRORS):
            # Nothing that the trial did: it is not the one to fail.
            raise
        except NonFiniteLossError as error:
            reason = str(error)
            return lambda reporter: self._fail(claimed, reporter, EventKind.NAN, reason)
        except Exception as error:
            logger.warning("trial %d failed", claimed.number, exc_info=True)
            kind, detail = _failure(error)
            # Its frames hold the tensors that filled the device.
            traceback.clear_frames(error.__traceback__)
            self._must_clean = True
            return lambda reporter: self._fail(claimed, reporter, kind, detail)
        expired = watchdog.expired
        return lambda reporter: self._end(claimed, reporter, expired, verdict)

    def _reporter(
        self,
        claimed: Claim,
        config: TrialConfig,
        heartbeat: Heartbeat,
        watchdog: Watchdog,
    ) -> TrialReporter:
        owner = CheckpointOwner(
            self.stored.study.study_name,
            self.stored.lineage,
            claimed.number,
            config_hash(config),
        )
        return TrialReporter(
            stored=self.stored,
            claimed=claimed,
            history=self._history,
            checkpoints=TrialCheckpoints(self.checkpoints, owner, claimed.attempt),
            heartbeat=heartbeat,
            departure=Departure(self.stop, heartbeat, watchdog, self.timing.grace_s),
            patience=self._patience,
            on_epoch=lambda report: self._log_epoch(claimed, report),
            peak_memory=PeakMemory(self.store.device),
        )

    def _describe(self, claimed: Claim, user: dict[str, object]) -> None:
        self._patience(lambda: trial_record.write_attributes(self._engine, claimed, user))

    def _keep(self, reporter: TrialReporter, trainer: Trainer, data: DataOnDevice) -> None:
        """Keep the network if the study wants it; without it the trial is complete, too."""
        value, last = reporter.value(), reporter.epochs[-1]
        if not self._patience(lambda: is_wanted(self.stored, value)):
            return
        # A study's value may be a mean over epochs, which no network has.
        accuracy = value if last.val_accuracy is None else last.val_accuracy
        number = reporter.claimed.number
        try:
            reporter.kept = keep_network(
                self.artifacts, self.stored, number, trainer, data, accuracy
            )
        except Exception as error:
            logger.debug("trial %d: its network", number, exc_info=True)
            reporter.say(f"its network is not kept: {reason_of(error)}")

    def _end(
        self,
        claimed: Claim,
        reporter: TrialReporter | None,
        expired: str | None,
        verdict: Verdict,
    ) -> None:
        """Finish a trial that ran to its end or was pruned, or leave one that was interrupted."""
        if verdict is Verdict.CONTINUE:
            self._finish(claimed, reporter, TrialState.COMPLETE, EventKind.COMPLETE, "")
        elif verdict is Verdict.PRUNE:
            because = reporter.pruned_because if reporter is not None else ""
            self._finish(claimed, reporter, TrialState.PRUNED, EventKind.PRUNED, because)
        elif expired:
            self._fail(claimed, reporter, EventKind.TIMEOUT, expired)
        elif self.stop.interrupted:
            reason = "its worker was asked to leave"
            self._fail(claimed, reporter, EventKind.PREEMPTED, reason)
        else:
            raise LeaseLostError("the lease was lost")

    def _finish(
        self,
        claimed: Claim,
        reporter: TrialReporter | None,
        state: TrialState,
        kind: EventKind,
        detail: str,
    ) -> None:
        """End a trial for good, in one transaction, and drop its checkpoints."""
        epochs = reporter.epochs if reporter is not None else []
        user, system = reporter.attributes() if reporter is not None else describe_epochs([])
        if state is TrialState.FAIL or kind is EventKind.NAN:
            user |= {"failure_kind": kind.value, "failure_reason": detail.partition("\n")[0]}
        value = None
        kept = reporter.kept if state is TrialState.COMPLETE and reporter is not None else None
        if kept is not None:
            user, system = user | kept.user_attributes, system | kept.system_attributes
        if state is TrialState.COMPLETE and reporter is not None:
            value = reporter.value()
        elif state is TrialState.PRUNED and epochs:
            value = epochs[-1].val_accuracy
        self._patience(
            lambda: trial_record.finish(
                self._engine,
                claimed,
                state,
                kind,
                value=value,
                epochs=len(epochs),
                detail=detail,
                user=user,
                system=system,
                unstored=reporter.unstored if reporter is not None else {},
            )
        )
        self.finished += 1
        if reporter is not None:
            reporter.checkpoints.delete()
        self._log_end(claimed, state, kind, len(epochs), value, detail)

    def _fail(
        self, claimed: Claim, reporter: TrialReporter | None, kind: EventKind, detail: str
    ) -> None:
        """Give a trial back that may be tried again, else end it."""
        faults = self.stored.spec.faults
        epochs = len(reporter.epochs) if reporter is not None else 0
        if kind is EventKind.NAN:
            # Pruned, not failed: the sampler must learn that this corner is bad.
            self._finish(claimed, reporter, TrialState.PRUNED, kind, detail)
            return
        if self._has_retries(claimed, kind):
            if not self._patience(
                lambda: leases.release(self._engine, claimed, kind, epochs, detail)
            ):
                raise LeaseLostError("the lease was lost")
            reason = detail.partition("\n")[0]
            logger.info("trial %d was given back to the queue: %s", claimed.number, reason)
            return
        self._finish(claimed, reporter, TrialState.FAIL, kind, detail)
        limit = faults.pause_after_equal_errors
        if kind is EventKind.ERROR and limit is not None:
            self._patience(
                lambda: pausing.pause_after_equal_errors(self._engine, self.stored.study_id, limit)
            )

    def _has_retries(self, claimed: Claim, kind: EventKind) -> bool:
        retries = self.stored.spec.faults.retries_of(kind.value)
        if retries is None:
            return True
        failed = self._patience(
            lambda: num_failures(self._engine, claimed.study_id, claimed.trial_id, kind)
        )
        return failed < retries

    def _is_hopeless(self, claimed: Claim) -> bool:
        """End a trial that killed one worker after the other, without any progress."""
        limit = self.stored.spec.faults.retries.lost
        if claimed.attempt == 1 or limit is None:
            return False
        lost = self._patience(
            lambda: num_failures(self._engine, claimed.study_id, claimed.trial_id, EventKind.LOST)
        )
        if lost <= limit:
            return False
        self._finish(
            claimed,
            None,
            TrialState.FAIL,
            EventKind.LOST,
            f"{lost} workers died on it without an epoch of progress",
        )
        return True

    def _settle_hanging(self, claimed: Claim, reporter: TrialReporter | None, reason: str) -> None:
        """Settle a trial whose training hangs, from the watchdog's thread."""
        logger.error("trial %d hangs: %s", claimed.number, reason)
        try:
            self._fail(claimed, reporter, EventKind.TIMEOUT, reason)
        except Exception as error:
            # Its lease runs out; what matters is that this process does not hang on.
            logger.warning("trial %d: %s: %s", claimed.number, type(error).__name__, error)
        finally:
            if self.on_hang is not None:
                self.on_hang(self.finished)

    def _log_start(self, claimed: Claim) -> None:
        again = f", attempt {claimed.attempt}" if claimed.attempt > 1 else ""
        logger.info("trial %d starts on %s%s", claimed.number, self.identity.device, again)

    def _log_epoch(self, claimed: Claim, report: EpochReport) -> None:
        logger.debug(
            "trial %d epoch %d/%d: %s %.4f, %.1f s",
            claimed.number,
            report.epoch + 1,
            self.stored.spec.budget.epochs,
            "training loss" if report.val_accuracy is None else "validation accuracy",
            report.value,
            report.seconds,
        )

    def _log_end(
        self,
        claimed: Claim,
        state: TrialState,
        kind: EventKind,
        epochs: int,
        value: float | None,
        detail: str,
    ) -> None:
        if kind in (EventKind.COMPLETE, EventKind.PRUNED) and value is not None:
            logger.info(
                "trial %d %s after epoch %d: %s %.4f",
                claimed.number,
                kind.value,
                epochs,
                self.stored.spec.kind.metric_name,
                value,
            )
        else:
            reason = detail.partition("\n")[0]
            logger.warning("trial %d ended (%s): %s", claimed.number, kind.value, reason)


def _failure(error: Exception) -> tuple[EventKind, str]:
    """Tell an out-of-memory error from others; write either in a line, its traceback below."""
    # Torch has no class of its own for the host's memory.
    on_host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    is_oom = on_host or isinstance(error, (torch.OutOfMemoryError, MemoryError))
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    lines = "".join(traceback.format_exception(error)).splitlines()[-_TRACEBACK_LINES:]
    reason = f"{type(error).__name__}: {line}"[:500]
    return (EventKind.OOM if is_oom else EventKind.ERROR, "\n".join([reason, *lines]))


def _clear_device_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

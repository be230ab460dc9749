"""The worker: takes trials from the queue, one after the other, until there is none left."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from dataclasses import dataclass, field

import optuna
import sqlalchemy as sa
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from skdtune.errors import LeaseLostError, NonFiniteLossError, StudyError, TooManyFailuresError
from skdtune.home import Home, home, storage_url
from skdtune.report import EpochReport, Verdict
from skdtune.search import leases
from skdtune.search.algorithms import build_sampler
from skdtune.search.heartbeat import Heartbeat, is_orphaned
from skdtune.search.leases import LEASE_S, Claim, WorkerIdentity
from skdtune.search.objective import (
    DataStore,
    TrialReporter,
    record_end,
    resolve_trial,
    run_trial,
)
from skdtune.search.storage import DATABASE_ERRORS, require_writable
from skdtune.search.study import DIGEST_ATTRIBUTE, StoredStudy, load_study
from skdtune.signals import StopRequest
from skdtune.training.device import resolve_device

logger = logging.getLogger(__name__)

#: Equal errors in a row after which a worker gives up instead of burning the study's trials.
MAX_EQUAL_FAILURES = 3

_POLL_S = 2.0


def run_worker(
    study: str,
    *,
    storage: str | None = None,
    device: str | None = None,
    max_trials: int | None = None,
    drain: bool = False,
    at: Home | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Take and train trials of a study until it is finished.

    The study is known from the storage alone; only the data lie on this machine.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        device: ``cpu``, ``cuda`` or ``cuda:1``; default the first GPU, else the CPU.
        max_trials: Leave after so many trials; default as many as there are.
        drain: Leave as soon as nothing waits, even while others still train.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.
        stop: Stop request to obey; default one of its own, without signals.

    Returns:
        Number of trials this worker finished.

    Raises:
        InputError: If study, storage, device or data cannot be used; no trial was taken.
        TooManyFailuresError: If the same error ended several trials in a row.
    """
    resolved = resolve_device(device)
    with contextlib.closing(load_study(study, storage=storage_url(storage, at=at))) as stored:
        require_writable(stored.storage)
        at = at or home()
        store = DataStore(at.data, at.cache, resolved)
        # Missing data must be said before a trial is taken.
        store.get(stored.spec.data)
        worker = Worker(
            stored=stored,
            store=store,
            identity=WorkerIdentity(device=str(resolved)),
            stop=stop or StopRequest(),
            lease_s=float(os.environ.get("SKDTUNE_LEASE_SECONDS", LEASE_S)),
        )
        return worker.run(max_trials=max_trials, drain=drain)


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
        DataStore(at.data, at.cache, torch.device("cpu")).get(stored.spec.data)


@dataclass
class Worker:
    """One process that trains trials of one study on one device."""

    stored: StoredStudy
    store: DataStore
    identity: WorkerIdentity
    stop: StopRequest
    lease_s: float = LEASE_S
    _failures: list[str] = field(default_factory=list)

    def run(self, *, max_trials: int | None = None, drain: bool = False) -> int:
        """Take trials until the study is finished, the limit is reached or a stop is asked for."""
        finished = 0
        while not self._must_leave() and (max_trials is None or finished < max_trials):
            self._require_same_study()
            for number in leases.reap(self._engine, self.stored.study_id, self.lease_s):
                logger.warning("trial %d waits again: its worker fell silent", number)
            claim = leases.claim(self._engine, self.stored.study_id, self.identity)
            if claim is not None:
                finished += self._take(claim)
            elif drain or self._is_finished():
                break
            else:
                self.stop.wait(_POLL_S)
        return finished

    def _require_same_study(self) -> None:
        """Refuse to go on with a study that was deleted, or made anew under its name."""
        name = self.stored.study.study_name
        try:
            digest = self.stored.study.user_attrs.get(DIGEST_ATTRIBUTE)
        except KeyError:
            raise StudyError(f"study {name!r} was deleted while this worker ran") from None
        if digest != self.stored.spec.digest:
            raise StudyError(f"study {name!r} was made anew while this worker ran; start it again")

    def _must_leave(self) -> bool:
        # Short trials end before the heartbeat's first beat, which else notices an orphan.
        return self.stop.requested or is_orphaned()

    @property
    def _engine(self) -> sa.Engine:
        return self.stored.engine

    def _is_finished(self) -> bool:
        """Tell whether no trial can come back to the queue any more."""
        counts = leases.counts(self._engine, self.stored.study_id)
        # Trials that run without a lease are somebody else's: Optuna's own ask and tell.
        holders = leases.holders(self._engine, self.stored.study_id)
        return counts[TrialState.WAITING] == 0 and not holders

    def _take(self, claim: Claim) -> bool:
        """Train a claimed trial; True if it is finished now."""
        heartbeat = Heartbeat(
            self._engine, claim.trial_id, self.identity.token, self.stop.interrupt, self.lease_s
        )
        finished = False
        try:
            with heartbeat, leases.fenced(self._engine, claim.trial_id, self.identity.token):
                finished = self._train(claim, heartbeat)
        except (LeaseLostError, UpdateFinishedTrialError):
            logger.debug("trial %d was left", claim.number, exc_info=True)
        except KeyError:
            self._require_same_study()
            raise
        finally:
            if finished:
                leases.drop(self._engine, claim.trial_id, self.identity.token)
            elif leases.release(self._engine, claim.trial_id, self.identity.token):
                logger.info("trial %d was given back to the queue", claim.number)
            else:
                logger.warning("trial %d was taken over or ended from outside", claim.number)
        self._give_up_on_equal_failures()
        return finished

    def _train(self, claim: Claim, heartbeat: Heartbeat) -> bool:
        study = self.stored.study
        study.sampler = build_sampler(
            self.stored.spec.sampler, self.stored.spec.seed, claim.number
        )
        # Optuna's cache learns of a trial's key only by reading the study's trials.
        study.get_trials(deepcopy=False)
        if claim.attempt > 1:
            leases.forget_curve(self._engine, claim.trial_id)
        trial = optuna.Trial(study, claim.trial_id)
        reporter = TrialReporter(
            self.stored,
            trial,
            is_stopped=lambda: self.stop.interrupted or heartbeat.lost,
            on_epoch=lambda report: self._log_epoch(claim, report),
        )
        again = f", attempt {claim.attempt}" if claim.attempt > 1 else ""
        logger.info("trial %d starts on %s%s", claim.number, self.identity.device, again)
        try:
            verdict = run_trial(resolve_trial(self.stored, trial), self.store, reporter)
        except (LeaseLostError, UpdateFinishedTrialError, *DATABASE_ERRORS):
            # Nothing that the trial did: it is not the one to fail.
            raise
        except NonFiniteLossError as error:
            # Pruned, not failed: the sampler must learn that this corner is bad.
            self._fail(reporter, "nan", str(error), TrialState.PRUNED)
            return True
        except Exception as error:
            self._require_same_study()
            logger.warning("trial %d failed", claim.number, exc_info=True)
            self._fail(reporter, *_failure(error), TrialState.FAIL)
            return True
        return self._finish(reporter, verdict)

    def _finish(self, reporter: TrialReporter, verdict: Verdict) -> bool:
        if verdict is Verdict.INTERRUPT:
            return False
        trial, study = reporter.trial, self.stored.study
        if verdict is Verdict.PRUNE:
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            study.tell(trial, reporter.value(), skip_if_finished=True)
        self._failures.clear()
        logger.info(
            "trial %d %s after epoch %d: validation accuracy %.4f",
            trial.number,
            "pruned" if verdict is Verdict.PRUNE else "complete",
            len(reporter.epochs),
            reporter.value(),
        )
        return True

    def _fail(
        self,
        reporter: TrialReporter,
        kind: str,
        reason: str,
        state: TrialState,
    ) -> None:
        trial = reporter.trial
        trial.set_user_attr("failure_kind", kind)
        trial.set_user_attr("failure_reason", reason)
        record_end(reporter)
        self.stored.study.tell(trial, state=state, skip_if_finished=True)
        logger.warning("trial %d ended (%s): %s", trial.number, kind, reason)
        if state is TrialState.FAIL:
            self._failures.append(reason)
        _clear_device_memory()

    def _give_up_on_equal_failures(self) -> None:
        last = self._failures[-MAX_EQUAL_FAILURES:]
        if len(last) == MAX_EQUAL_FAILURES and len(set(last)) == 1:
            raise TooManyFailuresError(
                f"{MAX_EQUAL_FAILURES} trials in a row failed with the same error, this worker "
                f"stops: {last[0]}"
            )

    def _log_epoch(self, claim: Claim, report: EpochReport) -> None:
        logger.debug(
            "trial %d epoch %d/%d: validation accuracy %.4f, %.1f s",
            claim.number,
            report.epoch + 1,
            self.stored.spec.budget.epochs,
            report.val_accuracy,
            report.seconds,
        )


def _failure(error: Exception) -> tuple[str, str]:
    """Tell an out-of-memory error from others, and write either in one line."""
    # Torch has no class of its own for the host's memory.
    on_host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    is_oom = on_host or isinstance(error, (torch.OutOfMemoryError, MemoryError))
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return ("oom" if is_oom else "error", f"{type(error).__name__}: {line}"[:500])


def _clear_device_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

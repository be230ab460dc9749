"""The worker: takes trials from the queue, one after the other, until there is none left."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable

import torch
from optuna.trial import TrialState

from skdtune.analysis.study_record import read_study
from skdtune.analysis.without_result import describe_no_result, is_without_result
from skdtune.data.store import DataStore
from skdtune.describe.config import ModelConfig
from skdtune.errors import (
    LeaseLostError,
    StorageAwayError,
    StorageError,
    StudyError,
    StudyPausedError,
)
from skdtune.home import Home, artifacts_url, checkpoints_url, home, storage_url
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.storage import require_writable
from skdtune.queue.stored_study import StoredStudy, load_study, require_packages
from skdtune.signals import SUPERVISED_VARIABLE, StopRequest, is_orphaned
from skdtune.training.checkpoint import (
    CheckpointOwner,
    TrialCheckpoints,
    trials_with_checkpoints,
)
from skdtune.training.compilation import compile_mode
from skdtune.training.device import autocast_dtype, describe_kernels, resolve_device
from skdtune.worker.attempt import Attempt
from skdtune.worker.preparation import prepare_study
from skdtune.worker.workplace import Timing, Workplace

logger = logging.getLogger(__name__)

_POLL_S = 2.0


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
        require_packages(stored)
        prepare_study(store, stored.spec)
        _log_machine(study, stored.spec.model, resolved)
        place = Workplace(
            stored=stored,
            store=store,
            identity=WorkerIdentity(device=str(resolved)),
            stop=stop,
            checkpoints=checkpoints_url(checkpoints, at=at),
            artifacts=artifacts_url(at=at),
            timing=timing,
            on_hang=on_hang,
        )
        return Worker(place).run(max_trials=max_trials, drain=drain)


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
        require_packages(stored)
        prepare_study(DataStore(at.data, at.cache, torch.device("cpu")), stored.spec)


class Worker:
    """One process that trains trials of one study on one device.

    Args:
        place: The study, its queue and the data.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._queue = place.queue

    def run(self, *, max_trials: int | None = None, drain: bool = False) -> int:
        """Take trials until the study is finished, the limit is reached or a stop is asked for.

        Returns:
            Number of trials that ended for good.
        """
        place = self._place
        while not self._must_leave() and (max_trials is None or place.num_finished < max_trials):
            try:
                claim = self._claim()
                if claim is not None:
                    self._take(claim)
                elif drain or self._is_finished():
                    self._sweep_checkpoints()
                    self._tell_of_no_result()
                    break
                else:
                    place.stop.wait(_POLL_S)
            except StorageAwayError:
                # Whoever is asked to leave does not wait for the storage: the lease runs out.
                if not self._must_leave():
                    raise
        return place.num_finished

    def _must_leave(self) -> bool:
        # Short trials end before the heartbeat's first beat, which else notices an orphan.
        return self._place.stop.requested or is_orphaned()

    def _claim(self) -> Claim | None:
        """Take a trial; None if none waits.

        Raises:
            StudyError: If the study was deleted, or made anew under its name.
            StudyPausedError: If it is paused.
        """
        name = self._place.stored.study.study_name
        lineage = self._queue.find_lineage()
        if lineage is None:
            raise StudyError(f"study {name!r} was deleted while this worker ran")
        if lineage != self._place.stored.lineage:
            raise StudyError(f"study {name!r} was made anew while this worker ran; start it again")
        with contextlib.suppress(StorageAwayError):
            self._queue.reap_silent(str(self._place.identity))
        claim = self._queue.claim(self._place.identity)
        if claim is None and (reason := self._queue.paused_reason()) is not None:
            raise StudyPausedError(
                f"study {name} is paused: {reason}; mend it, then `skdtune resume {name}`"
            )
        return claim

    def _take(self, claim: Claim) -> None:
        """Train a claimed trial, and let nothing that goes wrong keep it from the others."""
        attempt = Attempt(self._place, claim)
        try:
            attempt.run()
        except LeaseLostError:
            logger.warning("trial %d was taken over or ended from outside", claim.number)
        except BaseException as error:
            # An error that is no trial's: a broken installation, a storage that stays away. A
            # second Ctrl-C waits for no storage.
            if not (isinstance(error, KeyboardInterrupt) and self._queue.patience.away_s):
                attempt.give_back()
            raise
        if attempt.has_failed:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _is_finished(self) -> bool:
        """Tell whether no trial can come back to the queue any more."""
        # Trials that run without a lease are somebody else's: Optuna's own ask and tell.
        return self._queue.counts()[TrialState.WAITING] == 0 and not self._queue.holders()

    def _tell_of_no_result(self) -> None:
        """Say what to do where all trials ended and none is complete."""
        if self._queue.counts()[TrialState.COMPLETE] == 0:
            record = self._queue.call(read_study, self._place.stored)
            if is_without_result(record):
                logger.warning("%s", describe_no_result(record))

    def _sweep_checkpoints(self) -> None:
        """Remove what a worker left that died between the end of its trial and this."""
        study, lineage = self._place.stored.study.study_name, self._place.stored.lineage
        url = self._place.checkpoints
        for number in self._queue.ended(trials_with_checkpoints(url, study, lineage)):
            TrialCheckpoints(url, CheckpointOwner(study, lineage, number, ""), 0).delete()

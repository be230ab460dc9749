"""The worker: takes trials from the queue, one after the other, until there is none left."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from optuna.trial import TrialState

from skdtune.analysis.without_result import read_no_result
from skdtune.data.store import DataStore
from skdtune.describe.config import ModelConfig
from skdtune.describe.spec import StudySpec
from skdtune.errors import (
    LeaseLostError,
    StorageAwayError,
    StorageError,
    StudyPausedError,
)
from skdtune.home import Home, artifacts_url, checkpoints_url, home, storage_url
from skdtune.queue.deadline import within
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.storage import require_writable
from skdtune.queue.stored_study import StoredStudy, load_study, require_packages
from skdtune.queue.trial_queue import TrialQueue
from skdtune.queue.worker_token import token_from_environment
from skdtune.signals import SUPERVISED_VARIABLE, StopRequest, is_orphaned
from skdtune.training.checkpoint import (
    CheckpointOwner,
    TrialCheckpoints,
    trials_with_checkpoints,
)
from skdtune.training.compilation import compile_mode
from skdtune.training.device import (
    arithmetic_on,
    autocast_dtype,
    prepare_kernels,
    resolve_device,
)
from skdtune.worker.attempt import Attempt
from skdtune.worker.objective import build_trainer
from skdtune.worker.preparation import data_of_trial, prepare_study
from skdtune.worker.threads import Threads
from skdtune.worker.workplace import Timing, Workplace

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")

_POLL_S = 2.0


def run_worker(
    study: str,
    *,
    storage: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    max_trials: int | None = None,
    drain: bool = False,
    checkpoints: str | None = None,
    require_kernels: bool = False,
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
        threads: Threads to compute with; default ``OMP_NUM_THREADS``, else on the CPU as many as
            the network of a trial can use and other processes leave a core to. Torch has its own
            number again afterwards.
        max_trials: Leave after so many trials; default as many as there are.
        drain: Leave as soon as nothing waits, even while others still train.
        checkpoints: Folder or fsspec URL of the checkpoints; default ``SKDTUNE_CHECKPOINTS``,
            else a folder of the home. One that all machines share lets any of them go on with
            a trial that another one left.
        require_kernels: Leave instead of computing with other kernels than the study's trials.
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
        StorageLostError: If its file was deleted or replaced meanwhile.
    """
    resolved, timing = resolve_device(device), Timing.from_environment()
    identity = WorkerIdentity(device=str(resolved), token=token_from_environment())
    # A wrong mode must be said before a trial is taken.
    compile_mode()
    stop = stop or StopRequest()
    url = storage_url(storage, at=at)
    opened = open_patiently(lambda: _open_study(study, url), timing, stop)
    if opened is None:
        return 0
    with Threads(resolved, threads) as in_use, contextlib.closing(opened) as stored:
        at = at or home()
        store = DataStore(at.data, at.cache, resolved)
        require_packages(stored)
        place = Workplace(
            stored=stored,
            store=store,
            identity=identity,
            stop=stop,
            threads=in_use,
            checkpoints=checkpoints_url(checkpoints, at=at),
            artifacts=artifacts_url(at=at),
            timing=timing,
            on_hang=on_hang,
        )
        try:
            if not prepare_place(place, require_kernels):
                return 0
        except StorageAwayError:
            # Who is asked to leave while the storage is away has taken nothing yet.
            if stop.requested or is_orphaned():
                return 0
            raise
        return Worker(place).run(max_trials=max_trials, drain=drain)


def prepare_place(place: Workplace, require_kernels: bool) -> bool:
    """Make sure that this machine can train the trials of the study, before one is taken.

    Returns:
        Whether the worker may begin; False if it was asked to leave meanwhile.

    Raises:
        InputError: If it cannot.
    """
    spec, store, stop = place.stored.spec, place.store, place.stop
    study = place.stored.study.study_name
    # Missing data, and others than the study's, must be said before a trial is taken.
    place.sources = prepare_study(store, spec, study, place.queue.pinned_sources())
    prepare_kernels(store.device, lambda: stop.requested or is_orphaned())
    if stop.requested or is_orphaned():
        return False
    place.threads.take(lambda: _published_work(store, spec))
    _log_machine(study, spec.model, store.device, place.threads)
    if require_kernels:
        place.kernels.require()
    elif difference := place.kernels.difference():
        logger.warning("%s: results differ in their last digits, times in more", difference)
    return True


def _published_work(store: DataStore, spec: StudySpec) -> float:
    """Return what a layer has to compute in a step of the study's first trial."""
    config = spec.trial_config({}, 0)
    return build_trainer(config, data_of_trial(store, spec, config)).layer_work()


def _log_machine(study: str, model: ModelConfig, device: torch.device, threads: Threads) -> None:
    """Say what this worker computes with: who starts one alone should know."""
    arithmetic = arithmetic_on(device, autocast_dtype(model, device))
    logger.info(
        "worker of %s on %s: %s, %s kernels, %s",
        study,
        device,
        arithmetic.precision,
        arithmetic.kernels,
        threads,
    )
    if (
        device.type == "cpu"
        and torch.get_num_threads() > 1
        and SUPERVISED_VARIABLE not in os.environ
    ):
        logger.info("`skdtune launch` runs one single-threaded worker per core: more in all")


def _open_study(name: str, url: str) -> StoredStudy:
    stored = load_study(name, storage=url)
    require_writable(stored.storage)
    return stored


def open_patiently(
    open_it: Callable[[], Opened], timing: Timing, stop: StopRequest
) -> Opened | None:
    """Open a storage for writing; who was started by a supervisor waits while it is away.

    The supervisor has seen it a moment ago. A person who names a wrong one is told at once.

    Returns:
        What was opened, None if this worker was asked to leave before the storage answered.
    """
    give_up_at = time.monotonic() + timing.outage_s
    while True:
        try:
            with within(timing.deadline(stop)):
                return open_it()
        except StorageError as error:
            if error.may_pass and (stop.requested or is_orphaned()):
                return None
            supervised = SUPERVISED_VARIABLE in os.environ
            if not (error.may_pass and supervised) or time.monotonic() > give_up_at:
                raise
            logger.warning("%s; trying again", error)
            stop.wait(_POLL_S)


def prepare_data(study: str, *, storage: str | None = None, at: Home | None = None) -> None:
    """Fetch and decode the data of a study, and build the kernels, so that workers find them.

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
        store = DataStore(at.data, at.cache, torch.device("cpu"))
        prepare_study(store, stored.spec, study, TrialQueue(stored).pinned_sources())
    prepare_kernels(resolve_device(None), lambda: False)


def paused_message(study: str, reason: str) -> str:
    """Say why nobody takes a trial of a study, and what to do."""
    return f"study {study} is paused: {reason}; mend it, then `skdtune resume {study}`"


class Worker:
    """One process that trains trials of one study on one device.

    Args:
        place: The study, its queue and the data.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._queue = place.queue
        #: A study's pin never changes: it is looked at until there is one for sure.
        self._is_pinned = False

    @property
    def num_finished(self) -> int:
        """Trials that ended for good."""
        return self._place.num_finished

    def run(self, *, max_trials: int | None = None, drain: bool = False) -> int:
        """Take trials until the study is finished, the limit is reached or a stop is asked for.

        Returns:
            Number of trials that ended for good.
        """
        place = self._place
        while not self._must_leave() and (max_trials is None or place.num_finished < max_trials):
            try:
                with contextlib.suppress(StorageAwayError):
                    self._queue.reap_silent(str(place.identity))
                claim = self.claim()
                if claim is not None:
                    self.take(claim)
                elif drain or self._is_finished():
                    self.settle_study()
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

    def claim(self) -> Claim | None:
        """Take a trial; None if none waits.

        Raises:
            StudyError: If the study was deleted, or made anew under its name.
            StudyPausedError: If it is paused.
            OtherDataError: If it was begun with other data a moment ago.
        """
        sources = None if self._is_pinned else self._place.sources
        claim = self._queue.claim(self._place.identity, sources)
        self._is_pinned |= claim is not None
        if claim is None and (reason := self._queue.paused_reason()) is not None:
            raise StudyPausedError(paused_message(self._place.stored.study.study_name, reason))
        return claim

    def take(self, claim: Claim) -> None:
        """Train a claimed trial, and let nothing that goes wrong keep it from the others."""
        attempt = Attempt(self._place, claim)
        try:
            attempt.run()
        except LeaseLostError:
            logger.warning("trial %d was taken over or ended from outside", claim.number)
        except BaseException as error:
            # An error that is no trial's: a broken installation, a storage that stays away. Who is
            # asked to leave has tried that already, and after a second Ctrl-C waits for nothing.
            leaves = isinstance(error, KeyboardInterrupt) or self._place.stop.interrupted
            if not (leaves and self._queue.patience.is_away):
                attempt.give_back()
            raise
        if attempt.has_failed:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def settle_study(self) -> None:
        """Clear up behind a study of which nothing waits, and say so where nothing came out."""
        self._sweep_checkpoints()
        self._tell_of_no_result()

    def _is_finished(self) -> bool:
        """Tell whether no trial can come back to the queue any more."""
        # Trials that run without a lease are somebody else's: Optuna's own ask and tell.
        return self._queue.counts()[TrialState.WAITING] == 0 and not self._queue.holders()

    def _tell_of_no_result(self) -> None:
        """Say what to do where all trials ended and none is complete."""
        # A mere hint: it waits for no storage.
        with contextlib.suppress(StorageAwayError):
            if advice := self._queue.once.call(read_no_result, self._place.stored):
                logger.warning("%s", advice)

    def _sweep_checkpoints(self) -> None:
        """Remove what a worker left that died between the end of its trial and this."""
        study, lineage = self._place.stored.study.study_name, self._place.stored.lineage
        url = self._place.checkpoints
        for number in self._queue.ended(trials_with_checkpoints(url, study, lineage)):
            TrialCheckpoints(url, CheckpointOwner(study, lineage, number, ""), 0).delete()

"""A worker that takes trials of several studies, and waits for the end of none to begin another.

What belongs to one study (queue, history, pinned data, kernels) is a workplace of its own; device,
threads, the images on the device and the connections to the storage are shared. What keeps this
worker from one study (it is paused, was deleted, its data are not here) is said once, and keeps it
from no other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from optuna.storages import RDBStorage

from skdtune.data.store import DataStore
from skdtune.errors import (
    InputError,
    SkdtuneError,
    StorageAwayError,
    StorageEmptyError,
    StorageLostError,
    StudyPausedError,
    in_one_line,
)
from skdtune.home import Home, artifacts_url, checkpoints_url, home, storage_url
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.remaining_work import Work
from skdtune.queue.storage import DATABASE_ERRORS, open_storage, require_writable
from skdtune.queue.stored_study import (
    StoredStudy,
    load_from,
    names_meant,
    require_packages,
    study_names,
)
from skdtune.queue.trial_queue import TrialQueue
from skdtune.queue.worker_token import token_from_environment
from skdtune.signals import StopRequest, is_orphaned
from skdtune.training.compilation import compile_mode
from skdtune.training.device import resolve_device
from skdtune.worker.study_choice import Load, order_of_service
from skdtune.worker.threads import Threads
from skdtune.worker.worker import Worker, open_patiently, paused_message, prepare_place
from skdtune.worker.workplace import Timing, Workplace

logger = logging.getLogger(__name__)

_POLL_S = 2.0


def run_studies_worker(
    names: Sequence[str],
    *,
    storage: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    max_trials: int | None = None,
    drain: bool = False,
    in_order: bool = False,
    serve: bool = False,
    checkpoints: str | None = None,
    require_kernels: bool = False,
    at: Home | None = None,
    stop: StopRequest | None = None,
    on_hang: Callable[[int], None] | None = None,
) -> int:
    """Take and train trials of several studies until all of them are finished.

    Args:
        names: Names of studies or of families; with ``serve`` also of such as do not exist yet,
            and none at all for whatever the storage has.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        device: Where to train, as `run_worker` has it.
        threads: Threads to compute with, as `run_worker` has them.
        max_trials: Leave after so many trials of all studies together.
        drain: Leave as soon as nothing waits in any study.
        in_order: Take trials of the first study that has one; by default of the one that has the
            most left to do for each of its workers (`order_of_service`).
        serve: Stay when all is finished, and take up studies of these names that are made later.
        checkpoints: Folder or fsspec URL of the checkpoints.
        require_kernels: Leave a study to others instead of computing with other kernels than its
            trials.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.
        stop: Stop request to obey; default one of its own, without signals.
        on_hang: Called from another thread, with the number of trials finished so far, when a
            training ran out of its time and does not react.

    Returns:
        Number of trials this worker finished.

    Raises:
        InputError: If there is no study of a name, or nothing can be trained here; or, after all
            else was trained, if that is so of some studies.
        StudyPausedError: If trials are left in nothing but studies that are paused.
        SkdtuneError: If a study could not be served for another reason.
        StorageAwayError: If the storage did not answer for too long.
        StorageLostError: If its file was deleted or replaced meanwhile.
    """
    resolved, timing = resolve_device(device), Timing.from_environment()
    # A wrong mode must be said before a trial is taken.
    compile_mode()
    stop, url = stop or StopRequest(), storage_url(storage, at=at)
    opened = _open_storage(url, timing, stop, serve=serve)
    if opened is None:
        return 0
    try:
        with Threads(resolved, threads) as in_use:
            at = at or home()
            conditions = Conditions(
                opened=opened,
                device=resolved,
                stop=stop,
                threads=in_use,
                checkpoints=checkpoints_url(checkpoints, at=at),
                artifacts=artifacts_url(at=at),
                timing=timing,
                require_kernels=require_kernels,
                store=DataStore(at.data, at.cache, resolved),
            )
            worker = StudiesWorker(conditions, names, in_order=in_order, serve=serve)
            worker.on_hang = on_hang
            return worker.run(max_trials=max_trials, drain=drain)
    finally:
        opened.engine.dispose()


def _open_storage(
    url: str, timing: Timing, stop: StopRequest, *, serve: bool
) -> RDBStorage | None:
    """Open a storage for writing; who serves waits for somebody to make it."""

    def open_it() -> RDBStorage:
        opened = open_storage(url)
        require_writable(opened)
        return opened

    is_said = False
    while not (stop.requested or is_orphaned()):
        try:
            return open_patiently(open_it, timing, stop)
        except StorageEmptyError as error:
            if not serve:
                raise
            if not is_said:
                logger.info("waiting: %s", error)
            is_said = True
            stop.wait(_POLL_S)
    return None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a worker has for all the studies that it serves."""

    opened: RDBStorage
    device: torch.device
    stop: StopRequest
    threads: Threads
    checkpoints: str
    artifacts: str
    timing: Timing
    require_kernels: bool
    store: DataStore


@dataclass
class _Served:
    """One study, as far as this worker has come with it."""

    stored: StoredStudy
    place: Workplace
    worker: Worker
    is_ready: bool = False
    """Its data and all else that it needs were loaded and checked."""

    kept_from: SkdtuneError | None = None
    """Why this worker takes no trial of it any more."""

    paused: str | None = None
    is_settled: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self.stored.study.study_name

    @property
    def num_finished(self) -> int:
        """Trials that this worker finished."""
        return self.worker.num_finished

    @property
    def epochs_per_trial(self) -> float:
        """Epochs of a trial, counted as plain ones: those that see as many images."""
        spec = self.stored.spec
        return spec.budget.epochs * spec.method.images_per_anchor


class StudiesWorker:
    """One process that trains trials of several studies on one device.

    Args:
        conditions: What is shared between them.
        names: Of studies and families; see `run_studies_worker`.
        in_order: One after the other instead of fairly.
        serve: Stay, and look for further studies.
    """

    def __init__(
        self, conditions: Conditions, names: Sequence[str], *, in_order: bool, serve: bool
    ) -> None:
        self._conditions = conditions
        self._names = tuple(names)
        self._in_order = in_order
        self._serve = serve
        self._identity = WorkerIdentity(
            device=str(conditions.device), token=token_from_environment()
        )
        self._patience = conditions.timing.patience(conditions.stop)
        #: Of the first study; all others have what it saw of the storage.
        self._queue: TrialQueue | None = None
        #: By the token of the creation, in the order in which trials are taken with `in_order`.
        self._served: dict[str, _Served] = {}
        self._unreadable: dict[str, SkdtuneError] = {}
        self._looked_at = float("-inf")
        self._last: _Served | None = None
        self._num_finished_gone = 0
        #: Called from another thread after a training that hangs was settled.
        self.on_hang: Callable[[int], None] | None = None

    @property
    def num_finished(self) -> int:
        """Trials of all studies that this worker ended for good."""
        here = sum(served.num_finished for served in self._served.values())
        return self._num_finished_gone + here

    def run(self, *, max_trials: int | None = None, drain: bool = False) -> int:
        """Take trials until all studies are finished, as `Worker.run` does of one."""
        stop = self._conditions.stop
        while not self._must_leave() and (max_trials is None or self.num_finished < max_trials):
            try:
                self._look_for_studies()
                with contextlib.suppress(StorageAwayError):
                    self._reap()
                works = self._read_work()
                if self._take_one(works):
                    continue
                if not self._serve and (drain or self._is_over(works)):
                    for served in self._served.values():
                        if not served.is_settled and served.kept_from is None:
                            self._settle(served)
                    self._tell_of_what_is_left(works)
                    break
                stop.wait(_POLL_S)
            except StorageAwayError:
                # Whoever is asked to leave does not wait for the storage: the lease runs out.
                if not self._must_leave():
                    raise
        return self.num_finished

    def _must_leave(self) -> bool:
        return self._conditions.stop.requested or is_orphaned()

    def _look_for_studies(self) -> None:
        """Take up the studies that the names stand for: once, or now and again."""
        is_first = self._looked_at == float("-inf")
        if not is_first and not (self._serve and time.monotonic() - self._looked_at >= _POLL_S):
            return
        self._looked_at = time.monotonic()
        opened = self._conditions.opened
        existing = self._patience(lambda: study_names(opened))
        meant = [
            one
            for name in self._names
            for one in self._patience(functools.partial(names_meant, opened, name))
        ]
        known = {served.name for served in self._served.values()} | self._unreadable.keys()
        for name in dict.fromkeys(meant if self._names else existing):
            if name in known or (self._serve and name not in existing):
                continue
            try:
                stored = self._patience(functools.partial(load_from, opened, name))
            except InputError as error:
                if name not in existing:
                    raise
                self._unreadable[name] = error
                logger.warning("study %s is left to others: %s", name, error)
                continue
            if self._queue is None:
                self._queue = TrialQueue(stored, self._patience, self._conditions.timing.lease_s)
            self._served[stored.lineage] = self._serve_study(stored)
            if not is_first:
                logger.info("study %s is served from now on", name)

    def _reap(self) -> None:
        names = {served.stored.study_id: served.name for served in self._served.values()}
        if self._queue is not None and names:
            self._queue.reap_silent_among(names, str(self._identity))

    def _read_work(self) -> dict[str, Work]:
        """Return what is left to do, by the token of each study; let go of those that are gone."""
        if self._queue is None:
            return {}
        read = self._queue.work([served.stored.study_id for served in self._served.values()])
        works: dict[str, Work] = {}
        for lineage, served in list(self._served.items()):
            work = read.get(served.stored.study_id)
            if work is None or work.lineage != lineage:
                if served.kept_from is None:
                    logger.warning("study %s was deleted while this worker ran", served.name)
                self._num_finished_gone += served.num_finished
                del self._served[lineage]
                continue
            works[lineage] = work
            if work.name != served.name:
                # Its folders are called otherwise from now on.
                stored = self._patience(
                    functools.partial(load_from, self._conditions.opened, work.name)
                )
                self._num_finished_gone += served.num_finished
                paused = served.paused
                served = self._served[lineage] = self._serve_study(stored)
                served.paused = paused
            self._tell_of_pause(served, work)
        return works

    def _tell_of_pause(self, served: _Served, work: Work) -> None:
        if work.paused is not None and served.paused is None:
            logger.warning("study %s is paused: %s", served.name, work.paused)
        elif work.paused is None and served.paused is not None:
            logger.info("study %s is not paused any more", served.name)
        served.paused = work.paused

    def _take_one(self, works: dict[str, Work]) -> bool:
        """Train one trial of the study whose turn it is; False where none can be taken.

        Studies that this worker has just finished its part of are cleared up behind.
        """
        open_ones = []
        for lineage, work in works.items():
            served = self._served[lineage]
            if served.kept_from is None and work.paused is None:
                open_ones.append((served, work))
            if not work.is_finished:
                served.is_settled = False
            elif not served.is_settled:
                self._settle(served)
        loads = [
            Load(work.waiting * served.epochs_per_trial, work.held) for served, work in open_ones
        ]
        for index in order_of_service(loads, in_order=self._in_order):
            served = open_ones[index][0]
            with self._apart(served):
                if not self._is_ready(served):
                    return False
                claim = served.worker.claim()
                if claim is not None:
                    if served is not self._last:
                        # Lines about trials name them by their number alone.
                        logger.info("trials of %s:", served.name)
                    self._last = served
                    served.worker.take(claim)
                    return True
        return False

    def _settle(self, served: _Served) -> None:
        """Clear up behind a study of which nothing waits, once."""
        served.is_settled = True
        with self._apart(served):
            served.worker.settle_study()

    @contextlib.contextmanager
    def _apart(self, served: _Served) -> Iterator[None]:
        """Let nothing that goes wrong with one study keep this worker from the others."""
        try:
            yield
        except (StorageAwayError, StorageLostError, *DATABASE_ERRORS):
            # Common to all of them.
            raise
        except StudyPausedError:
            # A moment ago: it is said when the work is read.
            return
        except Exception as error:
            is_ours = isinstance(error, SkdtuneError)
            served.kept_from = (
                error if isinstance(error, SkdtuneError) else SkdtuneError(in_one_line(error))
            )
            logger.warning(
                "study %s is left to others: %s", served.name, error, exc_info=not is_ours
            )

    def _serve_study(self, stored: StoredStudy) -> _Served:
        shared = self._conditions
        place = Workplace(
            stored=stored,
            store=shared.store.beside(),
            identity=self._identity,
            stop=shared.stop,
            threads=shared.threads,
            checkpoints=shared.checkpoints,
            artifacts=shared.artifacts,
            timing=shared.timing,
            on_hang=self._hangs,
            beside=self._queue,
            reap=self._reap,
        )
        return _Served(stored, place, Worker(place))

    def _is_ready(self, served: _Served) -> bool:
        """Get ready for a study when its first trial is about to be taken.

        Returns:
            False if this worker was asked to leave meanwhile.
        """
        if not served.is_ready:
            served.place.queue.call(require_packages, served.stored)
            served.is_ready = prepare_place(served.place, self._conditions.require_kernels)
        return served.is_ready

    def _hangs(self, num_finished: int) -> None:
        if self.on_hang is not None:
            self.on_hang(self.num_finished)

    def _is_over(self, works: dict[str, Work]) -> bool:
        """Tell whether nothing can come back to the queue that this worker could take."""
        return all(
            work.is_finished
            or work.paused is not None
            or self._served[lineage].kept_from is not None
            for lineage, work in works.items()
        )

    def _tell_of_what_is_left(self, works: dict[str, Work]) -> None:
        """End with an error if trials are left of studies that this worker could not serve."""
        kept_from = {
            served.name: served.kept_from
            for served in self._served.values()
            if served.kept_from is not None
        }
        failed = {**self._unreadable, **kept_from}
        if failed:
            # A restart may help against what is no wrong input.
            is_input = all(isinstance(error, InputError) for error in failed.values())
            message = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise (InputError if is_input else SkdtuneError)(f"not trained here: {message}")
        paused = [
            paused_message(work.name, work.paused)
            for work in works.values()
            if work.paused is not None and work.waiting
        ]
        if paused:
            raise StudyPausedError("; ".join(paused))

"""What all attempts of a worker at the trials of one study share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from skdtune.data.store import DataStore
from skdtune.home import artifacts_url, seconds_from_environment
from skdtune.queue.deadline import ANSWER_S, Deadline
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import LEASE_S, WorkerIdentity, lease_seconds
from skdtune.queue.patience import OUTAGE_S, Patience
from skdtune.queue.pinned_source import Sources
from skdtune.queue.stored_study import StoredStudy
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import StopRequest
from skdtune.worker.departure import GRACE_S
from skdtune.worker.study_kernels import StudyKernels
from skdtune.worker.threads import Threads


@dataclass(frozen=True)
class Timing:
    """The times of a worker, in seconds; a person may set each by a variable."""

    lease_s: float = LEASE_S
    outage_s: float = OUTAGE_S
    grace_s: float = GRACE_S
    answer_s: float = ANSWER_S

    @classmethod
    def from_environment(cls) -> Timing:
        """Read ``SKDTUNE_LEASE_SECONDS``, and so on for outage, grace and answer."""
        outage_s = seconds_from_environment("SKDTUNE_OUTAGE_SECONDS", OUTAGE_S)
        grace_s = seconds_from_environment("SKDTUNE_GRACE_SECONDS", GRACE_S)
        answer_s = seconds_from_environment("SKDTUNE_ANSWER_SECONDS", ANSWER_S, least=0.5)
        return cls(lease_seconds(), outage_s, grace_s, answer_s)

    def deadline(self, stop: StopRequest) -> Deadline:
        """Return how long one call to the storage may wait: no longer than the time to leave."""
        return Deadline(self.answer_s, lambda: self.is_over(stop))

    def patience(self, stop: StopRequest) -> Patience:
        """Return who makes the calls of a worker to its storage."""
        return Patience(
            self.outage_s,
            lambda: stop.interrupted,
            stop.wait,
            answer_s=self.answer_s,
            must_end=lambda: self.is_over(stop),
        )

    def is_over(self, stop: StopRequest) -> bool:
        """Tell whether the time is over that a worker has to leave after a signal."""
        return stop.interrupted and stop.interrupted_for_s > self.grace_s


@dataclass
class Workplace:
    """One study as a worker has it before it: its queue, its history, its data."""

    stored: StoredStudy
    store: DataStore
    identity: WorkerIdentity
    stop: StopRequest
    threads: Threads
    checkpoints: str
    """Folder or fsspec URL of the checkpoints."""

    artifacts: str = field(default_factory=artifacts_url)
    """Folder or fsspec URL of the networks that are kept."""

    timing: Timing = Timing()
    on_hang: Callable[[int], None] | None = None
    """Called from another thread, with the number of trials finished so far, after a training
    that did not react was settled."""

    sources: Sources = field(default_factory=dict)
    """What the images on this machine come from."""

    beside: TrialQueue | None = None
    """Queue of another study that this worker serves: what it saw of the storage counts here."""

    reap: Callable[[], object] | None = None
    """Gives the trials of silent workers back, from time to time while a trial trains; None for
    those of this study."""

    num_finished: int = field(default=0, init=False)
    """Trials that this worker ended for good."""

    def __post_init__(self) -> None:
        self.queue = (
            TrialQueue(self.stored, self.timing.patience(self.stop), self.timing.lease_s)
            if self.beside is None
            else self.beside.of(self.stored)
        )
        self.history = TrialHistory(self.queue)
        self.kernels = StudyKernels(self.queue, self.store.device)

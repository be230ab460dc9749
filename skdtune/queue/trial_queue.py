"""The queue of one study: each transaction of a worker under one name, made with patience.

The transactions themselves are in `leases`, `trial_writes`, `events` and `pausing`; each may be
made twice, because an answer can get lost with the connection.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from skdtune.queue import events, leases, pausing, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import LEASE_S, Claim, WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.pinned_source import Sources, pin, read_pins
from skdtune.queue.remaining_work import Work, read_work
from skdtune.queue.silence import SilenceWatch
from skdtune.queue.stored_study import StoredStudy, find_lineage, require_same
from skdtune.queue.usual_kernels import usual_kernels

logger = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class TrialQueue:
    """The trials of one study, for one process; engine, study and patience are bound once.

    Every method but `call` is one short transaction on the database's own clock, and raises
    StorageAwayError where the storage stays away for too long. `renew` and `release` say by what
    they return whether the trial still was the claim's; what else writes of a claimed trial raises
    LeaseLostError, and writes nothing, where it is not.

    Args:
        stored: The study.
        patience: Makes the calls, again and again while the storage is away.
        lease_s: Seconds of silence after which anybody may give a claimed trial back.
    """

    def __init__(
        self, stored: StoredStudy, patience: Patience | None = None, lease_s: float = LEASE_S
    ) -> None:
        self.stored = stored
        self.patience = patience or Patience()
        self.lease_s = lease_s
        self._silence = SilenceWatch(lease_s)
        self._is_patient = True

    @property
    def once(self) -> TrialQueue:
        """The same queue for who does not wait: StorageAwayError as soon as a call fails."""
        impatient = copy.copy(self)
        impatient._is_patient = False
        return impatient

    def of(self, stored: StoredStudy) -> TrialQueue:
        """Return the queue of another study in the same storage.

        Outages and frozen databases that were seen with either count for both.
        """
        other = copy.copy(self)
        other.stored = stored
        return other

    def call(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **settings: Parameters.kwargs,
    ) -> Result:
        """Make any call to the storage that may be made twice, such as one of Optuna's."""
        make = self.patience if self._is_patient else self.patience.once
        with self._silence.waiting():
            return make(functools.partial(function, *args, **settings))

    def claim(self, worker: WorkerIdentity, sources: Sources | None = None) -> Claim | None:
        """Take the waiting trial with the lowest number; None if none waits, or all is paused.

        Args:
            worker: Who takes it.
            sources: The data that the worker has, if they are to be pinned or compared with those
                that the study was begun with.

        Raises:
            StudyError: If the study was deleted, or made anew under its name.
            OtherDataError: If the study was begun with other data; no trial was taken.
        """
        stored = self.stored

        def before(connection: sa.Connection) -> None:
            require_same(connection, stored)
            if sources is not None:
                pin(connection, stored.study_id, stored.study.study_name, sources)

        claimed = self._transact(leases.claim, stored.study_id, worker, self.lease_s, before)
        if claimed is None:
            self._transact(_look_at, stored)
        return claimed

    def pinned_sources(self) -> Sources:
        """Return the data that the study was begun with; empty before a trial was taken."""
        return self._transact(read_pins, self.stored.study_id, self.stored.study.study_name)

    def renew(self, claim: Claim) -> bool:
        """Prove that the owner is alive; False if the trial belongs to somebody else by now."""
        return self._transact(leases.renew, claim)

    def release(
        self,
        claim: Claim,
        kind: EventKind = EventKind.PREEMPTED,
        epochs: int | None = None,
        detail: str = "",
    ) -> bool:
        """Give an unfinished trial back, in place; False if it was not ours to give."""
        return self._transact(leases.release, claim, kind, epochs, detail)

    def reap_silent(self, by: str = "") -> list[int]:
        """Give trials back whose workers fell silent, say so, and return their numbers.

        It never waits for a storage that is away: who reaps looks again later.
        After an outage, a frozen database or a clock that was set ahead every worker needs a
        moment to be heard again: for as long as a lease, nobody is taken for dead.

        Args:
            by: Who looks, for the story of the trials.
        """
        clock_s = self._telling_clock()
        if clock_s is None:
            return []
        numbers = self.once._transact(leases.reap, self.stored.study_id, by, clock_s)
        for number in numbers:
            logger.warning("trial %d waits again: its worker fell silent", number)
        return numbers

    def reap_silent_among(self, names: Mapping[int, str], by: str = "") -> list[str]:
        """Do as `reap_silent` for several studies of the storage, in one transaction.

        Args:
            names: What each is called, by its key.
            by: Who looks, for the story of the trials.

        Returns:
            A sentence for each trial that waits again.
        """
        clock_s = self._telling_clock()
        if clock_s is None:
            return []
        said = [
            f"{names[claim.study_id]}: trial {claim.number} waits again: its worker fell silent"
            for claim in self.once._transact(leases.reap_among, list(names), by, clock_s)
        ]
        for sentence in said:
            logger.warning("%s", sentence)
        return said

    def _telling_clock(self) -> float | None:
        """Read the database's clock; None while silence says nothing of who is silent."""
        # Also asked after an outage, so that the moment begins when the storage is there.
        clock_s = self.once._transact(leases.read_clock)
        is_telling = self._silence.is_telling(clock_s)
        return clock_s if is_telling and self.patience.answers_for_s >= self.lease_s else None

    def work(self, study_ids: Sequence[int]) -> dict[int, Work]:
        """Read what is left to do in some studies of the storage, by their keys."""
        return self._transact(read_work, study_ids)

    def counts(self) -> dict[TrialState, int]:
        """Count the trials by state."""
        return self._transact(leases.counts, self.stored.study_id)

    def holders(self) -> list[dict[str, Any]]:
        """List the workers that hold a trial."""
        return self._transact(leases.holders, self.stored.study_id)

    def ended(self, numbers: list[int]) -> list[int]:
        """Return which of some trials, by number, have ended."""
        return self._transact(leases.finished, self.stored.study_id, numbers)

    def num_failures(self, claim: Claim, kind: EventKind) -> int:
        """Count how often a claimed trial failed in one way."""
        return self._transact(events.num_failures, claim.study_id, claim.trial_id, kind)

    def find_lineage(self) -> str | None:
        """Return the token of the study's creation; None if it is not there any more."""
        return self._transact(find_lineage, self.stored.study_id)

    def usual_kernels(self) -> tuple[str, int] | None:
        """Return the kernels of most trials, and how many these are; None before the first."""
        return self._transact(usual_kernels, self.stored.study_id)

    def paused_reason(self) -> str | None:
        """Return why the study is paused, None if it is not."""
        return self._transact(pausing.paused_reason, self.stored.study_id)

    def pause_after_equal_errors(self, limit: int) -> bool:
        """Pause the study if its last trials failed with the same error; True if they did."""
        return self._transact(pausing.pause_after_equal_errors, self.stored.study_id, limit)

    def write_params(
        self, claim: Claim, params: Mapping[str, tuple[float, BaseDistribution]]
    ) -> None:
        """Store all parameters of a trial at once, in Optuna's internal representation."""
        self._transact(trial_writes.write_params, claim, params)

    def write_attributes(
        self,
        claim: Claim,
        user: Mapping[str, Any] | None = None,
        system: Mapping[str, Any] | None = None,
    ) -> None:
        """Store attributes of a trial."""
        self._transact(trial_writes.write_attributes, claim, user, system)

    def note(self, claim: Claim, kind: EventKind, epochs: int, detail: str) -> None:
        """Note something that the trial outlived."""
        self._transact(trial_writes.write_note, claim, kind, epochs, detail)

    def note_judged(self, claim: Claim, num_epochs: int, spared: str = "") -> None:
        """Store how far a trial was judged; see `trial_writes.write_judgement`."""
        self._transact(trial_writes.write_judgement, claim, num_epochs, spared)

    def report(self, claim: Claim, epoch: int, value: float) -> None:
        """Store the value of an epoch and renew the lease."""
        self._transact(trial_writes.write_report, claim, epoch, value)

    def rewind(
        self,
        claim: Claim,
        curve: Sequence[float],
        rung_marks: Iterable[str],
        kind: EventKind,
        detail: str,
    ) -> None:
        """Make the stored curve what a checkpoint holds; see `trial_writes.rewind`."""
        self._transact(trial_writes.rewind, claim, curve, rung_marks, kind, detail)

    def finish(
        self,
        claim: Claim,
        state: TrialState,
        kind: EventKind,
        *,
        value: float | None,
        epochs: int,
        detail: str,
        user: Mapping[str, Any],
        system: Mapping[str, Any],
        unstored: Mapping[int, float],
    ) -> None:
        """End a trial: state, value, attributes, story and lease, all or nothing."""
        self._transact(
            trial_writes.finish,
            claim,
            state,
            kind,
            value=value,
            epochs=epochs,
            detail=detail,
            user=user,
            system=system,
            unstored=unstored,
        )

    def _transact(
        self,
        transaction: Callable[Concatenate[sa.Engine, Parameters], Result],
        *args: Parameters.args,
        **settings: Parameters.kwargs,
    ) -> Result:
        return self.call(transaction, self.stored.engine, *args, **settings)


def _look_at(engine: sa.Engine, stored: StoredStudy) -> None:
    with engine.connect() as connection:
        require_same(connection, stored)

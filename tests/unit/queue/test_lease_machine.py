"""The lease against a model: any order of claims, deaths, reaps and budgets, on a false clock."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.trial import TrialState

from skdtune.describe.presets import load_spec
from skdtune.errors import InputError, LeaseLostError
from skdtune.queue import events, leases, pausing, schema, trial_budget, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import create_study, load_study

#: Later than any server started: what was silent before that is forgiven.
EPOCH = 1e10

ENDS = {
    TrialState.COMPLETE: EventKind.COMPLETE,
    TrialState.PRUNED: EventKind.PRUNED,
    TrialState.FAIL: EventKind.ERROR,
}

#: As two containers that nobody named.
WORKERS = [
    WorkerIdentity(device="cpu", token=f"token{index}", host="host", pid=1) for index in range(2)
]


@dataclass
class Modelled:
    """What is known of one trial."""

    state: TrialState = TrialState.WAITING
    owner: str | None = None
    attempt: int = 0
    renewed_at: float = 0.0
    lease_s: float = 0.0
    curve: dict[int, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def is_held(trial: Modelled, claimed: Claim) -> bool:
    mine = (claimed.worker.token, claimed.attempt)
    return trial.state is TrialState.RUNNING and (trial.owner, trial.attempt) == mine


class LeaseMachine(RuleBasedStateMachine):
    """Workers that claim, train, die and come back, and people who turn the knobs."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.time = EPOCH
        self.patches = [mock.patch.object(m, "now", self.now) for m in (leases, events)]
        for patch in self.patches:
            patch.start()
        self.trials: list[Modelled] = []
        self.paused = False
        # The newest claim of each worker, and all of its older ones: it may wake up in any.
        self.claims: list[Claim] = []

    def now(self, connection: sa.Connection) -> sa.ColumnElement[Any]:
        return sa.literal_column(repr(self.time), sa.Float(53))

    @initialize(num_trials=st.integers(1, 3))
    def create(self, num_trials: int) -> None:
        spec = load_spec("digits-drg-dsr", name="machine", num_trials=num_trials)
        assert create_study(spec, storage=self.url)
        self.stored = load_study("machine", storage=self.url)
        self.trials = [Modelled() for _ in range(num_trials)]

    def teardown(self) -> None:
        for patch in self.patches:
            patch.stop()
        if hasattr(self, "stored"):
            optuna.delete_study(study_name="machine", storage=self.stored.storage)
            self.stored.close()

    # What workers do

    @rule(worker=st.sampled_from(WORKERS), lease_s=st.sampled_from([10.0, 60.0]))
    def claim(self, worker: WorkerIdentity, lease_s: float) -> None:
        found = leases.claim(self.stored.engine, self.stored.study_id, worker, lease_s)
        waiting = [n for n, t in enumerate(self.trials) if t.state is TrialState.WAITING]
        if self.paused or not waiting:
            assert found is None
            return
        assert found is not None
        assert found.number == waiting[0]
        trial = self.trials[found.number]
        assert found.attempt == trial.attempt + 1
        trial.state, trial.owner, trial.attempt = TrialState.RUNNING, worker.token, found.attempt
        trial.renewed_at, trial.lease_s = self.time, lease_s
        trial.told.append("claimed")
        self.claims.append(found)

    # Whoever freezes does nothing; whoever wakes up does any of these with any of its old claims.

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        claimed, trial = self.pick(data)
        held = is_held(trial, claimed)
        assert leases.renew(self.stored.engine, claimed) is held
        if held:
            trial.renewed_at = self.time

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), epoch=st.integers(0, 3), value=st.floats(0, 1))
    def report(self, data: st.DataObject, epoch: int, value: float) -> None:
        claimed, trial = self.pick(data)
        if is_held(trial, claimed):
            trial_writes.write_report(self.stored.engine, claimed, epoch, value)
            trial.curve[epoch] = value
            trial.renewed_at = self.time
            return
        with pytest.raises(LeaseLostError):
            trial_writes.write_report(self.stored.engine, claimed, epoch, value)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), curve=st.lists(st.floats(0, 1), max_size=3))
    def rewind(self, data: st.DataObject, curve: list[float]) -> None:
        claimed, trial = self.pick(data)
        arguments = (self.stored.engine, claimed, curve, [], EventKind.RESUMED, "")
        if is_held(trial, claimed):
            trial_writes.rewind(*arguments)
            trial.curve = dict(enumerate(curve))
            trial.told.append("resumed")
            trial.renewed_at = self.time
            return
        with pytest.raises(LeaseLostError):
            trial_writes.rewind(*arguments)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), kind=st.sampled_from([EventKind.PREEMPTED, EventKind.OOM]))
    def release(self, data: st.DataObject, kind: EventKind) -> None:
        claimed, trial = self.pick(data)
        held = is_held(trial, claimed)
        assert leases.release(self.stored.engine, claimed, kind) is held
        if held:
            trial.state, trial.owner = TrialState.WAITING, None
            trial.told.append(kind.value)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(list(ENDS)))
    def finish(self, data: st.DataObject, state: TrialState) -> None:
        claimed, trial = self.pick(data)
        kind = ENDS[state]
        value = 0.5 if state is TrialState.COMPLETE else None
        arguments = (self.stored.engine, claimed, state, kind)
        if is_held(trial, claimed):
            trial_writes.finish(*arguments, value=value, epochs=1)
            trial.state, trial.owner = state, None
            trial.told.append(kind.value)
        elif trial.state.is_finished() and trial.attempt == claimed.attempt:
            # Its own end, once more: the answer to the first call was lost.
            trial_writes.finish(*arguments, value=value, epochs=1)
        else:
            with pytest.raises(LeaseLostError):
                trial_writes.finish(*arguments, value=value, epochs=1)

    @rule(seconds=st.sampled_from([9.0, 11.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @rule(seconds=st.sampled_from([11.0, 3600.0]))
    def set_the_clock_back(self, seconds: float) -> None:
        self.time -= seconds

    @rule(everywhere=st.booleans())
    def reap(self, everywhere: bool) -> None:
        found = leases.reap(self.stored.engine, None if everywhere else self.stored.study_id)
        silent = [
            number
            for number, trial in enumerate(self.trials)
            if trial.state is TrialState.RUNNING and self.time - trial.lease_s > trial.renewed_at
        ]
        assert sorted(found) == silent
        self.give_back(silent)
        for trial in self.trials:
            if trial.state is TrialState.RUNNING:
                # What was renewed in the future begins anew.
                trial.renewed_at = min(trial.renewed_at, self.time)

    @rule(worker=st.sampled_from(WORKERS))
    def reap_worker(self, worker: WorkerIdentity) -> None:
        found = leases.reap_worker(self.stored.engine, self.stored.study_id, worker.token)
        dead = [number for number, trial in enumerate(self.trials) if trial.owner == worker.token]
        assert [claimed.number for claimed in found] == dead
        self.give_back(dead)

    # What people do

    @rule(num_trials=st.integers(0, 5))
    def set_budget(self, num_trials: int) -> None:
        begun = max((n + 1 for n, t in enumerate(self.trials) if t.attempt), default=1)
        if num_trials < begun:
            with pytest.raises(InputError):
                trial_budget.set_budget(self.stored.engine, self.stored.study_id, num_trials)
            return
        before = trial_budget.set_budget(self.stored.engine, self.stored.study_id, num_trials)
        assert before == len(self.trials)
        del self.trials[num_trials:]
        self.trials += [Modelled() for _ in range(num_trials - len(self.trials))]

    @rule()
    def pause(self) -> None:
        pausing.pause(self.stored.engine, self.stored.study_id, "somebody must look")
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        assert pausing.resume(self.stored.engine, self.stored.study_id)
        self.paused = False

    # What always holds

    @invariant()
    def the_trials_are_in_the_states_of_the_model(self) -> None:
        if not self.trials:
            return
        study_id = self.stored.study_id
        # The storage's own list: a study object remembers what it has read.
        stored = self.stored.storage.get_all_trials(study_id, deepcopy=False)
        assert [t.number for t in stored] == list(range(len(self.trials)))
        assert [t.state for t in stored] == [t.state for t in self.trials]
        assert [t.intermediate_values for t in stored] == [t.curve for t in self.trials]
        counted = {s: n for s, n in leases.counts(self.stored.engine, study_id).items() if n}
        assert counted == Counter(t.state for t in self.trials)
        self.check_leases({t._trial_id: self.trials[t.number] for t in stored})
        self.check_stories({t._trial_id: self.trials[t.number] for t in stored})

    def check_leases(self, by_id: dict[int, Modelled]) -> None:
        with self.stored.engine.connect() as connection:
            found = {row.trial_id: row for row in connection.execute(sa.select(schema.leases))}
        expected = {key for key, t in by_id.items() if t.attempt and not t.state.is_finished()}
        assert found.keys() == expected
        for key, row in found.items():
            trial = by_id[key]
            assert (row.owner, row.attempt) == (trial.owner, trial.attempt)
            assert (row.owner is not None) == (trial.state is TrialState.RUNNING)
            assert (row.renewed_at, row.lease_s) == (trial.renewed_at, trial.lease_s)

    def check_stories(self, by_id: dict[int, Modelled]) -> None:
        query = sa.select(schema.events).order_by(schema.events.c.event_id)
        told: dict[int, list[str]] = {key: [] for key in by_id}
        with self.stored.engine.connect() as connection:
            for row in connection.execute(query.where(self.is_of_this_study())):
                told[row.trial_id].append(row.kind)
        assert told == {key: trial.told for key, trial in by_id.items()}
        for key, trial in by_id.items():
            ends = [kind for kind in told[key] if kind in set(ENDS.values())]
            assert len(ends) == trial.state.is_finished()
            assert told[key].count("claimed") == trial.attempt

    def is_of_this_study(self) -> sa.ColumnElement[bool]:
        return schema.events.c.study_id == self.stored.study_id

    # How

    def pick(self, data: st.DataObject) -> tuple[Claim, Modelled]:
        """Draw a claim, now and then with the token of a worker that never held it."""
        claimed = data.draw(st.sampled_from(self.claims), "claim")
        trial = self.trials[claimed.number]
        if data.draw(st.integers(0, 9), "by somebody else") == 0:
            stranger = WorkerIdentity(device="cpu", token="stranger", host="host9", pid=9)
            claimed = dataclasses.replace(claimed, worker=stranger)
            if trial.state.is_finished():
                claimed = dataclasses.replace(claimed, attempt=0)
        return claimed, trial

    def give_back(self, numbers: list[int]) -> None:
        for number in numbers:
            self.trials[number].state, self.trials[number].owner = TrialState.WAITING, None
            self.trials[number].told.append("lost")


@pytest.mark.parametrize("ready_url", ["sqlite"], indirect=True)
def test_the_lease_does_what_its_model_does(ready_url: str) -> None:
    run(ready_url, examples=15, steps=45)


@pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)
def test_the_lease_does_what_its_model_does_on_postgresql(ready_url: str) -> None:
    run(ready_url, examples=3, steps=30)


def run(url: str, *, examples: int, steps: int) -> None:
    machine = type("OnOneStorage", (LeaseMachine,), {"url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            # Making a failure short would take longer than a test may.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

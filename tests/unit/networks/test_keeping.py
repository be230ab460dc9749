from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.trial import TrialState

from skdtune.networks.keeping import is_wanted
from skdtune.queue import leases, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


def finish(
    stored: StoredStudy, value: float, state: TrialState = TrialState.COMPLETE, **more: Any
) -> None:
    claimed = leases.claim(stored.engine, stored.study_id, ALICE)
    assert claimed is not None
    kind = EventKind(state.name.lower())
    trial_writes.finish(stored.engine, claimed, state, kind, value=value, epochs=1, **more)


def test_the_best_complete_trial_so_far_is_wanted(make_study: MakeStudy) -> None:
    stored, other = make_study(), make_study(name="other")
    finish(other, 0.9)
    assert is_wanted(stored, 0.0)
    finish(stored, 0.8, TrialState.PRUNED)
    assert is_wanted(stored, 0.1)
    finish(stored, 0.5)
    assert not is_wanted(stored, 0.4)
    # Of equal trials the one of the lower number is the best, and may be this one.
    assert is_wanted(stored, 0.5)
    assert is_wanted(stored, 0.6)


def test_all_or_none_are_wanted_whatever_they_are_worth(make_study: MakeStudy) -> None:
    every, none = make_study("keep_networks=all"), make_study("keep_networks=none", name="none")
    for stored in (every, none):
        finish(stored, 0.5)
    assert is_wanted(every, 0.1)
    assert not is_wanted(none, 0.9)

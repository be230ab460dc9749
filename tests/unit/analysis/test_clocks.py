"""What people are shown while clocks are wrong: no time is negative."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.analysis.study_results import read_progress
from skdtune.analysis.trial_record import read_trial
from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import WorkerIdentity, utc_now
from skdtune.queue.stored_study import StoredStudy


def test_no_time_is_negative_after_a_clock_was_set_back(
    make_study: Callable[..., StoredStudy],
) -> None:
    stored = make_study(num_trials=3)
    ended, held = (
        leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        for _ in range(2)
    )
    assert ended is not None
    assert held is not None
    trial_writes.finish(
        stored.engine, ended, TrialState.COMPLETE, EventKind.COMPLETE, value=0.5, epochs=1
    )
    ahead = {name: schema.leases.c[name] + 3600 for name in ("claimed_at", "renewed_at")}
    with stored.engine.begin() as connection:
        connection.execute(sa.update(schema.leases).values(ahead))
        start = utc_now() + timedelta(hours=1)
        connection.execute(sa.update(schema.trials).values(datetime_start=start))
    progress = read_progress(stored)
    (worker,) = progress.workers
    assert (worker.seconds, worker.silent_s, progress.eta_s) == (0, 0, 0)
    trial = read_trial(stored.study.get_trials()[0], stored.spec.kind)
    assert (trial.seconds, trial.device_seconds) == (0, 0)

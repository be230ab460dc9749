"""How long studies will still take, from their epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from skdtune.analysis.study_results import read_progress
from skdtune.analysis.time_left import Pace, time_left
from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, WorkerIdentity, utc_now
from skdtune.queue.stored_study import StoredStudy


def pace(**changes: object) -> Pace:
    plain = {"epochs_per_trial": 10, "waiting": 0, "in_hand": (), "ended": (), "epoch_s": 2.0}
    return Pace(**{**plain, **changes})  # type: ignore[arg-type]


paces = st.lists(
    st.builds(
        Pace,
        epochs_per_trial=st.just(20),
        waiting=st.integers(0, 5),
        in_hand=st.lists(st.integers(0, 20), max_size=4).map(tuple),
        ended=st.lists(st.integers(1, 20), max_size=4).map(tuple),
        epoch_s=st.none() | st.floats(0.01, 1000),
        images_per_anchor=st.integers(1, 3),
    ),
    max_size=4,
)


@given(paces)
def test_the_time_is_0_only_where_nothing_is_left(studies: list[Pace]) -> None:
    left = time_left(studies)
    is_over = not any(study.waiting or study.in_hand for study in studies)
    assert (left == 0) == is_over
    if not is_over:
        is_known = any(study.epoch_s is not None for study in studies)
        trains = any(study.in_hand for study in studies)
        assert (left is not None) == (is_known and trains)


@given(paces)
def test_a_further_trial_takes_no_time_off(studies: list[Pace]) -> None:
    before = time_left(studies)
    for index, study in enumerate(studies):
        more = [*studies[:index], replace(study, waiting=study.waiting + 1), *studies[index + 1 :]]
        after = time_left(more)
        if before and after is not None:
            assert after >= before


@pytest.mark.parametrize(
    ("studies", "expected"),
    [
        ([pace(waiting=2, in_hand=(0,))], 60),
        ([pace(waiting=2, in_hand=(0, 0))], 40),
        # The rest of a trial is one worker's.
        ([pace(in_hand=(9, 0))], 20),
        # Its last epoch is stored; that it ends takes a moment.
        ([pace(in_hand=(10,))], 1),
        # Of those that ended, half were pruned at 2: what waits takes 6 epochs, and who is past
        # the rung all of them.
        ([pace(waiting=1, in_hand=(4,), ended=(2, 10))], 2 * (6 + 6)),
        # One that nobody timed is as fast as the other, image by image.
        ([pace(in_hand=(0,)), pace(waiting=3, epoch_s=None, images_per_anchor=2)], 20 + 120),
        ([pace(waiting=3)], None),
        ([pace(in_hand=(1,), epoch_s=None)], None),
        ([pace(), pace()], 0),
    ],
)
def test_known_cases(studies: list[Pace], expected: float | None) -> None:
    assert time_left(studies) == expected


@pytest.fixture
def claim(make_study: Callable[..., StoredStudy]) -> Callable[[StoredStudy], Claim]:
    def claim_of(stored: StoredStudy) -> Claim:
        claimed = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        assert claimed is not None
        return claimed

    return claim_of


def test_there_is_an_estimate_from_the_first_epoch_on(
    make_study: Callable[..., StoredStudy], claim: Callable[[StoredStudy], Claim]
) -> None:
    stored = make_study(num_trials=2)
    epochs = stored.spec.budget.epochs
    trial = claim(stored)
    assert read_progress(stored).left_s is None
    trial_writes.write_report(stored.engine, trial, 0, 0.5)
    with stored.engine.begin() as connection:
        earlier = {"claimed_at": schema.leases.c.claimed_at - 30}
        connection.execute(sa.update(schema.leases).values(earlier))
    progress = read_progress(stored)
    # It is none of whole trials, which scripts were told of so far.
    assert progress.eta_s is None
    # One and a half epochs, on average, are what it did in 30 s.
    assert progress.left_s == pytest.approx(20 * (2 * epochs - 1), rel=0.1)


def test_who_resumed_is_measured_by_the_epochs_of_its_own(
    make_study: Callable[..., StoredStudy], claim: Callable[[StoredStudy], Claim]
) -> None:
    stored = make_study(num_trials=1)
    first = claim(stored)
    for epoch in range(3):
        trial_writes.write_report(stored.engine, first, epoch, 0.5)
    leases.release(stored.engine, first)
    trial = claim(stored)
    trial_writes.rewind(stored.engine, trial, [0.5] * 3, [], EventKind.RESUMED, "")
    assert read_progress(stored).left_s is None
    trial_writes.write_report(stored.engine, trial, 3, 0.5)
    with stored.engine.begin() as connection:
        earlier = {"claimed_at": schema.leases.c.claimed_at - 15}
        connection.execute(sa.update(schema.leases).values(earlier))
    left = stored.spec.budget.epochs - 4
    assert read_progress(stored).left_s == pytest.approx(10 * left, rel=0.1)


def test_trials_that_ended_say_how_long_the_others_take(
    make_study: Callable[..., StoredStudy], claim: Callable[[StoredStudy], Claim]
) -> None:
    stored = make_study(num_trials=4)
    epochs = stored.spec.budget.epochs
    ended, _ = claim(stored), claim(stored)
    trial_writes.finish(
        stored.engine, ended, TrialState.COMPLETE, EventKind.COMPLETE, value=0.5, epochs=epochs
    )
    with stored.engine.begin() as connection:
        ended_row = schema.trials.c.state == TrialState.COMPLETE
        start = utc_now()
        connection.execute(
            sa.update(schema.trials)
            .where(ended_row)
            .values(datetime_start=start, datetime_complete=start.replace(year=start.year + 1))
        )
    progress = read_progress(stored)
    assert progress.pace is not None
    assert progress.pace.epochs_done == epochs
    year_s = 365 * 24 * 3600
    assert progress.eta_s == progress.left_s == pytest.approx(3 * year_s, rel=0.01)

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from optuna.trial import TrialState

from skdtune.errors import InputError, StudyError
from skdtune.queue import leases
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.queued_trial import queue_trial
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_attributes import is_queued
from skdtune.queue.trial_budget import set_budget

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


def fixed(stored: StoredStudy) -> list[object]:
    trials = stored.storage.get_all_trials(stored.study_id)
    return [trial.system_attrs.get("fixed_params") for trial in trials]


def test_one_more_trial_waits_behind_the_others(
    make_study: MakeStudy, ready_url: str, finish_trials: Callable[..., None]
) -> None:
    stored, other = make_study(num_trials=3), make_study(name="other", num_trials=3)
    queued = queue_trial(stored, ["optimizer.lr=0.05"])
    assert (queued.trial, queued.num_trials, queued.params) == (3, 4, {"optimizer.lr": 0.05})
    assert "optimizer.lr" not in queued.sampled
    assert fixed(stored)[1:] == [None, None, {"optimizer.lr": 0.05}]
    last = stored.storage.get_all_trials(stored.study_id)[-1]
    assert (last.state, is_queued(last.system_attrs)) == (TrialState.WAITING, True)
    assert len(fixed(other)) == 3
    # It counts as any other one does.
    assert set_budget(stored.engine, stored.study_id, 3) == 4
    assert set_budget(stored.engine, stored.study_id, 4) == 3
    assert fixed(stored)[1:] == [None, None, None]
    queue_trial(stored, ["optimizer.lr=0.05", "method.drg.stages=[1, 2]"])
    finish_trials(ready_url, "tiny", 0.5, 0.5, 0.5, 0.5, 0.5)
    taken = stored.storage.get_all_trials(stored.study_id)[-1].params
    assert (taken["optimizer.lr"], taken["method.drg.stages"]) == (0.05, "1+2")
    assert taken.keys() == stored.spec.search.keys(), "what was not named was sampled"


def test_the_same_again_is_said(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    queue_trial(stored, ["optimizer.lr=0.05"])
    for pairs, like, twin in ((["optimizer.lr=5e-2"], None, 2), ([], 2, 2), ([], 0, 0)):
        with pytest.raises(InputError, match=f"^trial {twin} has the same parameters; --again "):
            queue_trial(stored, pairs, like=like)
    assert len(fixed(stored)) == 3
    assert queue_trial(stored, ["optimizer.lr=0.05"], again=True).trial == 3
    assert queue_trial(stored, ["optimizer.lr=0.05"], like=0).trial == 4
    assert fixed(stored)[4] == stored.spec.base_params() | {"optimizer.lr": 0.05}


def test_what_cannot_be_queued_changes_nothing(
    make_study: MakeStudy, ready_url: str, finish_trials: Callable[..., None]
) -> None:
    stored = make_study(num_trials=2)
    for pairs, like, message in (
        ([], None, "name a parameter to try .*skdtune budget tiny N"),
        (["optimizer.lr=7"], None, "expected 0.01 to 0.5"),
        ([], 1, "trial 1 of 'tiny' has no parameters yet"),
        ([], 2, "study 'tiny' has no trial 2"),
    ):
        with pytest.raises((InputError, StudyError), match=message):
            queue_trial(stored, pairs, like=like)
    assert len(fixed(stored)) == 2
    finish_trials(ready_url, "tiny", 0.5)
    name = create_evaluation("tiny", now=True, storage=ready_url)
    evaluation = load_study(name, storage=ready_url)
    with pytest.raises(StudyError, match="is the final evaluation of tiny, whose trials are its"):
        queue_trial(evaluation, ["optimizer.lr=0.05"])
    evaluation.close()


def test_several_who_queue_while_others_claim_number_them_one_after_the_other(
    make_study: MakeStudy, ready_url: str
) -> None:
    stored = make_study(num_trials=1)
    start = threading.Barrier(3)

    def queue(values: range) -> None:
        own = load_study("tiny", storage=ready_url)
        start.wait(60)
        for value in values:
            queue_trial(own, [f"optimizer.lr=0.{value}"])
        own.close()

    def take() -> None:
        own = load_study("tiny", storage=ready_url)
        start.wait(60)
        for _ in range(8):
            leases.claim(own.engine, own.study_id, ALICE)
        own.close()

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(queue, range(11, 17)), pool.submit(queue, range(21, 27))]
        for job in [*jobs, pool.submit(take)]:
            job.result(timeout=100)
    trials = stored.storage.get_all_trials(stored.study_id)
    assert [trial.number for trial in trials] == list(range(13))
    assert len({str(params) for params in fixed(stored)}) == 13

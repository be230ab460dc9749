"""Workers of several studies, as processes: no barrier, and no study keeps them from others."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skdtune.queue import pausing
from skdtune.queue.leases import WorkerIdentity, claim

MakeSearch = Callable[..., Any]
Start = Callable[..., Any]
Until = Callable[..., Any]


def order_of_trials(worker: Any) -> list[str]:
    """List whose trials a worker began, one after the other."""
    study, began = "", []
    for line in worker.err.splitlines():
        if changed := re.search(r"trials of (\w+):", line):
            study = changed[1]
        elif re.search(r"trial \d+ starts", line):
            began.append(study)
    return began


def test_one_worker_trains_all_studies_fairly_by_what_is_left(
    any_url: str, make_search: MakeSearch, start_worker: Start
) -> None:
    studies = [make_search(any_url, name=name, num_trials=n) for name, n in (("a", 1), ("b", 3))]
    worker = start_worker(studies[0], "b")
    assert worker.wait() == 0, worker.err
    assert [study.states for study in studies] == [["COMPLETE"], ["COMPLETE"] * 3]
    assert order_of_trials(worker) == ["b", "b", "a", "b"]
    assert "4 trials finished by this worker" in worker.err
    # Each tells once what it computes with; the images went to the device once for both.
    assert worker.err.count("worker of ") == 2


def test_nobody_waits_for_the_end_of_the_first_study(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: Start,
    start_held_worker: Start,
    until: Until,
) -> None:
    first, second = (make_search(sqlite_url, name=n, num_trials=2) for n in ("a", "b"))
    held = start_held_worker(first, "b", "--in-order")
    until(lambda: first.states == ["RUNNING", "WAITING"], "the first trains")
    other = start_worker(first, "b", "--in-order", "--drain")
    assert other.wait() == 0, other.err
    assert order_of_trials(other) == ["a", "b", "b"]
    assert (first.states, second.states) == (["RUNNING", "COMPLETE"], ["COMPLETE"] * 2)
    held.let_go()
    assert held.wait() == 0
    assert first.states == ["COMPLETE"] * 2


def test_a_study_that_cannot_be_trained_keeps_nobody_from_the_others(
    sqlite_url: str, make_search: MakeSearch, start_worker: Start, tmp_path: Path
) -> None:
    paused = make_search(sqlite_url, name="paused", num_trials=9)
    images = ("data.name=imagefolder", f"data.root={tmp_path}", "data.max_per_class=null")
    missing = make_search(
        sqlite_url, *images, preset="imagefolder-baseline", name="missing", num_trials=9
    )
    good = make_search(sqlite_url, name="good", num_trials=1)
    pausing.pause(paused.stored.engine, paused.stored.study_id, "a broken cable")
    worker = start_worker(paused, "missing", "good")
    assert worker.wait() == 2
    assert good.states == ["COMPLETE"]
    assert set(missing.states) == {"WAITING"}
    assert worker.err.count("study paused is paused: a broken cable") == 1
    assert worker.err.count("study missing is left to others: ") == 1
    last = worker.err.splitlines()[-1]
    assert last.startswith("skdtune: not trained here: missing: ")
    assert "Traceback" not in worker.err


def test_a_paused_study_alone_is_left_with_its_reason(
    sqlite_url: str, make_search: MakeSearch, start_worker: Start
) -> None:
    first, second = (make_search(sqlite_url, name=n, num_trials=1) for n in ("a", "b"))
    pausing.pause(second.stored.engine, second.stored.study_id, "a broken cable")
    worker = start_worker(first, "b")
    assert worker.wait() == 4
    assert (first.states, second.states) == (["COMPLETE"], ["WAITING"])
    mend = "skdtune: study b is paused: a broken cable; mend it, then `skdtune resume b`"
    assert worker.err.splitlines()[-1] == mend


def test_studies_are_deleted_renamed_and_resumed_under_a_worker(
    any_url: str, make_search: MakeSearch, start_held_worker: Start, until: Until, start: Start
) -> None:
    first, _, called, late = (
        make_search(any_url, name=name, num_trials=1) for name in ("first", "gone", "old", "late")
    )
    pausing.pause(late.stored.engine, late.stored.study_id, "a broken cable")
    worker = start_held_worker(first, "gone", "old", "late")
    until(lambda: first.states == ["RUNNING"], "the first trains")
    assert start("rename", "old", "new", "--storage", any_url).wait() == 0
    assert start("delete", "gone", "--yes", "--storage", any_url).wait() == 0
    pausing.resume(late.stored.engine, late.stored.study_id)
    worker.let_go()
    assert worker.wait() == 0, worker.err
    assert worker.err.count("study gone was deleted") == 1
    assert "worker of new on cpu" in worker.err
    assert [study.states for study in (first, called, late)] == [["COMPLETE"]] * 3


@pytest.fixture
def serve(start: Start) -> Start:
    """Start a worker that stays."""

    def begin(url: str, *names: str) -> Any:
        return start("worker", *names, "--serve", "--storage", url, "--device", "cpu")

    return begin


def test_who_serves_stays_for_studies_that_are_created_later(
    any_url: str, make_search: MakeSearch, serve: Start, until: Until
) -> None:
    first = make_search(any_url, "family=kin", name="kin-1", num_trials=1)
    other = make_search(any_url, name="stranger", num_trials=1)
    worker = serve(any_url, "kin")
    until(lambda: first.states == ["COMPLETE"], "the first is trained")
    later = make_search(any_url, "family=kin", name="kin-2", num_trials=1)
    until(lambda: later.states == ["COMPLETE"], "the second is trained")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0, worker.err
    assert "study kin-2 is served from now on" in worker.err
    assert other.states == ["WAITING"]


def test_who_serves_waits_for_a_storage_that_is_not_there_yet(
    sqlite_url: str, make_search: MakeSearch, serve: Start, until: Until
) -> None:
    worker = serve(sqlite_url)
    said = worker.folder / "err"
    until(lambda: said.exists() and "waiting: " in worker.err, "it waits")
    study = make_search(sqlite_url, num_trials=1)
    until(lambda: study.states == ["COMPLETE"], "it is trained")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0, worker.err


def test_the_trials_of_all_studies_come_back_from_silent_workers(
    any_url: str, make_search: MakeSearch, start_worker: Start
) -> None:
    first, second = (make_search(any_url, name=n, num_trials=1) for n in ("a", "b"))
    for study in (first, second):
        dead = WorkerIdentity(device="cpu")
        assert claim(study.stored.engine, study.stored.study_id, dead, lease_s=0.1)
    worker = start_worker(first, "b", env={"SKDTUNE_LEASE_SECONDS": "2"})
    assert worker.wait() == 0, worker.err
    assert [study.states for study in (first, second)] == [["COMPLETE"]] * 2
    assert "b: trial 0 waits again: its worker fell silent" in worker.err


def test_a_launched_family_loses_nothing_when_a_worker_is_killed_between_two_studies(
    sqlite_url: str, make_search: MakeSearch, start: Start, until: Until
) -> None:
    family = [
        make_search(sqlite_url, "family=kin", "budget.epochs=20", name=f"kin-{n}", num_trials=2)
        for n in range(2)
    ]
    options = ("--storage", sqlite_url, "--gpus", "none", "--workers", "1")
    launched = start("launch", "kin", *options, env={"SKDTUNE_LEASE_SECONDS": "3600"})
    (victim,) = until(lambda: family[1].holders, "it has begun the second")
    os.kill(victim["pid"], signal.SIGKILL)
    assert launched.wait() == 0, launched.err
    assert [study.states for study in family] == [["COMPLETE"] * 2] * 2
    assert f"kin-1: trial 0 waits again: its worker {victim['pid']} died" in launched.err
    assert family[0].story(0) == ["claimed", "complete"]
    for study in family:
        assert f"{study.name}: 2 complete, 0 pruned, 0 failed" in launched.out
    assert list((launched.folder / "home" / "logs").glob("kin-and-others/launch-001/*.log"))
    assert "4/4 trials: 4 complete; 2 of 2 studies finished, 80 epochs" in launched.err


def test_a_launch_says_at_its_end_what_its_workers_could_not_train(
    sqlite_url: str, make_search: MakeSearch, start: Start
) -> None:
    good, paused = (make_search(sqlite_url, name=n, num_trials=1) for n in ("good", "bad"))
    pausing.pause(paused.stored.engine, paused.stored.study_id, "a broken cable")
    options = ("--storage", sqlite_url, "--gpus", "none", "--workers", "1")
    launched = start("launch", "good", "bad", *options)
    assert launched.wait() == 4
    assert launched.out == "good: 1 complete, 0 pruned, 0 failed\n"
    assert launched.err.splitlines()[-1].startswith("skdtune: study bad is paused: a broken cable")
    assert good.states == ["COMPLETE"]

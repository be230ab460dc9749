"""Several processes at once on one storage: nothing is made twice and nothing is taken twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from skdtune.queue.storage import open_storage

START_TOGETHER = """
import pathlib, sys, time
from skdtune.describe.presets import load_spec
from skdtune.queue import leases
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.storage import init_storage, open_storage
from skdtune.queue.stored_study import create_study
url, folder = {url!r}, pathlib.Path({folder!r})
pathlib.Path("ready").touch()
while not (folder / "go").exists():
    time.sleep(0.002)
"""

CLAIM_ALL = """
engine, claimed = open_storage(url).engine, []
while claim := leases.claim(engine, 1, WorkerIdentity("cpu")):
    print(claim.number, claim.attempt)
    claimed.append(claim)
    while len(claimed) == 1 and len({h["pid"] for h in leases.holders(engine, 1)}) < 4:
        time.sleep(0.02)  # until each process has one
"""

Start = Callable[..., Any]


def run_together(start: Start, url: str, folder: Path, code: str, number: int = 4) -> list[Any]:
    """Let processes do the same thing at the same moment; all must succeed."""
    together = START_TOGETHER.format(url=url, folder=str(folder))
    processes = [start(code=together + code) for _ in range(number)]
    while not all((process.folder / "cwd" / "ready").exists() for process in processes):
        pass
    (folder / "go").touch()
    codes = [process.wait() for process in processes]
    assert codes == [0] * number, [process.err for process in processes]
    return processes


def test_processes_that_empty_a_queue_take_every_trial_once(
    any_url: str, make_search: Start, start: Start, tmp_path: Path
) -> None:
    search = make_search(any_url, num_trials=60)
    processes = run_together(start, any_url, tmp_path, CLAIM_ALL)
    lines = [line.split() for process in processes for line in process.out.splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(60))
    assert {attempt for _, attempt in lines} == {"1"}
    assert search.states == ["RUNNING"] * 60
    assert len({holder["pid"] for holder in search.holders}) == 4


def test_processes_may_set_up_an_empty_storage_at_the_same_time(
    any_url: str, start: Start, tmp_path: Path
) -> None:
    code = "print(init_storage(url).get_all_studies())"
    processes = run_together(start, any_url, tmp_path, code)
    assert [process.out for process in processes] == ["[]\n"] * 4
    storage = open_storage(any_url)
    with storage.engine.connect() as connection:
        versions = connection.scalars(sa.text("SELECT schema_version FROM skdtune_version")).all()
    assert list(versions) == [1]
    storage.engine.dispose()


def test_one_of_many_processes_creates_a_study_and_the_others_find_it(
    any_url: str, start: Start, tmp_path: Path
) -> None:
    code = "print(create_study(load_spec('digits-dsr', num_trials=9), storage=url))"
    processes = run_together(start, any_url, tmp_path, code)
    assert sorted(process.out for process in processes) == ["False\n"] * 3 + ["True\n"]
    storage = open_storage(any_url)
    (study,) = storage.get_all_studies()
    assert [trial.number for trial in storage.get_all_trials(study._study_id)] == list(range(9))
    storage.engine.dispose()

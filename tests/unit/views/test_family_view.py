"""Several studies as one: what is counted together, and what each of them has to say."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from skdtune.analysis.study_results import Progress, read_progress
from skdtune.cli.family_view import family_line, family_view
from skdtune.describe.presets import load_spec
from skdtune.queue import leases, pausing, trial_writes
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import StoredStudy, create_study, load_study

FinishTrials = Callable[..., None]


@pytest.fixture
def family(sqlite_url: str, finish_trials: FinishTrials) -> Iterator[list[StoredStudy]]:
    """Return a study that is finished, one that trains, and one that is paused."""
    names = ("done", "trains", "waits")
    for name in names:
        spec = load_spec("digits-dsr", name=name, num_trials=2, overrides=["budget.epochs=10"])
        create_study(spec, storage=sqlite_url)
    finish_trials(sqlite_url, "done", 0.5, None)
    studies = [load_study(name, storage=sqlite_url) for name in names]
    worker = WorkerIdentity(device="cpu", host="here", pid=7)
    claimed = leases.claim(studies[1].engine, studies[1].study_id, worker)
    assert claimed is not None
    for epoch in range(4):
        trial_writes.write_report(studies[1].engine, claimed, epoch, 0.5)
    pausing.pause(studies[2].engine, studies[2].study_id, "a [broken] cable")
    yield studies
    for stored in studies:
        stored.close()


def read(family: list[StoredStudy]) -> list[Progress]:
    return [read_progress(stored) for stored in family]


def test_a_line_counts_trials_and_epochs_of_all_and_what_is_left_for_workers(
    family: list[StoredStudy],
) -> None:
    line, _, left = family_line(read(family)).rpartition("; ")
    states = "1 running, 3 waiting, 1 complete, 1 failed"
    counts = dict(part.split()[::-1] for part in line.split(": ")[1].split("; ")[0].split(", "))
    assert counts == dict(part.split()[::-1] for part in states.split(", "))
    # 2 that ended, 4 that are trained; 6 and 10 are left, those of the paused one are nobody's.
    assert "6 trials" in line
    assert line.endswith("1 of 3 studies finished, 1 paused; epoch 6 of about 22")
    assert left.startswith("about ")


def test_a_family_that_is_finished_has_no_time_left(family: list[StoredStudy]) -> None:
    assert family_line(read(family)[:1]).endswith("1 of 1 studies finished, 2 epochs")
    # Nor has one of which nothing but a paused study is left.
    only_paused = family_line(read([family[0], family[2]]))
    assert only_paused.endswith("1 of 2 studies finished, 1 paused; epoch 2 of about 2")


def test_each_study_has_its_row_and_each_worker_its_study(family: list[StoredStudy]) -> None:
    out = io.StringIO()
    Console(file=out, width=160, markup=False).print(family_view(read(family)))
    rows = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert any(row.startswith("done ") and row.endswith("2/2 50.00% finished") for row in rows)
    paused = "PAUSED: a [broken] cable; skdtune resume waits"
    assert any(row.startswith("waits ") and row.endswith(paused) for row in rows)
    assert any(row.startswith("here 7 cpu trains 0 5/10") for row in rows)

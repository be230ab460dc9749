"""Rows that somebody else wrote into the storage: data, never code, and never a traceback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from skdtune.describe import dotted
from skdtune.queue import schema
from skdtune.queue.study_attributes import DIGEST_ATTRIBUTE, SPEC_ATTRIBUTE

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]


def rewrite_spec(search: Any, path: str, value: Any) -> None:
    """Put a value into the stored spec, with a hash that fits, as somebody with access could."""
    storage, key = search.stored.storage, search.stored.study_id
    content = json.loads(storage.get_study_system_attrs(key)[SPEC_ATTRIBUTE])
    content["spec"] = dotted.put(content["spec"], path, value)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    storage.set_study_system_attr(key, SPEC_ATTRIBUTE, json.dumps(content))
    search.stored.study.set_user_attr(DIGEST_ATTRIBUTE, digest)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.name", "os.system"),
        ("data.name", "__import__('os').system('touch trap')"),
        ("model.name", "torch.hub.load"),
        ("model.name", "../../etc/passwd"),
        ("method.label", {"name": "builtins.eval", "code": "1"}),
        ("sampler.name", "optuna.samplers.TPESampler"),
        ("pruner", {"name": "subprocess.run"}),
        ("search", {"data.root": {"type": "choice", "choices": ["/etc"]}}),
        ("search", {"optimizer.lr": {"type": "python", "low": 0.1, "high": 1.0}}),
        ("budget.epochs", "1 if __import__('os') else 2"),
        ("faults", {"max_epoch_seconds": "inf"}),
        ("name", "../../../tmp/escaped"),
    ],
)
def test_a_spec_in_the_storage_can_name_only_what_is_registered(
    path: str, value: Any, sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    rewrite_spec(search, path, value)
    worker = start_worker(search)
    assert worker.wait() == 2
    assert worker.err.startswith("skdtune: stored spec: ")
    assert len(worker.err.splitlines()) == 1
    assert search.states == ["WAITING"]
    assert not list((worker.folder / "cwd").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        '"gASVIAAAAAAAAACMBXBvc2l4"',
        '{"format": 99, "spec": {}}',
        '{"format": 1, "spec": null}',
        "{" * 50_000,
    ],
)
def test_a_stored_text_that_is_no_spec_is_one_line(
    text: str, sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    stored = search.stored
    stored.storage.set_study_system_attr(stored.study_id, SPEC_ATTRIBUTE, text)
    worker = start_worker(search)
    assert worker.wait() == 2
    assert len(worker.err.splitlines()) == 1
    assert "Traceback" not in worker.err


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer.lr": "__import__('os').system('touch trap')"},
        {"optimizer.lr": 1e300},
        {"optimizer.lr": None},
        {"optimizer.weight_decay": [1, 2]},
        [1, 2],
        "optimizer.lr",
    ],
)
def test_parameters_that_somebody_queued_are_data(
    params: Any, sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=2)
    attributes = schema.trial_system_attributes
    with search.stored.engine.begin() as connection:
        connection.execute(
            sa.update(attributes)
            .where(attributes.c.key == "fixed_params")
            .values(value_json=json.dumps(params))
        )
    worker = start_worker(search)
    assert worker.wait() == 0
    assert search.states[1] == "COMPLETE", "the trial after it is none the worse"
    assert search.trials[0].state.is_finished()
    assert not list((worker.folder / "cwd").iterdir())


def test_what_somebody_wrote_into_the_story_is_shown_as_text(
    sqlite_url: str, make_search: MakeSearch, start: Callable[..., Any], tmp_path: Path
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    trial_id = search.trials[0]._trial_id
    evil = "[red]bold[/red] \x1b]0;title\x07 \x1b[2J {system} %s $(touch trap)"
    with search.stored.engine.begin() as connection:
        connection.execute(
            sa.insert(schema.events).values(
                study_id=search.stored.study_id,
                trial_id=trial_id,
                attempt=1,
                at=1.0,
                kind="claimed",
                final=False,
                epochs=0,
                worker=evil,
                detail=evil,
            )
        )
    told = start("explain", "tiny", "0", "--storage", sqlite_url)
    assert told.wait() == 0
    assert "[red]bold[/red]" in told.out
    assert "\x1b" not in told.out
    assert not list((told.folder / "cwd").iterdir())


#: Attributes that skdtune reads, each with values that are no such thing.
STRANGE = ("null", '"x"', "-1", "1e999", "NaN", "[1]", '{"a": [2]}', "true", "1" + "0" * 400)
READ = (
    *("num_val_images", "seed", "device", "versions", "data_fingerprint", "epoch_seconds"),
    *("train_seconds", "images", "losses", "peak_memory_mb", "spec_hash", "failure_kind"),
)
READ_BY_SKDTUNE = ("skdtune:curves", "skdtune:profile", "skdtune:network", "skdtune:judged_epochs")

#: What ends the reading of a row where it is read as what it should be.
UNREADABLE = (
    "UPDATE trial_user_attributes SET value_json = 'no JSON' WHERE trial_id = {}",
    "UPDATE trial_params SET distribution_json = 'x' WHERE trial_id = {}",
    "UPDATE trial_values SET value = NULL WHERE trial_id = {}",
    "UPDATE trial_values SET objective = 7 WHERE trial_id = {}",
    "UPDATE trial_values SET value_type = 'ODD' WHERE trial_id = {}",
    "UPDATE trials SET state = 'ODD' WHERE trial_id = {}",
    "UPDATE trials SET datetime_complete = 'odd' WHERE trial_id = {}",
)
#: What is read, and is no accuracy.
NO_ACCURACY = (
    "UPDATE trial_values SET value = 93.5 WHERE trial_id = {}",
    "UPDATE trial_values SET value = 'abc' WHERE trial_id = {}",
    "UPDATE trial_values SET value = NULL, value_type = 'INF_POS' WHERE trial_id = {}",
    "DELETE FROM trial_values WHERE trial_id = {}",
    "INSERT INTO trial_values (trial_id, objective, value, value_type) "
    "VALUES ({}, 1, 0.5, 'FINITE')",
)
#: What hides nothing, wherever it stands.
ODD = (
    "UPDATE trials SET datetime_complete = '0001-01-01 00:00:00.000000' WHERE trial_id = {}",
    "UPDATE skdtune_event SET at = 1e300 WHERE trial_id = {}",
    "UPDATE skdtune_event SET at = 'odd' WHERE trial_id = {}",
)


def damage(search: Any) -> tuple[list[int], list[int]]:
    """Damage each trial but the first two in another way; return those that count nowhere.

    Returns:
        Their numbers, and those of the trials that count all the same.
    """
    rows = [*UNREADABLE, *NO_ACCURACY, *ODD]
    with search.stored.engine.begin() as connection:
        query = sa.select(schema.trials.c.trial_id).order_by(schema.trials.c.number)
        ids = list(connection.scalars(query.where(schema.trials.c.study_id == 1)))
        for trial_id, row in zip(ids[2:], rows, strict=False):
            connection.execute(sa.text(row.format(trial_id)))
        for trial_id, value in zip(ids[2 + len(rows) :], STRANGE, strict=False):
            for table, keys in (
                (schema.trial_user_attributes, READ),
                (schema.trial_system_attributes, READ_BY_SKDTUNE),
            ):
                named = {"trial_id": trial_id, "value_json": value}
                connection.execute(sa.delete(table).where(table.c.trial_id == trial_id))
                connection.execute(sa.insert(table), [{**named, "key": key} for key in keys])
    num_foreign = len(UNREADABLE) + len(NO_ACCURACY)
    last = 2 + len(rows) + len(STRANGE)
    return list(range(2, 2 + num_foreign)), [0, 1, *range(2 + num_foreign, last)]


def test_rows_of_others_hide_no_result_and_steer_nothing(
    sqlite_url: str,
    make_search: MakeSearch,
    finish_trials: Callable[..., None],
    start: Callable[..., Any],
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    num_ended = 2 + len(UNREADABLE) + len(NO_ACCURACY) + len(ODD) + len(STRANGE)
    search = make_search(sqlite_url, "sampler.num_startup_trials=2", num_trials=num_ended + 2)
    measured = [{"num_val_images": 50, "test_accuracy": value} for value in (0.5, 0.6)]
    others = [{"num_val_images": 50, "seed": 1, "test_accuracy": 0.1}] * (num_ended - 2)
    finish_trials(sqlite_url, "tiny", *measured, *others)
    study = search.stored.study
    # Per cent, in a range of its own, and one that was asked for and left.
    told = study.ask()
    told.suggest_float("optimizer.lr", 1e-9, 100, log=True)
    told.set_user_attr("num_val_images", "many")
    study.tell(told, 93.5)
    left = study.ask()
    left.report(93.5, 0)
    foreign, own = damage(search)
    foreign += [told.number, left.number]
    assert sorted([*foreign, *own]) == list(range(num_ended + 2))

    def answer(*arguments: str) -> str:
        process = start(*arguments, "--storage", sqlite_url)
        assert process.wait() == 0, (arguments, process.err)
        assert "Traceback" not in process.err
        return str(process.out)

    shown = json.loads(answer("best", "tiny", "--json"))
    assert (shown["best"]["number"], shown["best"]["value"]) == (1, 0.6)
    assert (shown["default"]["number"], shown["num_val_images"]) == (0, 50)
    assert shown["foreign"] == foreign
    text = answer("best", "tiny")
    assert "6.93%" in text, "the standard error of 0.6 on 50 images"
    assert f"Foreign trials of tiny count nowhere here: {foreign[0]}, " in text

    listed = json.loads(answer("trials", "tiny", "--json"))
    assert [trial["number"] for trial in listed] == list(range(num_ended + 2))
    assert [trial["number"] for trial in listed if "foreign" in trial] == foreign
    header, *lines = answer("trials", "tiny", "--csv").splitlines()
    assert header.endswith(",foreign")
    assert sum("no worker of skdtune made it" in line for line in lines) == 2

    status = answer("status", "tiny")
    assert "best 60.00% (trial 1)" in status
    assert "(1 may be abandoned: skdtune storage reap --foreign)" in status
    for number in (foreign[0], own[4]):
        said = answer("explain", "tiny", str(number))
        assert ("It is foreign, and counts nowhere: " in said) == (number in foreign)

    page = tmp_path / "page.html"
    answer("report", "tiny", "-o", str(page))
    assert "Foreign trials" in page.read_text()
    assert "93.5" not in page.read_text().partition('<script type="application/json"')[2]
    queued = json.loads(answer("evaluate", "tiny", "--queue-only", "--json", "--seeds", "1"))
    assert [one["candidate_trial"] for one in queued["candidates"]] == [1]
    refused = start("export", "tiny", "--trial", str(foreign[0]), "--storage", sqlite_url)
    assert refused.wait() == 2
    assert refused.err.startswith(f"skdtune: trial {foreign[0]} of 'tiny' is foreign: its rows")

    # Given back, it is a worker's, whose sampler sees what counts.
    silent = "import os, sys; sys.stdin = open(os.devnull)"
    asked = start("storage", "reap", "--foreign", "--storage", sqlite_url, code=silent)
    assert asked.wait() == 130, "nobody said yes"
    assert "in the hands of plain Optuna: tiny " in asked.out
    given = answer("storage", "reap", "--foreign", "--yes")
    assert given.splitlines()[-1] == f"1 foreign trials wait again: tiny {left.number}"
    assert answer("storage", "reap", "--foreign").splitlines()[-1] == (
        "no trial runs outside of skdtune"
    )
    worker = start_worker(search)
    assert worker.wait() == 0, worker.err
    last = json.loads(answer("explain", "tiny", str(left.number), "--json"))["trial"]
    assert (last["state"], "foreign" in last) == ("complete", False)
    assert 0.01 <= last["params"]["optimizer.lr"] <= 0.5

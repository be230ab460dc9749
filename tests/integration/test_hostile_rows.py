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

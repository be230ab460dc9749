"""`skdtune doctor` finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from data_makers import imagefolder

from skdtune.doctor import folders
from skdtune.doctor.finding import Installation
from skdtune.home import Home
from skdtune.queue import leases, schema
from skdtune.queue.pausing import pause

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
Found = dict[str, list[dict[str, str]]]


@pytest.fixture
def find(run_cli: RunCli) -> Callable[..., tuple[int, Found]]:
    """Run the doctor; its findings by what they are about."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, Found]:
        done = run_cli("doctor", "--json", *arguments, env=env)
        assert "Traceback" not in done.stderr
        found: Found = {}
        for finding in json.loads(done.stdout):
            found.setdefault(finding["about"], []).append(finding)
        return done.returncode, found

    return run


def levels(findings: list[dict[str, str]]) -> set[str]:
    return {finding["level"] for finding in findings}


def test_nothing_is_wrong_and_nothing_made_in_a_new_home(
    find: Callable[..., tuple[int, Found]], run_cli: RunCli, skdtune_home: Path
) -> None:
    code, found = find()
    assert code == 0
    assert set(found) >= {"software", "device", "kernels", "storage", "home", "checkpoints"}
    (storage,) = found["storage"]
    assert storage["level"] == "note"
    assert "create a study first" in storage["says"]
    assert list(skdtune_home.iterdir()) == []
    lines = run_cli("doctor").stdout.splitlines()
    assert len(lines) == sum(map(len, found.values()))
    assert all(line.split()[0] in ("ok", "note") for line in lines)


def test_a_study_is_looked_at_with_its_workers_and_its_data(
    find: Callable[..., tuple[int, Found]],
    run_cli: RunCli,
    make_search: Callable[..., Any],
    any_url: str,
    tmp_path: Path,
) -> None:
    imagefolder.make(tmp_path / "birds", train=6)
    search = make_search(
        any_url,
        f"data.root={tmp_path / 'birds'}",
        "data.image_size=8",
        "data.max_per_class=null",
        "data.batch_size=4",
        "budget.epochs=1",
        preset="imagefolder-baseline",
        num_trials=2,
    )
    place = ("--storage", any_url)
    assert run_cli("worker", "tiny", "--max-trials", "1", *place).returncode == 0
    code, found = find("tiny", *place)
    assert code == 0, found
    assert levels(found["storage"]) == {"ok"}
    assert found["study"][0]["says"].endswith("those that it was begun with")
    assert "all trials so far were trained with skdtune" in found["workers"][-1]["says"]

    # Its worker falls silent, another one was of another version, its images change.
    worker = leases.WorkerIdentity("cpu")
    claim = leases.claim(search.stored.engine, search.stored.study_id, worker, lease_s=0.1)
    assert claim is not None
    attributes = schema.trial_user_attributes
    with search.stored.engine.begin() as connection:
        silent = schema.leases.c.renewed_at - 90
        connection.execute(sa.update(schema.leases).values(renewed_at=silent))
        connection.execute(
            sa.insert(attributes).values(
                trial_id=claim.trial_id,
                key="versions",
                value_json=json.dumps({"torch": "1.0"}),
            )
        )
    pause(search.stored.engine, search.stored.study_id, "somebody looks at it")
    changed = sorted((tmp_path / "birds" / "train" / "cat").iterdir())[0]
    changed.unlink()
    code, found = find("tiny", *place)
    assert code == 1
    said = [f"{one['says']}: {one['remedy']}" for one in [*found["workers"], *found["study"]]]
    for part in (
        "has been silent for 9",
        "several versions of torch",
        "is paused: somebody looks at it",
        f"class 'cat' has 5 of them, not 6 (cat/{changed.name} is gone)",
    ):
        assert any(part in one for one in said), (part, said)
    # Looking gave nothing back.
    assert search.states == ["COMPLETE", "RUNNING"]


def test_what_does_not_work_is_wrong_and_no_password_is_said(
    find: Callable[..., tuple[int, Found]], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '0, NVIDIA H100, 550.54'\n")
    driver.chmod(0o755)
    code, found = find(
        "--storage",
        "postgresql://me:se%2Fcret@127.0.0.1:1/none",
        env={
            "SKDTUNE_CHECKPOINTS": str(file),
            "SKDTUNE_ARTIFACTS": "nosuch://me:secret@place",
            "SKDTUNE_NATIVE": "0",
            "PATH": f"{tmp_path}:/usr/bin:/bin",
        },
    )
    assert code == 1
    for about in ("storage", "checkpoints", "artifacts", "device"):
        assert "wrong" in levels(found[about]), found[about]
    assert levels(found["kernels"]) == {"note"}
    assert "secret" not in json.dumps(found)
    assert "se/cret" not in json.dumps(found)


def test_without_the_packages_of_a_worker_nothing_is_wrong_and_no_password_is_said(
    monkeypatch: pytest.MonkeyPatch, skdtune_home: Path
) -> None:
    monkeypatch.setitem(sys.modules, "skdtune.training.files", None)
    monkeypatch.setenv("SKDTUNE_ARTIFACTS", "s3://me:secret@place/artifacts")
    here = Installation(home=Home(skdtune_home), storage_url="sqlite:///none.db")
    found = list(folders.examine(here))
    assert [finding.level for finding in found] == ["note"] * 3
    assert "s3://***@place/artifacts" in found[2].says
    assert "secret" not in str(found)

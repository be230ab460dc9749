"""``skdtune delete`` and ``skdtune rename``: what goes, what stays, and what is still found."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from click.testing import Result
from exit_codes import exit_code

from skdtune.home import study_folder
from skdtune.queue import leases, schema
from skdtune.queue.deletion import delete_studies, deleted_studies, doomed_by
from skdtune.queue.storage import open_storage
from skdtune.queue.stored_study import find_lineage, load_study

pytestmark = pytest.mark.usefixtures("connections_end")

Run = Callable[..., Result]
Finish = Callable[..., None]

TEST = {
    "test_accuracy": 0.9,
    "test_top5": 1.0,
    "test_ece": 0.02,
    "test_nll": 0.3,
    "num_test_images": 450,
    "data_fingerprint": "abcdefabcdef",
}


@pytest.fixture
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    monkeypatch.setenv("SKDTUNE_STORAGE", url)
    return url


on_both = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused, and return its one line."""
    assert exit_code(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


def lineage_of(url: str, study: str) -> str:
    stored = load_study(study, storage=url)
    stored.close()
    return stored.lineage


class Files:
    """The files of studies below the home, as workers and `launch` leave them."""

    def __init__(self, home: Path, url: str) -> None:
        self._home, self._url = home, url

    def make(self, study: str, *, number: int = 0, name: str | None = None) -> str:
        """Give a trial of a study a kept network, and the study a checkpoint and a log."""
        stored = load_study(study, storage=self._url)
        artifact = uuid.uuid4().hex
        trial_id = stored.study.get_trials()[number]._trial_id
        with stored.engine.begin() as connection:
            attributes = {f"artifacts:{artifact}": "{}", "skdtune:network": {"x": artifact}}
            connection.execute(
                sa.insert(schema.trial_system_attributes),
                [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in attributes.items()
                ],
            )
        folder = study_folder(name or study, stored.lineage)
        stored.close()
        for path in (
            f"artifacts/{artifact}",
            f"checkpoints/{folder}/trial-00000/epoch-00001.attempt-001.ckpt",
            f"logs/{folder}/worker-0.log",
        ):
            (self._home / path).parent.mkdir(parents=True, exist_ok=True)
            (self._home / path).write_text(study)
        return artifact

    def of(self, *studies: str) -> set[str]:
        """Return the kinds of files that are left of some studies."""
        below = ("artifacts", "checkpoints", "logs")
        found = (path for kind in below for path in (self._home / kind).glob("**/*"))
        return {
            str(path.relative_to(self._home)).partition("/")[0]
            for path in found
            if path.is_file() and path.read_text() in studies
        }


@pytest.fixture
def files(skdtune_home: Path, url: str) -> Files:
    return Files(skdtune_home, url)


def rows(url: str) -> dict[str, int]:
    """Count the rows of every table, but for those that say which version wrote them."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        counted = {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for name, table in metadata.tables.items()
            if "version" not in name
        }
    engine.dispose()
    return counted


@pytest.fixture
def evaluated(run: Run, url: str, finish_trials: Finish) -> str:
    """Make a study of two trials, one of them finished and evaluated with one of two seeds."""
    assert run("create-study", "digits-drg", "--trials", "2").exit_code == 0
    finish_trials(url, "digits-drg", 0.9703)
    queued = run("evaluate", "digits-drg", "--queue-only", "--seeds", "2", "--now")
    assert queued.exit_code == 0
    finish_trials(url, "digits-drg.test", TEST)
    return "digits-drg"


# delete


@on_both
def test_a_study_goes_with_all_that_belongs_to_it_and_nothing_else_does(
    run: Run, url: str, files: Files, evaluated: str, finish_trials: Finish
) -> None:
    other = "digits-drg.other"
    assert run("create-study", "digits-drg", "--name", other, "--trials", "1").exit_code == 0
    finish_trials(url, other, 0.5)
    before = rows(url)
    for study in (evaluated, f"{evaluated}.test", other):
        files.make(study)
    # An earlier name of the same study.
    files.make(evaluated, number=1, name="called-otherwise")
    run("delete", other, "--yes")
    assert files.of(other) == set()
    assert files.of(evaluated) == files.of(f"{evaluated}.test") == KINDS
    found = json.loads(run("delete", evaluated, "--yes", "--json").stdout)
    assert [row["study"] for row in found] == [evaluated, f"{evaluated}.test"]
    assert [row["num_trials"] for row in found] == [2, 2]
    assert [row["num_artifacts"] for row in found] == [2, 1]
    assert [row["num_checkpoint_folders"] for row in found] == [2, 1]
    assert [row["problems"] for row in found] == [[], []]
    assert files.of(evaluated, f"{evaluated}.test") == set()
    assert set(rows(url).values()) == {0}
    assert before["trials"] == 5
    assert json.loads(run("status", "--json").stdout) == []


KINDS = {"artifacts", "checkpoints", "logs"}


def test_a_study_of_the_same_name_keeps_its_files_and_an_evaluation_goes_alone(
    run: Run, url: str, files: Files, evaluated: str
) -> None:
    token = lineage_of(url, evaluated)
    files.make(evaluated)
    assert run("delete", f"{evaluated}.test", "--yes").stdout == (
        f"deleted {evaluated}.test: 2 trials, 0 artifacts\n"
    )
    assert lineage_of(url, evaluated) == token
    # Its rows go, and whoever should have removed its files was killed.
    opened = open_storage(url)
    delete_studies(opened, doomed_by(opened, [evaluated]))
    assert files.of(evaluated) == KINDS
    assert run("create-study", evaluated, "--trials", "1").exit_code == 0
    files.make(evaluated)
    (left,) = deleted_studies(opened.engine, [evaluated])
    opened.engine.dispose()
    assert left.lineage == token
    assert run("delete", evaluated, "--yes").exit_code == 0
    assert files.of(evaluated) == set()
    assert set(rows(url).values()) == {0}


def test_a_deletion_that_was_killed_is_finished_by_the_next_one(
    run: Run, url: str, files: Files, evaluated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create-study", "digits-dsr", "--trials", "1").exit_code == 0
    files.make(evaluated)
    files.make("digits-dsr")
    opened = open_storage(url)
    delete_studies(opened, doomed_by(opened, [evaluated]))
    opened.engine.dispose()
    assert files.of(evaluated) == KINDS
    assert "digits-dsr" in run("status").stdout
    assert run("delete", evaluated, "--yes").exit_code == 0
    assert files.of(evaluated) == set()
    assert files.of("digits-dsr") == KINDS
    assert "there is no study 'digits-drg'" in refused(capsys, "delete", evaluated, "--yes")


def test_nobody_is_asked_in_a_script_and_nothing_is_deleted(
    run: Run, url: str, evaluated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows(url)
    line = refused(capsys, "delete", evaluated)
    assert line == f"skdtune: nobody is there to ask whether {evaluated} shall go: add --yes"
    assert "there is no study 'nothing'" in refused(capsys, "delete", "nothing", "--yes")
    optuna.create_study(study_name="theirs", storage=optuna.storages.RDBStorage(url))
    assert "theirs" in refused(capsys, "delete", "theirs", "--yes")
    assert rows(url) == before | {
        "studies": before["studies"] + 1,
        "study_directions": before["study_directions"] + 1,
    }


@on_both
def test_a_study_that_is_trained_is_neither_deleted_nor_renamed(
    run: Run, url: str, evaluated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_study(f"{evaluated}.test", storage=url)
    worker = leases.WorkerIdentity(device="cpu", host="elsewhere", pid=7)
    claimed = leases.claim(stored.engine, stored.study_id, worker)
    assert claimed is not None
    before = rows(url)
    expected = (
        f"skdtune: study '{evaluated}.test' is being trained by elsewhere:7 (cpu): stop the "
        "workers first"
    )
    assert refused(capsys, "delete", evaluated, "--yes") == expected
    assert refused(capsys, "rename", evaluated, "another") == expected
    assert rows(url) == before
    # Of a worker that is dead nobody waits for the lease to run out.
    with stored.engine.begin() as connection:
        connection.execute(sa.update(schema.leases).values(renewed_at=1.0))
        if stored.engine.dialect.name == "postgresql":
            # The server's start counts as a sign of life.
            connection.execute(sa.update(schema.leases).values(lease_s=-1e9))
    assert run("rename", evaluated, "another").exit_code == 0
    assert run("delete", "another", "--yes").exit_code == 0
    # The worker was only slow: it can write nothing any more.
    assert not leases.renew(stored.engine, claimed)
    assert find_lineage(stored.engine, stored.study_id) is None
    stored.close()
    assert set(rows(url).values()) == {0}


def test_a_family_goes_as_a_whole_and_what_cannot_be_removed_is_said(
    run: Run,
    url: str,
    files: Files,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("digits-drg", "digits-dsr"):
        made = run("create-study", name, "--trials", "1", "--set", "family=relatives")
        assert made.exit_code == 0
        files.make(name)
    monkeypatch.setenv("SKDTUNE_ARTIFACTS", "nowhere://user:secret@bucket")
    assert exit_code("delete", "relatives", "--yes") == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "deleted digits-drg: 1 trials, 0 artifacts",
        "deleted digits-dsr: 1 trials, 0 artifacts",
    ]
    assert all("`skdtune delete relatives` tries again" in e for e in shown.err.splitlines())
    assert len(shown.err.splitlines()) == 2
    assert "secret" not in shown.err
    assert files.of("digits-drg", "digits-dsr") == {"artifacts"}
    monkeypatch.delenv("SKDTUNE_ARTIFACTS")
    assert exit_code("delete", "relatives", "--yes") == 0
    assert files.of("digits-drg", "digits-dsr") == set()
    assert set(rows(url).values()) == {0}


# rename


@on_both
def test_a_renamed_study_is_the_same_study_everywhere(
    run: Run, url: str, evaluated: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown = ("--now", "--queue-only", "--json")
    digest = json.loads(run("evaluate", evaluated, *shown).stdout)["spec_hash"]
    token = lineage_of(url, evaluated)
    assert run("rename", evaluated, "mine").stdout.splitlines() == [
        f"{evaluated} is called mine now",
        f"{evaluated}.test is called mine.test now",
    ]
    assert is_consistent(run, "mine", "mine.test", tmp_path)
    assert lineage_of(url, "mine") == token
    assert json.loads(run("evaluate", "mine", *shown).stdout)["spec_hash"] == digest
    assert "there is no study" in refused(capsys, "best", evaluated)
    # Its old name is free, and the new study has nothing to do with it.
    assert run("create-study", evaluated, "--trials", "1").exit_code == 0
    assert f"study '{evaluated}' has no final evaluation" in refused(capsys, "compare", evaluated)
    again = run("create-study", evaluated, "--name", "mine", "--trials", "2")
    assert again.stdout == "mine is there already with the same spec; nothing changed\n"


def is_consistent(run: Run, study: str, evaluation: str, folder: Path) -> bool:
    """Ask all commands about a study of one finished trial that was evaluated."""
    assert json.loads(run("best", study, "--json").stdout)["study"] == study
    assert f"skdtune evaluate {study}" in run("status", evaluation).stdout
    found = json.loads(run("evaluate", study, "--now", "--queue-only", "--json").stdout)
    assert (found["study"], found["evaluation"]) == (study, evaluation)
    assert found["candidates"][0]["num_search_trials"] == 1
    (row,) = json.loads(run("compare", study, "--json").stdout)["rows"]
    assert row["study"] == study
    page = folder / "page.html"
    assert run("report", study, evaluation, "-o", str(page), "--no-dashboard").exit_code == 0
    assert f"skdtune launch {study}" in page.read_text()
    names = [one["study"] for one in json.loads(run("status", "--json").stdout)]
    assert names == [study, evaluation]
    return True


def test_names_that_are_taken_or_none_are_refused(
    run: Run, url: str, evaluated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create-study", "digits-dsr", "--trials", "1").exit_code == 0
    before = json.loads(run("status", "--json").stdout)
    taken = "there is a study 'digits-dsr' already: choose another name"
    assert taken in refused(capsys, "rename", evaluated, "digits-dsr")
    assert "is no name of a study" in refused(capsys, "rename", evaluated, "../up")
    assert "there is no study 'nothing'" in refused(capsys, "rename", "nothing", "something")
    assert json.loads(run("status", "--json").stdout) == before


def test_a_study_that_another_dashboard_copied_to_a_new_name_is_still_that_study(
    run: Run, url: str, evaluated: str, tmp_path: Path
) -> None:
    token = lineage_of(url, evaluated)
    storage = optuna.storages.RDBStorage(url)
    optuna.copy_study(
        from_study_name=evaluated, from_storage=storage, to_storage=storage, to_study_name="mine"
    )
    optuna.delete_study(study_name=evaluated, storage=storage)
    assert lineage_of(url, "mine") == token
    assert run("pause", "mine").exit_code == 0
    assert json.loads(run("status", "mine", "--json").stdout)["paused"] == "paused by hand"
    found = json.loads(run("evaluate", "mine", "--now", "--queue-only", "--json").stdout)
    assert (found["study"], found["evaluation"]) == ("mine", f"{evaluated}.test")
    # A copy beside the living study is another one.
    optuna.copy_study(
        from_study_name="mine", from_storage=storage, to_storage=storage, to_study_name="copy"
    )
    assert lineage_of(url, "copy") not in ("", token)
    run("delete", "copy", "--yes")
    assert lineage_of(url, "mine") == token


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

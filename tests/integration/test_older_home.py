"""A home that 0.1.0 left behind: read as it was read then, and gone on with.

``tests/fixtures/make_home.py`` made it, with the code before its modules moved; ``expected/``
holds what that code printed of it. Written once, and again only with a change that people are
told of::

    python tests/integration/test_older_home.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import json
import os
import re
import runpy
import shlex
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import skdtune

FIXTURE = Path(__file__).parents[1] / "fixtures" / "home-0.1.0"
EXPECTED = FIXTURE / "expected"
STUDIES: dict[str, list[str]] = json.loads(
    (FIXTURE / "studies.json").read_text().replace("{fixtures}", str(FIXTURE))
)
COMMANDS: dict[str, list[str]] = json.loads((FIXTURE / "commands.json").read_text())

#: What these processes share with those of all other tests: the C part, built once.
ENVIRONMENT = {
    "TZ": "UTC",
    "SKDTUNE_NATIVE": str(Path(__file__).parents[2] / ".pytest_cache" / "native"),
    "SKDTUNE_GRACE_SECONDS": "0",
    # What is started from here imports what this imports.
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
}

#: A command's exit code, and what it wrote to stdout and to stderr.
Answer = tuple[int, str, str]
Run = Callable[..., Answer]
Row = dict[str, Any]


# The home, and what runs in it


def unpack(folder: Path) -> Path:
    with tarfile.open(FIXTURE / "home.tar.xz") as archive:
        archive.extractall(folder / "home", filter="data")
    return folder / "home"


def runner(start: Callable[..., Any], home: Path) -> Run:
    def run(*arguments: str) -> Answer:
        process = start(*arguments, env={**ENVIRONMENT, "SKDTUNE_HOME": str(home)})
        return process.wait(), process.out, process.err

    return run


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that is only read."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def ask(module_start: Callable[..., Any], old: Path) -> Run:
    return runner(module_start, old)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home to go on with."""
    return unpack(tmp_path / "gone-on")


@pytest.fixture
def run(start: Callable[..., Any], home: Path) -> Run:
    return runner(start, home)


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory, module_start: Callable[..., Any]) -> Path:
    """A home in which today's code makes the same studies, and trains the same four trials."""
    home = tmp_path_factory.mktemp("anew") / "home"
    home.mkdir()
    run = runner(module_start, home)
    for arguments in STUDIES.values():
        ended(run("create-study", *arguments))
    (home / "created.txt").write_text(written(created(home, list(tables(home)["studies"]))))
    ended(run("worker", "search", "--device", "cpu", "--max-trials", "4"))
    return home


def ended(answer: Answer, code: int = 0) -> Answer:
    assert answer[0] == code, answer[2]
    return answer


def plain(answer: Answer) -> Any:
    return json.loads(ended(answer)[1])


@contextlib.contextmanager
def database(home: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(home / "skdtune.db")
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def rows(home: Path, query: str, *values: object) -> list[Row]:
    with database(home) as connection:
        return [dict(row) for row in connection.execute(query, values)]


def tables(home: Path) -> dict[str, list[Row]]:
    names = rows(home, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return {row["name"]: rows(home, f"SELECT * FROM {row['name']}") for row in names}


def of_trial(home: Path, table: str, study: str, number: int) -> list[Row]:
    """Return the rows of a table that belong to a trial."""
    query = (
        f"SELECT {table}.* FROM {table} JOIN trials USING (trial_id) "
        "JOIN studies ON studies.study_id = trials.study_id "
        "WHERE study_name = ? AND number = ? ORDER BY 1"
    )
    return rows(home, query, study, number)


def attributes(home: Path, kind: str, study: str, number: int) -> dict[str, Any]:
    found = of_trial(home, f"trial_{kind}_attributes", study, number)
    return {row["key"]: json.loads(row["value_json"]) for row in found}


def curve(home: Path, study: str, number: int) -> dict[int, float]:
    found = of_trial(home, "trial_intermediate_values", study, number)
    return {row["step"]: row["intermediate_value"] for row in found}


def states(home: Path, study: str) -> list[str]:
    query = "SELECT state FROM trials JOIN studies USING (study_id) WHERE study_name = ?"
    return [row["state"] for row in rows(home, query + " ORDER BY number", study)]


def story(home: Path, study: str, number: int) -> list[str]:
    return [row["kind"] for row in of_trial(home, "skdtune_event", study, number)]


# What is written down of it


def steady(value: Any) -> Any:
    """Return JSON without what follows from the time of day or the last bit of a number."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        passing = {"seconds", "silent_s"} if "silent_s" in value else set()
        return {key: "..." if key in passing else steady(value[key]) for key in value}
    return [steady(entry) for entry in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    return json.dumps(steady(value), indent=1, ensure_ascii=False) + "\n"


def transcript(arguments: Sequence[str], answer: Answer, home: Path) -> str:
    """Write down what a command was, how it ended and what it printed."""
    code, out, err = answer
    if "--json" in arguments and code == 0:
        out = written(json.loads(out))
    err = re.sub(r"(?m)^\d\d:\d\d:\d\d ", "", err)
    # Where there is no compiler they are torch's.
    err = re.sub(r"\w+ kernels", "... kernels", err)
    text = f"skdtune {shlex.join(arguments)}\nexit code {code}\n{out}"
    text += f"on stderr:\n{err}" if err else ""
    return text.replace(str(home), "{home}").replace(str(FIXTURE), "{fixtures}")


def filled(arguments: Sequence[str]) -> list[str]:
    """Put the arguments that made a study in the place of its name in braces."""
    return [
        word
        for text in arguments
        for word in (STUDIES[text[1:-1]] if text.startswith("{") else [text])
    ]


def page_text(page: str) -> str:
    """Return a report without its scripts, its style, and when it was written."""
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    body = re.sub(r'<p class="small">skdtune .*?</p>', "", body, count=1)
    lines = [f"{page.count('<script>')} scripts, {page.count('<style>')} style"]
    lines += [line for line in re.sub(r"(?=<[a-z])", "\n", body).splitlines() if line.strip()]
    for figure in figures:
        lines += ["", *(json.dumps(steady(t)) for t in json.loads(figure)["data"])]
        lines.append(json.dumps(steady(json.loads(figure)["layout"])))
    return "\n".join(lines) + "\n"


def export_text(folder: Path) -> str:
    """Return what is in an exported folder, but for how near this machine's numbers come."""
    facts = json.loads((folder / "trial.json").read_text())
    agreement = facts.pop("agreement")
    card = (folder / "README.md").read_text().replace(agreement, "...")
    names = sorted(path.name for path in folder.iterdir())
    return f"{' '.join(names)}\n{written(facts)}{card}"


def written_report(run: Run, folder: Path) -> str:
    path = folder / "report.html"
    ended(run("report", "kin", "search", "-o", str(path), "--no-dashboard"))
    return page_text(path.read_text())


def written_export(run: Run, folder: Path, study: str) -> str:
    ended(run("export", study, "--no-program", "-o", str(folder / study)))
    return export_text(folder / study)


def created(home: Path, studies: Sequence[Row]) -> dict[str, Any]:
    """Return all that a storage holds of studies that nobody has begun, but for tokens."""
    found: dict[str, Any] = {"tables": list(tables(home)), "layout": layout(home)}
    for study in studies:
        key = study["study_id"]
        of_study = "SELECT * FROM {} WHERE study_id = ? ORDER BY 1, 2"
        user, system = (
            {row["key"]: json.loads(row["value_json"]) for row in rows(home, query, key)}
            for query in map(of_study.format, ("study_user_attributes", "study_system_attributes"))
        )
        # Spec and packages were user attributes once, and the objective had a blank in its name.
        user = {k: system.pop(k) for k in list(system) if k.startswith("skdtune:")} | user
        metric = "study:metric_names"
        system[metric] = [name.replace("_", " ") for name in system[metric]]
        simpler: dict[str, Callable[[Any], Any]]
        simpler = {"skdtune:spec": json.loads, "skdtune:versions": sorted}
        user = {k: simpler[k](v) if k in simpler else v for k, v in user.items()}
        own = rows(home, of_study.format("skdtune_study"), key)
        assert all(re.fullmatch("[0-9a-f]{32}", row.pop("lineage")) for row in own)
        found[study["study_name"]] = {
            "user": user,
            "system": {k: v.splitlines() if isinstance(v, str) else v for k, v in system.items()},
            "own": own,
            "directions": rows(home, of_study.format("study_directions"), key),
            "trials": rows(home, of_study.format("trials"), key),
            "fixed": [
                row
                for number in range(len(states(home, study["study_name"])))
                for row in of_trial(home, "trial_system_attributes", study["study_name"], number)
            ],
        }
    return found


def layout(home: Path) -> dict[str, str]:
    """Return how skdtune's own tables and indexes were made."""
    query = "SELECT name, sql FROM sqlite_master WHERE name LIKE '%skdtune%' ORDER BY name"
    made = rows(home, query)
    return {row["name"]: " ".join(row["sql"].split()) for row in made if row["sql"]}


def as_written_since(name: str, told: str) -> str:
    """Write the accuracies of what was told then as they are written since: in per cent."""

    def percent(found: re.Match[str]) -> str:
        # A cell keeps its width.
        text = f"{float(found[2]):.2%}"
        return found[1] + (text.rjust(6) if found[1].startswith("│") else text)

    if name == "report":
        return told.replace("%{y:.5g}", "%{y}")
    words = ["best", "accuracy", r"likeliest \|", r"calibration error \|"]
    before = "│ +" if name == "trials-search-text" else f"(?:{'|'.join(words)}) "
    accuracy = rf"({before})(0\.\d{{4}})(?= │|[ :])"
    return re.sub(accuracy, percent, told)


def require_as_expected(name: str, found: str) -> None:
    path = EXPECTED / f"{name}.txt"
    expected = as_written_since(name, path.read_text()) if path.is_file() else ""
    if name == "report":
        found = re.sub(r'"hoverformat": "[^"]*", ', "", found)
    if found != expected:
        told = difflib.unified_diff(
            expected.splitlines(), found.splitlines(), f"expected/{name}.txt", "now", "", "", 1, ""
        )
        pytest.fail("\n".join(told), pytrace=False)


# Read


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_printed(name: str, ask: Run, old: Path) -> None:
    arguments = filled(COMMANDS[name])
    before = tables(old)
    require_as_expected(name, transcript(arguments, ask(*arguments), old))
    assert tables(old) == before


def test_the_report_shows_what_it_showed(ask: Run, tmp_path: Path) -> None:
    require_as_expected("report", written_report(ask, tmp_path))


@pytest.mark.parametrize("study", ["kin-drg-dsr", "kin-ddgsd.test"])
def test_a_kept_network_is_exported_as_it_was(study: str, ask: Run, tmp_path: Path) -> None:
    require_as_expected(f"export-{study}", written_export(ask, tmp_path, study))


#: What a function takes that no function took then; who called it then need not name it.
TAKEN_SINCE = {"run_worker": {"threads", "require_kernels"}}


def test_python_reads_what_it_read(old: Path) -> None:
    require_as_expected("python", written(python_names(old)))


def python_names(home: Path) -> dict[str, Any]:
    """Return what the public functions take, and the fields of what they return."""
    url = f"sqlite:///{home / 'skdtune.db'}"
    public = [name for name in skdtune.__all__ if not name.startswith("_")]
    return {
        "takes": {
            name: [
                f"{one.kind.description} {one.name}"
                for one in signature(getattr(skdtune, name))
                if one.name not in TAKEN_SINCE.get(name, ())
            ]
            for name in public
        },
        "results": fields(skdtune.results("kin-drg-dsr", storage=url)),
        "evaluated": fields(skdtune.evaluated("kin-drg-dsr", storage=url)),
    }


def signature(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def fields(value: Any) -> Any:
    """Return the names of what data have in them."""
    if dataclasses.is_dataclass(value):
        return {one.name: fields(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)) and value:
        return [fields(value[0])]
    return type(value).__name__


# Made anew


def test_studies_are_created_as_they_were(anew: Path) -> None:
    require_as_expected("created", (anew / "created.txt").read_text())


def test_an_evaluation_is_created_as_it_was(run: Run, home: Path) -> None:
    ended(run("evaluate", "search", "--now", "--queue-only", "--seeds", "2"))
    require_as_expected("created-evaluation", written(created(home, [evaluation(home)])))


def evaluation(home: Path) -> Row:
    (study,) = rows(home, "SELECT * FROM studies WHERE study_name = 'search.test'")
    return study


def test_tables_on_postgresql_are_as_they_were(
    postgres_url: str, start: Callable[..., Any]
) -> None:
    assert start("storage", "init", "--storage", postgres_url).wait() == 0
    require_as_expected("postgresql", written(postgres_layout(postgres_url)))


def postgres_layout(url: str) -> list[str]:
    columns = (
        "SELECT table_name || '.' || column_name || ': ' || data_type || ', ' || "
        "coalesce(character_maximum_length::text, '-') || ', null ' || is_nullable "
        "FROM information_schema.columns WHERE table_name LIKE 'skdtune%'"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%skdtune%'"
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = [str(row[0]) for text in (columns, indexes) for row in _all(connection, text)]
    engine.dispose()
    return sorted(found)


def _all(connection: sa.Connection, text: str) -> Any:
    return connection.execute(sa.text(text)).all()


#: What a trial measures of the machine and the hour, and what has that in it.
MEASURED = {"epoch_seconds", "train_seconds", "peak_memory_mb", "versions", "network_sha256"}

#: What a trial tells that no trial told then.
TOLD_SINCE = {"source"}


def names(keys: Mapping[str, Any]) -> set[str]:
    """Return names of attributes, without an artifact's token and the number of a rung."""
    named = (re.sub(r"^(artifacts:).*|^(completed_rung_)\d+", r"\1\2*", key) for key in keys)
    return set(named) - TOLD_SINCE


@pytest.mark.parametrize("number", [2, 3])
def test_a_queued_trial_that_was_pruned_is_the_same_as_far_as_it_came(
    number: int, old: Path, anew: Path
) -> None:
    """A person queued them: since then such trials run to their end, and the story says why."""
    before, after = (attributes(home, "user", "search", number) for home in (old, anew))
    assert states(old, "search")[number] == "PRUNED"
    assert states(anew, "search")[number] == "COMPLETE"
    assert after.keys() >= before.keys()
    assert len(curve(anew, "search", number)) == 12
    assert sampled(anew, number) == sampled(old, number)
    if is_same_machine(before, after):
        shorter, longer = (curve(home, "search", number) for home in (old, anew))
        assert {step: longer[step] for step in shorter} == shorter
        assert "spared" in story(anew, "search", number)


@pytest.mark.parametrize("number", range(2))
def test_a_trial_is_trained_and_leaves_what_it_left(number: int, old: Path, anew: Path) -> None:
    """One that is complete, after it was cut off twice then; one of NaN."""
    before, after = (attributes(home, "user", "search", number) for home in (old, anew))
    is_same = is_same_machine(before, after)
    assert after.keys() - TOLD_SINCE == before.keys()
    left = [names(attributes(home, "system", "search", number)) for home in (old, anew)]
    assert left[0] == left[1]
    if not is_same:
        return
    assert states(anew, "search")[number] == states(old, "search")[number]
    assert curve(anew, "search", number) == curve(old, "search", number)
    assert sampled(anew, number) == sampled(old, number)
    apart = MEASURED | TOLD_SINCE
    told = [{k: v for k, v in found.items() if k not in apart} for found in (before, after)]
    if reason := told[0].get("failure_reason"):
        # Epochs are counted from 1 since.
        told[0]["failure_reason"] = reason.replace("in epoch 0", "in epoch 1")
    assert told[0] == told[1]


def is_same_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether numbers must come out equal, bit for bit."""
    processor = runpy.run_path(str(FIXTURE.parent / "make_home.py"))["processor"]
    libraries = ("optuna", "python", "torch")
    return (
        (FIXTURE / "processor.txt").read_text() == processor()
        and all(before[key] == after[key] for key in ("device", "kernels", "threads"))
        and all(before["versions"][name] == after["versions"][name] for name in libraries)
    )


def sampled(home: Path, number: int) -> dict[str, tuple[float, str]]:
    found = of_trial(home, "trial_params", "search", number)
    return {row["param_name"]: (row["param_value"], row["distribution_json"]) for row in found}


# Gone on with


def test_a_trial_whose_worker_was_killed_goes_on_from_its_checkpoint(run: Run, home: Path) -> None:
    stored = curve(home, "killed", 0)
    assert len(stored) >= 2
    epochs = max(
        int(path.name.split(".")[0].removeprefix("epoch-"))
        for path in home.glob("checkpoints/killed-*/trial-00000/*.ckpt")
    )
    _, _, said = ended(run("worker", "killed", "--device", "cpu"))
    resumed = f"after epoch {epochs}, from the checkpoint of attempt 1"
    assert f"trial 0 goes on {resumed}" in said
    told = plain(run("explain", "killed", "0", "--json"))
    assert [event["kind"] for event in told["events"]] == [
        "claimed",
        "lost",
        "claimed",
        "resumed",
        "complete",
    ]
    assert told["events"][3]["detail"] == resumed
    assert told["epochs_repeated"] == 0
    now = curve(home, "killed", 0)
    assert sorted(now) == list(range(12))
    assert {step: now[step] for step in stored} == stored
    assert states(home, "killed") == ["COMPLETE"] * 2
    assert not list(home.glob("checkpoints/killed-*"))
    assert rows(home, "SELECT * FROM skdtune_lease WHERE owner IS NOT NULL") == []


def test_trials_that_wait_are_trained_and_those_that_ended_stay(run: Run, home: Path) -> None:
    kept = ("trial_params", "trial_values", "trial_intermediate_values", "skdtune_event")
    before = [of_trial(home, table, "search", n) for table in kept for n in range(5)]
    ended(run("worker", "search", "--device", "cpu"))
    assert before == [of_trial(home, table, "search", n) for table in kept for n in range(5)]
    now = states(home, "search")
    assert now[:5] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
    assert set(now[5:]) <= {"COMPLETE", "PRUNED"}
    claimed = [of_trial(home, "skdtune_event", "search", n)[0]["event_id"] for n in range(5, 8)]
    assert claimed == sorted(claimed)
    told = plain(run("trials", "search", "--json"))
    assert [trial["params"]["optimizer.lr"] for trial in told[5:]] == [0.07, 0.0003, 0.06]


def test_an_evaluation_gets_another_seed(run: Run, home: Path, tmp_path: Path) -> None:
    study, test = "kin-drg-dsr", "kin-drg-dsr.test"
    (before,) = plain(run("evaluate", study, "--json", "--queue-only"))["candidates"]
    queued = ended(run("evaluate", study, "--seeds", "3", "--queue-only"))[1]
    assert queued == f"{test}: 1 trainings wait; train them: skdtune launch {test}\n"
    ended(run("worker", test, "--device", "cpu"))
    (after,) = plain(run("evaluate", study, "--gpus", "none", "--json"))["candidates"]
    assert after["seeds"][:2] == before["seeds"]
    assert len(after["seeds"]) == 3
    for kind in ("user", "system"):
        left = [attributes(home, kind, test, number) for number in (0, 2)]
        assert names(left[0]) == names(left[1])
    compared = plain(run("compare", "kin", "--json"))
    assert [row["study"] for row in compared["rows"]] == ["kin-baseline", study, "kin-ddgsd"]

    drawn = "SELECT study_id, key FROM study_system_attributes WHERE key LIKE 'dashboard:%'"
    figures = sorted(map(str, rows(home, drawn)))
    _, said, _ = ended(run("report", "kin", "-o", str(tmp_path / "page.html")))
    assert f"{study}: 4 figures added to the dashboard" in said
    assert sorted(map(str, rows(home, drawn))) == figures
    ended(run("export", test, "--trial", "2", "--no-program", "-o", str(tmp_path / "network")))
    assert (tmp_path / "network" / "model.safetensors").is_file()


def test_a_paused_study_goes_on_when_it_is_resumed(run: Run, home: Path) -> None:
    stored = curve(home, "paused", 0)
    refused = ended(run("worker", "paused", "--device", "cpu"), code=4)
    assert refused[2].splitlines()[-1] == (
        "skdtune: study paused is paused: the disk is slow; mend it, then `skdtune resume paused`"
    )
    assert ended(run("resume", "paused"))[1].startswith("paused goes on")
    ended(run("worker", "paused", "--device", "cpu"))
    assert states(home, "paused") == ["COMPLETE"]
    assert story(home, "paused", 0) == [
        "claimed",
        "preempted",
        "claimed",
        "resumed",
        "complete",
    ]
    assert {step: curve(home, "paused", 0)[step] for step in stored} == stored


def test_all_silent_trials_are_reaped(run: Run, home: Path) -> None:
    assert ended(run("storage", "reap"))[1] == "1 trials wait again\n"
    assert story(home, "killed", 0) == ["claimed", "lost"]
    assert states(home, "killed") == ["WAITING"] * 2


# Written once


class _Process:
    def __init__(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        self._done = subprocess.run(
            [sys.executable, "-m", "skdtune", *arguments],
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **env},
            capture_output=True,
            text=True,
            check=False,
        )
        self.out, self.err = self._done.stdout, self._done.stderr

    def wait(self) -> int:
        return self._done.returncode


def write() -> None:
    """Write down what the code prints of the home."""
    EXPECTED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        old, fresh = unpack(Path(folder)), Path(folder) / "fresh"
        fresh.mkdir()
        run, create = (
            runner(lambda *arguments, env: _Process(arguments, env), home) for home in (old, fresh)
        )
        found = {
            name: transcript(filled(arguments), run(*filled(arguments)), old)
            for name, arguments in COMMANDS.items()
        }
        found["report"] = written_report(run, Path(folder))
        found["python"] = written(python_names(old))
        for study in ("kin-drg-dsr", "kin-ddgsd.test"):
            found[f"export-{study}"] = written_export(run, Path(folder), study)
        for arguments in STUDIES.values():
            ended(create("create-study", *arguments))
        found["created"] = written(created(fresh, tables(fresh)["studies"]))
        ended(run("evaluate", "search", "--now", "--queue-only", "--seeds", "2"))
        found["created-evaluation"] = written(created(old, [evaluation(old)]))
        found["postgresql"] = written(_postgres())
    for name, text in found.items():
        (EXPECTED / f"{name}.txt").write_text(text)


def _postgres() -> list[str]:
    import pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        url = f"postgresql+psycopg://postgres:@/postgres?host={folder}"
        assert _Process(["storage", "init", "--storage", url], ENVIRONMENT).wait() == 0
        found = postgres_layout(url)
        server.cleanup()
    return found


if __name__ == "__main__":
    write()

"""The command line as a contract: its commands, its options, its exit codes, its documentation."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import Result
from exit_codes import exit_code
from hypothesis import given
from hypothesis import strategies as st

import skdtune
from skdtune.cli.main import cli
from skdtune.describe.presets import find, is_family, load_family, load_spec
from skdtune.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    InputError,
    LeaseLostError,
    NonFiniteLossError,
    OtherDataError,
    SkdtuneError,
    SpecError,
    StorageAwayError,
    StorageEmptyError,
    StorageError,
    StorageLostError,
    StudyError,
    StudyPausedError,
    TestSplitClosedError,
)

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("connections_end")

#: What every command takes, before its name or after it.
COMMON = {"--storage", "--home", "-v", "--verbose", "-q", "--quiet", "-h", "--help"}

#: How a command that makes a table of results prints it.
FORMATS = {"--json", "--markdown", "--latex", "--csv"}

#: Every command with its arguments and its own options. A new one is a decision: write it here,
#: into the documentation and into the changelog.
COMMANDS = {
    "studies": {"--json"},
    "data list": {"--root", "--json"},
    "data check": {"NAME", "--root", "--image-size", "--train-only", "--json"},
    "data prepare": {
        "NAME",
        "--root",
        "--image-size",
        "--no-download",
        "--train-only",
        "--json",
    },
    "train": {
        "[STUDY]",
        "--from",
        "--name",
        "--set",
        "--fix",
        "--epochs",
        "--seed",
        "-o",
        "--output",
        "--test",
        "--all-images",
        "--weights",
        "--device",
        "--threads",
        "--json",
    },
    "create-study": {
        "STUDY",
        "--name",
        "--trials",
        "--set",
        "--fix",
        "--weights",
        "--dry-run",
        "--json",
    },
    "worker": {
        "[STUDIES]",
        "--in-order",
        "--serve",
        "--device",
        "--threads",
        "--max-trials",
        "--drain",
        "--prepare",
        "--probe",
        "--require-kernels",
        "--weights",
        "--checkpoints",
    },
    "launch": {
        "[STUDIES]",
        "--in-order",
        "--serve",
        "--engine",
        "--gpus",
        "--workers",
        "--workers-per-gpu",
        "--checkpoints",
        "--weights",
    },
    "budget": {"STUDY", "NUM_TRIALS", "--json"},
    "enqueue": {"STUDY", "[PARAMS]", "--like", "--again", "--json"},
    "pause": {"STUDY", "--reason"},
    "resume": {"STUDY"},
    "rename": {"STUDY", "NEW_NAME"},
    "delete": {"STUDY", "--yes", "--json", "--checkpoints"},
    "explain": {"STUDY", "TRIAL", "--json"},
    "evaluate": {
        "STUDY",
        "--top",
        "--seeds",
        "--epochs",
        "--name",
        "--now",
        "--queue-only",
        "--engine",
        "--gpus",
        "--workers",
        "--workers-per-gpu",
        "--checkpoints",
        "--weights",
        *FORMATS,
    },
    "compare": {"STUDIES", "--baseline", *FORMATS},
    "report": {"STUDIES", "-o", "--output", "--no-dashboard"},
    "export": {"STUDY", "--trial", "-o", "--output", "--no-program", "--json"},
    "status": {"[STUDY]", "--json", "--watch"},
    "best": {"STUDY", "--against", "--json", "--yaml"},
    "trials": {"STUDY", "--json", "--csv"},
    "dashboard": {"--host", "--port", "--allowed-host", "--allow-write"},
    "models": {
        "[NAME]",
        "--image-size",
        "--classes",
        "--width",
        "--in-channels",
        "--stem",
        "--json",
    },
    "doctor": {"[STUDY]", "--json"},
    "extensions": {"--json"},
    "storage init": set(),
    "storage check": set(),
    "storage upgrade": set(),
    "storage reap": {"--foreign", "--yes"},
}


def walk(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = f"{above} {name}".strip()
        if isinstance(command, click.Group):
            yield from walk(command, path)
        else:
            yield path, command


WALKED = list(walk(cli))


def words(command: click.Command) -> set[str]:
    """Return the arguments and options of a command as a person writes them."""
    context = click.Context(command, help_option_names=["-h", "--help"])
    found: set[str] = set()
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Argument):
            name = str(parameter.name).upper()
            found.add(name if parameter.required else f"[{name}]")
        else:
            found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.fixture(autouse=True)
def forget_verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no -v of one test bring tracebacks into another: a process knows one command line."""
    monkeypatch.setattr("skdtune.cli.application._verbose", False)


@pytest.fixture
def study(run: Run) -> str:
    """Create a small study in the default storage and return its name."""
    assert run("create-study", "digits-drg", "--trials", "2").exit_code == 0
    return "digits-drg"


# Commands and options


def test_the_commands_are_these() -> None:
    assert {path for path, _ in walk(cli)} == set(COMMANDS)


@pytest.mark.parametrize(("path", "command"), WALKED, ids=[path for path, _ in WALKED])
def test_the_options_of_a_command_are_these(path: str, command: click.Command) -> None:
    assert words(command) == COMMANDS[path] | COMMON


def test_the_options_before_a_command_are_these() -> None:
    assert words(cli) == COMMON | {"--version"}


@pytest.mark.parametrize(("path", "command"), WALKED, ids=[path for path, _ in WALKED])
def test_the_help_of_a_command_says_what_it_does(
    run: Run, path: str, command: click.Command
) -> None:
    result = run(*path.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: skdtune {path} ")
    assert str(command.help).splitlines()[0] in " ".join(result.output.split())
    for word in COMMANDS[path] | COMMON:
        shown = result.output.replace("NAME|FILE", "STUDY").replace("STUDY...", "STUDIES")
        shown = shown.replace("[KEY=VALUE]...", "[PARAMS]")
        assert word.strip("[]") in shown


def test_the_short_help_is_the_help(run: Run) -> None:
    assert run("-h").output == run("--help").output
    assert run("status", "-h").output == run("status", "--help").output


def test_the_help_lists_every_command(run: Run) -> None:
    output = run("--help").output
    listed = output[output.index("Commands:") :]
    for name in cli.commands:
        assert re.search(rf"^  {name} +\w", listed, re.MULTILINE)


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").output == f"skdtune {skdtune.__version__}\n"


# Options that may stand before and after the command


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("command", ["storage init", "create-study digits-dsr"])
def test_the_storage_may_stand_before_and_after(
    run: Run, tmp_path: Path, skdtune_home: Path, position: str, command: str
) -> None:
    file = tmp_path / "elsewhere.db"
    option = ["--storage", f"sqlite:///{file}"]
    before, after = (option, []) if position == "before" else ([], option)
    assert run(*before, *command.split(), *after).exit_code == 0
    assert file.is_file()
    assert list(skdtune_home.iterdir()) == []


def test_the_storage_may_stand_between_a_group_and_its_command(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.db"
    assert run("--storage", f"sqlite:///{file}", "storage", "init").exit_code == 0
    assert (
        f"sqlite:///{file} is fine"
        in run("storage", "check", "--storage", f"sqlite:///{file}").output
    )


def test_of_two_storages_the_later_one_counts(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    result = run(
        "--storage", f"sqlite:///{first}", "storage", "init", "--storage", f"sqlite:///{second}"
    )
    assert result.exit_code == 0
    assert not first.exists()
    assert second.is_file()


def test_the_option_goes_before_the_variable(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKDTUNE_STORAGE", f"sqlite:///{tmp_path}/variable.db")
    assert run("storage", "init").exit_code == 0
    assert run("storage", "init", "--storage", f"sqlite:///{tmp_path}/option.db").exit_code == 0
    assert (tmp_path / "variable.db").is_file()
    assert (tmp_path / "option.db").is_file()


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_home_may_stand_before_and_after(
    run: Run, tmp_path: Path, skdtune_home: Path, position: str
) -> None:
    option = ["--home", str(tmp_path / "other")]
    before, after = (option, []) if position == "before" else ([], option)
    assert run(*before, "storage", "init", *after).exit_code == 0
    assert (tmp_path / "other" / "skdtune.db").is_file()
    assert list(skdtune_home.iterdir()) == []


@pytest.mark.parametrize("option", ["-v", "--verbose", "-q", "--quiet"])
def test_loudness_may_stand_before_and_after(run: Run, option: str) -> None:
    assert run(option, "studies").exit_code == 0
    assert run("studies", option).exit_code == 0


# What a program reads


def test_the_list_of_presets_is_json(run: Run) -> None:
    listed = json.loads(run("studies", "--json").stdout)
    lines = run("studies").stdout.splitlines()
    assert len(listed) == len(lines) > 10
    for preset, line in zip(listed, lines, strict=True):
        assert line.split(maxsplit=1) == [preset["name"], preset["description"]]


def test_the_status_of_one_study_is_one_object_and_of_all_a_list(run: Run, study: str) -> None:
    one = json.loads(run("status", study, "--json").stdout)
    assert json.loads(run("status", "--json").stdout) == [one]
    assert one["study"] == study
    assert one["counts"]["waiting"] == one["num_trials"] == 2
    assert one["workers"] == []
    assert one["best_value"] is None


def test_the_status_of_an_empty_storage_is_an_empty_list(run: Run) -> None:
    assert run("storage", "init").exit_code == 0
    assert json.loads(run("status", "--json").stdout) == []
    assert "no study yet: skdtune create-study" in run("status").stdout


def test_the_trials_are_json_and_csv(run: Run, study: str) -> None:
    listed = json.loads(run("trials", study, "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(run("trials", study, "--csv").stdout)))
    assert [trial["number"] for trial in listed] == [0, 1]
    assert [row["number"] for row in rows] == ["0", "1"]
    assert {trial["state"] for trial in listed} == {row["state"] for row in rows} == {"waiting"}
    assert set(load_spec(study).search) <= set(rows[0])


def test_what_is_set_and_searched_is_said_and_what_is_fixed_is_not_searched(run: Run) -> None:
    setting = ("create-study", "digits-drg", "--set", "optimizer.lr=0.05")
    note = (
        "trial 0 starts from 0.05, and optimizer.lr is still searched over [0.01 to 0.5, log]; to "
        "keep it: --fix optimizer.lr=0.05\n"
    )
    assert run(*setting, "--dry-run").stdout.endswith(note)
    assert note in run(*setting, "--name", "set").stdout
    assert note not in run(*setting, "--name", "set").stdout, "it is there already"
    assert note not in run(*setting, "--name", "quiet", "-q").stdout
    fixed = ("create-study", "digits-drg", "--fix", "optimizer.lr=0.05")
    dry = run(*fixed, "--dry-run").stdout
    assert ("  lr: 0.05" in dry, "optimizer.lr" in dry) == (True, False)
    assert "still" not in run(*fixed, "--name", "fixed").stdout
    assert exit_code("create-study", "digits-drg", "--fix", "method.drg=null") == 2
    for last in ((), ("--dry-run",)):
        told = run(*setting, "--name", f"told{len(last)}", "--json", *last)
        assert note in told.stderr
        assert json.loads(told.stdout)["study"] == f"told{len(last)}"


def test_a_trial_of_a_persons_choice_is_queued(run: Run, study: str) -> None:
    result = run("enqueue", study, "optimizer.lr=0.05")
    assert result.stdout.splitlines()[0] == f"trial 2 of {study} waits with optimizer.lr=0.05"
    assert result.stdout.splitlines()[-1] == (
        f"{study} has 3 trials, 2 before; train it: skdtune launch {study}"
    )
    plain = json.loads(run("enqueue", study, "--like", "0", "optimizer.lr=0.02", "--json").stdout)
    assert (plain["study"], plain["trial"], plain["num_trials"]) == (study, 3, 4)
    assert plain["params"]["optimizer.lr"] == 0.02
    assert plain["sampled"] == []
    assert [exit_code("enqueue", study, *a) for a in ([], ["lr=1"], ["optimizer.lr=9"])] == [2] * 3
    assert f"{study} has 4 trials, 4 before" in run("budget", study, "4").stdout
    lowered = run("budget", study, "2", "--json")
    assert f"queued by hand, and taken away: trial 2, 3 of {study}\n" == lowered.stderr
    assert json.loads(lowered.stdout)["num_trials_before"] == 4


def test_what_is_created_and_its_budget_are_json(run: Run, skdtune_home: Path) -> None:
    made = ("create-study", "digits-drg", "--trials", "2", "--json")
    spec = load_spec("digits-drg", num_trials=2)
    planned = json.loads(run(*made, "--dry-run").stdout)
    assert list(skdtune_home.iterdir()) == []
    first, second = (json.loads(run(*made).stdout) for _ in range(2))
    assert first == {
        "study": "digits-drg",
        "family": None,
        "spec_hash": spec.digest,
        "num_trials": 2,
        "epochs_per_trial": 12,
        "max_epochs": 24,
        "created": True,
    }
    assert second == first | {"created": False}
    assert planned.items() >= second.items()
    assert planned["spec"] == spec.model_dump(mode="json")
    assert planned["rungs"] == [list(r) for r in spec.effective_pruner.brackets(12)]
    assert planned["trial_0"] == spec.base_params()
    budget = json.loads(run("budget", "digits-drg", "5", "--json").stdout)
    assert budget == {"study": "digits-drg", "num_trials": 5, "num_trials_before": 2}


def test_a_family_is_a_list_in_json(run: Run) -> None:
    made = ("create-study", "digits-compare", "--trials", "1", "--json")
    planned = json.loads(run(*made, "--dry-run").stdout)
    created = json.loads(run(*made).stdout)
    assert {row["created"] for row in created} == {True}
    assert {row["family"] for row in created} == {"digits-compare"}
    changed = json.loads(run("budget", "digits-compare", "2", "--json").stdout)
    names = [row["study"] for row in created]
    assert names == [row["study"] for row in planned] == [row["study"] for row in changed]
    assert len(names) > 1


def test_a_dry_run_prints_the_study_as_yaml_its_space_its_rungs_and_its_cost(
    run: Run, skdtune_home: Path
) -> None:
    result = run("create-study", "digits-drg", "--set", "pruner.name=hyperband", "--dry-run")
    text, _, tables = result.stdout.partition("\n\n")
    spec = load_spec("digits-drg", overrides=["pruner.name=hyperband"])
    expected = spec.model_dump(mode="json", exclude={"search"})
    assert yaml.safe_load(text) == expected
    for path, param in spec.search.items():
        (row,) = [line for line in tables.splitlines() if f" {path} " in line]
        assert param.describe().split(" | ")[0] in row
    for bracket, rungs in enumerate(spec.effective_pruner.brackets(12)):
        shown = ", ".join(map(str, rungs)) or "never"
        assert re.search(rf"{bracket} +│ {shown}", tables)
    assert "24 trials of 12 epochs, at most 288 epochs" in tables
    assert spec.digest in tables
    assert list(skdtune_home.iterdir()) == []


def test_nothing_but_data_is_on_stdout_of_json(run: Run, study: str) -> None:
    for arguments in (("-v", "status", "--json"), ("-q", "trials", study, "--json")):
        assert json.loads(run(*arguments).stdout)


# Exit codes


def test_success_is_0(study: str) -> None:
    assert exit_code("status", study) == 0
    assert exit_code("--version") == 0
    assert exit_code("--help") == 0


def test_wrong_use_and_wrong_input_are_2() -> None:
    assert exit_code("no-such-command") == 2
    assert exit_code("create-study", "no-such-preset") == 2
    assert exit_code() == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError, 2),
        (SpecError, 2),
        (DataError, 2),
        (OtherDataError, 2),
        (DeviceError, 2),
        (StorageError, 2),
        (StorageEmptyError, 2),
        (StudyError, 2),
        (SkdtuneError, 1),
        (NonFiniteLossError, 1),
        (LeaseLostError, 1),
        (CheckpointError, 1),
        (StorageAwayError, 1),
        (StorageLostError, 1),
        (TestSplitClosedError, 1),
        (StudyPausedError, 4),
        (KeyboardInterrupt, 130),
        (click.Abort, 130),
        (ValueError, 1),
        (BrokenPipeError, 0),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
    code: int,
) -> None:
    def fail() -> None:
        raise error("what is\nwrong")

    monkeypatch.setattr(cli.commands["studies"], "callback", fail)
    monkeypatch.setattr(cli.commands["studies"], "params", [])
    if error is BrokenPipeError:
        # The entry point closes stderr, which here belongs to all tests.
        monkeypatch.setattr("sys.stderr", io.StringIO())
    assert exit_code("studies") == code
    shown = capsys.readouterr()
    assert shown.out == ""
    # Click ends the terminal's line after ^C.
    assert len(shown.err.strip().splitlines()) == (0 if error is BrokenPipeError else 1)
    assert "Traceback" not in shown.err
    if issubclass(error, (SkdtuneError, ValueError)):
        assert "what is wrong" in shown.err


def test_every_error_of_the_package_is_tested_here() -> None:
    def below(error: type[SkdtuneError]) -> set[type[SkdtuneError]]:
        return {error}.union(*(below(inner) for inner in error.__subclasses__()))

    (mark,) = [
        mark
        for mark in test_every_error_has_its_exit_code_and_one_line.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    ours = {error for error in below(SkdtuneError) if error.__module__.startswith("skdtune")}
    assert ours <= {error for error, _ in mark.args[1]}


# Documentation: every command line that it shows


DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "storage/README.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("**/*.md"))),
]

#: How a command line begins: at a prompt or not, from the environment, or in the container.
START = re.compile(
    r"^(?:\$ +)?(?:[A-Z_]+=\S+ +)*"
    r"(?:(?:\S*/)?skdtune|(?:\S*/)?python3? -m skdtune"
    r"|docker compose (?:--profile \S+ )*run (?:-[-\w]+ )*driver) +(?P<rest>.+)$"
)
ENDS = {"|", ">", ">>", "&&", "||", ";", "&", "<"}


def command_lines(markdown: str) -> Iterator[str]:
    """Find what comes after ``skdtune`` in code blocks and in code within a line."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", markdown, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```[^\n]*\n.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline]:
        found = START.match(line.strip())
        if found and not found["rest"].startswith(("is ", "has ")):
            yield found["rest"]


def arguments_of(line: str) -> list[str]:
    """Split a command line up to its comment, its pipe or the next command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if word in ENDS or word == "...":
            break
        # A variable of its own stands for any number of options.
        if not re.fullmatch(r"\$\w+", word):
            found.append("1" if word in ("N", "TRIAL") else word)
    return found


SHOWN = [
    pytest.param(document, line, id=f"{document}: {line}")
    for document in DOCUMENTS
    if (ROOT / document).is_file()
    for line in dict.fromkeys(command_lines((ROOT / document).read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("document", "line"), SHOWN)
def test_a_command_line_of_the_documentation_exists(
    monkeypatch: pytest.MonkeyPatch, document: str, line: str
) -> None:
    reached = parse(monkeypatch, arguments_of(line))
    assert reached, f"{document} shows `skdtune {line}`"
    # That page brings presets of its own along; test_extending.py runs its commands.
    if reached == "create-study" and document != "docs/extending.md":
        check_study(arguments_of(line))


def parse(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> str:
    """Parse a command line completely, run nothing, and return the command it reached."""
    reached: list[str] = []

    def note(command: click.Command, context: click.Context) -> None:
        if not isinstance(command, click.Group):
            reached.append(context.command_path.removeprefix("skdtune "))

    monkeypatch.setattr(click.Command, "invoke", note)
    try:
        code = cli.main(arguments, prog_name="skdtune", standalone_mode=False)
    except click.NoSuchOption as error:
        raise AssertionError(error.format_message()) from None
    except click.UsageError as error:
        # Prose names a command without what it works on: `skdtune best`.
        if len(arguments) == 1 and "Missing argument" in error.format_message():
            return arguments[0]
        raise
    return reached[-1] if reached else "help" if code == 0 else ""


def check_study(arguments: list[str]) -> None:
    """Check that a preset exists, with the settings that are laid on it."""
    name = next((word for word in arguments[1:] if not word.startswith("-")), None)
    if name is None or name != name.lower() or "$" in name or name.endswith(".yaml"):
        return
    assert find(name).path.stem == name
    settings = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--set"]
    if name.startswith("imagefolder"):
        settings = ["data.root=/data", *settings]
    if is_family(name):
        assert len(load_family(name, overrides=settings)) > 1
        return
    if name.endswith("tfkd-self"):
        # The file that it names is made by the command before.
        settings = [f"method.tf_kd_self.teacher_sha256={'a' * 64}", *settings]
    assert load_spec(name, overrides=settings).num_trials > 0


def test_the_documentation_shows_command_lines() -> None:
    assert len(SHOWN) > 10


@pytest.mark.parametrize(
    ("markdown", "lines"),
    [
        ("```sh\nskdtune status --watch  # look\n```", [["status", "--watch"]]),
        ("```\n$ skdtune best x | head\n```", [["best", "x"]]),
        ("```\n.venv/bin/skdtune trials x --json > x.json\n```", [["trials", "x", "--json"]]),
        (
            "    text\n  ```console\n  skdtune worker \\\n    x --drain\n  ```",
            [["worker", "x", "--drain"]],
        ),
        ("run `skdtune launch\nx`, then", [["launch", "x"]]),
        (
            "```\ndocker compose run --rm --no-deps driver storage upgrade\n```",
            [["storage", "upgrade"]],
        ),
        ("```\nSKDTUNE_HOME=/x skdtune studies\n```", [["studies"]]),
        ("skdtune finds knobs. `import skdtune`", []),
        ("```\npip install skdtune\n```", []),
    ],
)
def test_command_lines_are_found_in_markdown(markdown: str, lines: list[list[str]]) -> None:
    assert [arguments_of(line) for line in command_lines(markdown)] == lines


@pytest.mark.parametrize(
    "line",
    [
        "stauts",
        "status --jsn",
        "create-study digits-dsr --dry",
        "storage reep",
        "dashboard --port many",
        "create-study",
        "best a b",
    ],
)
def test_a_wrong_command_line_in_the_documentation_would_be_found(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    if line == "create-study":
        assert parse(monkeypatch, [line]) == line
        return
    with pytest.raises((AssertionError, click.UsageError)):
        parse(monkeypatch, arguments_of(line))


def test_a_misspelt_preset_or_setting_in_the_documentation_would_be_found() -> None:
    for line in ("create-study digits-drs", "create-study digits-dsr --set optimizer.lrr=1"):
        with pytest.raises(SpecError):
            check_study(arguments_of(line))


# Any command line


@given(st.lists(st.sampled_from([*COMMANDS, "x", "--json", "-v", "--set", "a=1", "--", "-"])))
def test_no_order_of_words_ends_in_a_traceback(line: list[str]) -> None:
    """Parse what a person may type; only parsing, so that nothing runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", lambda command, context: None)
        patch.setattr("sys.stderr", io.StringIO())
        patch.setattr("sys.stdout", io.StringIO())
        assert exit_code(*line) in (0, 2)


def test_what_a_person_wrote_is_never_read_as_markup(run_cli: Callable[..., Any]) -> None:
    description = "[/red] [bold]loud[/bold] :smile:"
    made = run_cli("create-study", "digits-dsr", "--set", f"description='{description}'")
    assert made.returncode == 0, made.stderr
    shown = run_cli("status")
    assert shown.returncode == 0, shown.stderr
    assert description in shown.stdout


def test_quiet_says_nothing_where_all_is_well(run_cli: Callable[..., Any]) -> None:
    made = run_cli("-q", "create-study", "digits-dsr")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")

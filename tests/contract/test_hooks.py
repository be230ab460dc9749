"""What every hook of the catalogue promises, and that one of an installed package runs."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from throwaway_package import Site

from skdtune.catalogues.catalogue import Catalogue
from skdtune.catalogues.hooks import HOOKS
from skdtune.describe.named_hooks import require_offered
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse, spec_from_json
from skdtune.errors import InputError, SpecError
from skdtune.queue.stored_study import load_study
from skdtune.worker.hooks.hook import Hook
from skdtune.worker.hooks.named import hooks_of

RunCli = Callable[..., Any]

METHODS = [name for name, value in vars(Hook).items() if inspect.isfunction(value)]

TINY = (
    "data.max_per_class=20",
    "model={name: resnet8, width: 4, precision: float32}",
    "budget.epochs=2",
    "pruner={name: none}",
)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_answers_when_it_is_called(name: str) -> None:
    made: Any = HOOKS[name]
    assert issubclass(made, Hook)
    assert made.__doc__
    assert {"__enter__", "starts", "attributes", "ended"} <= set(METHODS)
    for method in METHODS:
        if method != "__init__":
            assert inspect.signature(getattr(made, method)) == inspect.signature(
                getattr(Hook, method)
            )
    # An attempt is all that it is made of.
    _, attempt, *others = inspect.signature(made.__init__).parameters.values()
    assert attempt.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(other.default is not inspect.Parameter.empty for other in others)


def test_the_built_in_hooks_come_first_and_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built_in = [HOOKS[name] for name in HOOKS if HOOKS.package(name) is None]
    assert hooks_of(()) == built_in
    offering(monkeypatch, note=Hook)
    assert hooks_of(()) == built_in
    assert hooks_of(("note",)) == [*built_in, Hook]


class Offering(Catalogue[Any]):
    """The hooks there are, and some that a package would offer."""

    def __init__(self, **offered: Any) -> None:
        names = [name for name in HOOKS if name not in HOOKS.offered]
        super().__init__("hook", {**{name: HOOKS[name] for name in names}, **offered})
        self._names = tuple(sorted(offered))

    @property
    def offered(self) -> tuple[str, ...]:
        return self._names


def offering(monkeypatch: pytest.MonkeyPatch, **offered: Any) -> None:
    catalogue = Offering(**offered)
    for module in ("skdtune.worker.hooks.named", "skdtune.describe.named_hooks"):
        monkeypatch.setattr(f"{module}.HOOKS", catalogue)


# What a study may name


def test_a_study_without_hooks_is_stored_as_before_there_were_any() -> None:
    spec = load_spec("digits-drg")
    assert spec.hooks == ()
    assert "hooks" not in json.loads(spec.to_json())["spec"]


def test_the_hooks_of_a_study_are_stored_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, note=Hook, other=Hook)
    spec = load_spec("digits-drg", overrides=["hooks=[other, note]"])
    assert spec.hooks == ("other", "note")
    assert spec_from_json(spec.to_json()) == spec
    assert spec.digest != load_spec("digits-drg").digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hooks=[log_lines]", "hooks: 'log_lines' is built in and accompanies every trial"),
        ("hooks=[note, note]", "hooks: 'note' is named twice"),
        ("hooks=[nota]", "hooks: 'nota' is offered by no installed package; offered: note"),
        ("hooks=note", "hooks: received 'note'"),
        ("hooks=[3]", "hooks.0: received 3"),
        ("search.hooks={type: choice, choices: [a]}", "no field 'hooks'"),
    ],
)
def test_a_wrong_hook_is_one_line(
    change: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, note=Hook)
    with pytest.raises(SpecError) as refused:
        load_spec("digits-drg", overrides=[change])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_where_nothing_is_offered_it_is_said_how_to_look() -> None:
    offered = ", ".join(HOOKS.offered) or r"none \(`skdtune extensions`\)"
    with pytest.raises(SpecError, match=f"mine: hooks: 'note' .* offered: {offered}"):
        require_offered(("note",), "mine")


def test_hooks_cannot_be_searched() -> None:
    raw = load_spec("digits-drg").model_dump(mode="json")
    search = {"hooks": {"type": "choice", "choices": ["a", "b"]}}
    with pytest.raises(SpecError, match=r"search.hooks: no such field"):
        parse(StudySpec, {**raw, "search": search}, "mine")


@pytest.mark.parametrize("entry", [int, len, 3])
def test_what_is_no_hook_is_refused_in_one_line(
    entry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, note=entry)
    with pytest.raises(InputError, match=r"the hook 'note' is none"):
        hooks_of(("note",))


def test_what_nobody_offers_is_refused_where_it_is_made() -> None:
    with pytest.raises(InputError) as refused:
        hooks_of(("note",))
    assert str(refused.value) == (
        "the study names the hook 'note', which no package on this machine offers; install it "
        "here, too, then `skdtune extensions` lists it"
    )


# One of an installed package

NOTES = """
from skdtune.worker.hooks.hook import Hook

class Notes(Hook):
    def __init__(self, attempt):
        self._attempt = attempt
        self._calls = []

    def __enter__(self):
        self._calls.append("enter")
        return self

    def starts(self):
        self._calls.append("starts")

    def reported(self, report):
        self._calls.append(f"epoch {report.epoch}")

    def trained(self, trainer, data):
        self._calls.append(f"trained {self._attempt.value():.4f}")

    def attributes(self, ending):
        return {"notes": self._calls, "ending": ending.kind.value}, {}

class Broken(Hook):
    def __init__(self, attempt):
        raise OSError("no connection")
"""


@pytest.fixture
def with_notes(tmp_path: Path, skdtune_home: Path) -> dict[str, str]:
    """Install a package with hooks and return the environment of a process that has it."""
    hooks = {"notes": "notes_of_trials:Notes", "broken": "notes_of_trials:Broken"}
    site = Site(tmp_path / "packages", skdtune_home)
    site.install("notes-of-trials", {"notes_of_trials.py": NOTES}, {"skdtune.hooks": hooks})
    return site.environment


def create(run_cli: RunCli, env: dict[str, str], hook: str) -> Any:
    settings = [word for change in (*TINY, f"hooks=[{hook}]") for word in ("--set", change)]
    options = ["--name", "tiny", "--trials", "1", *settings]
    return run_cli("create-study", "digits-baseline", *options, env=env)


def trial_0(home: Path) -> Any:
    # This process knows nothing of the package, and can look at the study all the same.
    url = f"sqlite:///{home / 'skdtune.db'}"
    with contextlib.closing(load_study("tiny", storage=url)) as stored:
        return stored.storage.get_all_trials(stored.study_id)[0]


def test_a_hook_of_an_installed_package_accompanies_the_trials_of_a_study_that_names_it(
    run_cli: RunCli, with_notes: dict[str, str], skdtune_home: Path
) -> None:
    created = create(run_cli, with_notes, "notes")
    assert created.returncode == 0, created.stderr
    # A machine without the package takes no trial.
    refused = run_cli("worker", "tiny", "--device", "cpu")
    assert refused.returncode == 2
    assert "it needs the package notes-of-trials 1.2 (hook notes)" in refused.stderr
    assert "which is not installed here: pip install 'notes-of-trials==1.2'" in refused.stderr
    assert trial_0(skdtune_home).state.name == "WAITING"
    worked = run_cli("worker", "tiny", "--device", "cpu", env=with_notes)
    assert worked.returncode == 0, worked.stderr
    trial = trial_0(skdtune_home)
    assert trial.state.name == "COMPLETE"
    assert trial.user_attrs["notes"] == [
        *["enter", "starts", "epoch 0", "epoch 1"],
        f"trained {trial.value:.4f}",
    ]
    assert trial.user_attrs["ending"] == "complete"
    assert {"peak_memory_mb", "network_sha256"} <= set(trial.user_attrs), "the built-in ones"


def test_a_hook_that_cannot_be_made_ends_the_worker_and_gives_the_trial_back(
    run_cli: RunCli, with_notes: dict[str, str], skdtune_home: Path
) -> None:
    assert create(run_cli, with_notes, "broken").returncode == 0
    worked = run_cli("worker", "tiny", "--device", "cpu", env=with_notes)
    assert worked.returncode == 1
    assert "no connection" in worked.stderr
    assert trial_0(skdtune_home).state.name == "WAITING"


def test_a_study_cannot_name_what_nobody_offers(run_cli: RunCli) -> None:
    refused = create(run_cli, {}, "notes")
    assert refused.returncode == 2
    assert "hooks: 'notes' is offered by no installed package" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

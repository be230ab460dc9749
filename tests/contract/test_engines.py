"""What every engine of the catalogue promises, with real workers of tiny studies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skdtune.catalogues.catalogue import Catalogue
from skdtune.catalogues.engines import ENGINES
from skdtune.describe.presets import load_spec
from skdtune.engines.engine import Engine, Job, Placement
from skdtune.engines.named import DEFAULT_ENGINE, engine_named
from skdtune.errors import InputError
from skdtune.queue import leases
from skdtune.queue.stored_study import StoredStudy, create_study, load_study

TINY = (
    "data.max_per_class=20",
    "data.batch_size=32",
    "model.width=4",
    "model.precision=float32",
    "pruner={name: none}",
)
#: So many epochs never end within a test.
ENDLESS = 20000

MakeStudy = Callable[..., StoredStudy]
Make = Callable[..., Engine]

over_all_engines = pytest.mark.parametrize("name", ENGINES)


@pytest.fixture
def make_study(sqlite_url: str) -> Iterator[MakeStudy]:
    opened: list[StoredStudy] = []

    def make(epochs: int, num_trials: int) -> StoredStudy:
        overrides = [*TINY, f"budget.epochs={epochs}"]
        spec = load_spec(
            "digits-baseline", overrides=overrides, name="tiny", num_trials=num_trials
        )
        create_study(spec, storage=sqlite_url)
        opened.append(load_study("tiny", storage=sqlite_url))
        return opened[-1]

    yield make
    for stored in opened:
        stored.close()


@pytest.fixture
def make(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make an engine for a study as `launch` does; no trial comes back because a lease ran out."""
    monkeypatch.setenv("SKDTUNE_LEASE_SECONDS", "3600")
    made: list[Engine] = []

    def make_engine(name: str, workers: int, stored: StoredStudy | None = None) -> Engine:
        def give_back(token: str) -> None:
            assert stored is not None
            leases.reap_worker(stored.engine, stored.study_id, token)

        environment = {
            "SKDTUNE_STORAGE": sqlite_url,
            "SKDTUNE_SUPERVISED": str(os.getpid()),
            "SKDTUNE_CHECKPOINTS": str(tmp_path / "checkpoints"),
        }
        job = Job(
            study="tiny",
            environment=environment,
            log_dir=tmp_path / "logs",
            give_back=give_back,
        )
        made.append(engine_named(name)(job, Placement(gpus="none", workers=workers)))
        return made[-1]

    yield make_engine
    for engine in made:
        engine.kill()


def states(stored: StoredStudy) -> list[str]:
    trials = stored.storage.get_all_trials(stored.study_id)
    return [trial.state.name for trial in trials]


def num_training(stored: StoredStudy) -> int:
    """Count the trials that have finished an epoch and still are somebody's."""
    trials = stored.storage.get_all_trials(stored.study_id)
    return sum(
        trial.state.name == "RUNNING" and bool(trial.intermediate_values) for trial in trials
    )


def follow(engine: Engine, until: Callable[[], Any] | None = None) -> None:
    """Poll an engine until something is so; by default until its workers are gone."""
    deadline = time.monotonic() + 90
    while engine.poll() if until is None else not until():
        assert time.monotonic() < deadline, engine.failures()
        if until is not None:
            assert engine.poll(), engine.failures()
        time.sleep(0.05)


@over_all_engines
def test_an_engine_is_what_it_says(name: str) -> None:
    made = engine_named(name)
    promised = {word for word in vars(Engine) if not word.startswith("_")}
    assert {"start", "poll", "scale", "drain", "kill", "slots", "failures"} <= promised
    assert all(hasattr(made, word) for word in promised)
    assert all(getattr(made, word).__doc__ for word in promised)


@over_all_engines
def test_places_are_told_without_starting_anything(name: str, make: Make, tmp_path: Path) -> None:
    engine = make(name, 2)
    slots = engine.slots()
    assert [slot.index for slot in slots] == [0, 1]
    assert all(slot.device and slot.label for slot in slots)
    assert (engine.num_workers, engine.num_restarts, engine.stopping) == (0, 0, False)
    assert engine.failures() == []
    assert not (tmp_path / "logs").exists()


@over_all_engines
def test_workers_train_a_study_to_its_end(name: str, make: Make, make_study: MakeStudy) -> None:
    stored = make_study(1, 3)
    engine = make(name, 2, stored)
    engine.start()
    assert engine.num_workers == 2
    follow(engine)
    assert states(stored) == ["COMPLETE"] * 3
    assert (engine.failures(), engine.num_restarts, engine.stopping) == ([], 0, False)
    assert engine.num_workers == 2
    assert engine.where_logs
    engine.kill()
    assert not engine.poll()


@over_all_engines
def test_drained_workers_finish_the_trial_in_hand(
    name: str, make: Make, make_study: MakeStudy
) -> None:
    stored = make_study(60, 2)
    engine = make(name, 1, stored)
    engine.start()
    follow(engine, lambda: num_training(stored) == 1)
    engine.drain()
    assert engine.stopping
    follow(engine)
    assert states(stored) == ["COMPLETE", "WAITING"]
    assert engine.failures() == []


@over_all_engines
def test_interrupted_workers_give_their_trials_back(
    name: str, make: Make, make_study: MakeStudy
) -> None:
    stored = make_study(ENDLESS, 2)
    engine = make(name, 1, stored)
    engine.start()
    follow(engine, lambda: num_training(stored) == 1)
    engine.interrupt()
    assert engine.stopping
    follow(engine)
    assert states(stored) == ["WAITING", "WAITING"]
    assert engine.failures() == []


@over_all_engines
def test_there_may_be_more_workers_and_the_trials_of_killed_ones_wait_at_once(
    name: str, make: Make, make_study: MakeStudy
) -> None:
    stored = make_study(ENDLESS, 2)
    engine = make(name, 1, stored)
    engine.start()
    engine.scale(2)
    assert engine.num_workers == 2
    follow(engine, lambda: num_training(stored) == 2)
    engine.scale(1)
    assert engine.num_workers == 1
    assert num_training(stored) == 2, "the surplus one finishes its trial"
    engine.kill()
    assert not engine.poll()
    assert states(stored) == ["WAITING", "WAITING"]
    assert leases.holders(stored.engine, stored.study_id) == []


# What is no engine


def test_the_default_engine_is_in_the_catalogue() -> None:
    assert DEFAULT_ENGINE in ENGINES


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no engine is called 'moon'; there are: local"):
        engine_named("moon")


class NoEngine:
    """Starts, and that is all."""

    def start(self) -> None: ...


@pytest.mark.parametrize(
    ("entry", "reason"),
    [(NoEngine, "it lacks num_workers, "), (len, "it lacks "), (3, "it lacks")],
)
def test_what_is_no_engine_is_refused_in_one_line(
    entry: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue: Catalogue[Any] = Catalogue("engine", {"moon": entry})
    monkeypatch.setattr("skdtune.engines.named.ENGINES", catalogue)
    with pytest.raises(InputError, match=f"the engine 'moon' is none: {reason}") as refused:
        engine_named("moon")
    assert "\n" not in str(refused.value)


def test_launch_refuses_an_unknown_engine_before_anything_else(run_cli: Any) -> None:
    refused = run_cli("launch", "no-such-study", "--engine", "moon")
    assert refused.returncode == 2
    assert refused.stderr == "skdtune: no engine is called 'moon'; there are: local\n"

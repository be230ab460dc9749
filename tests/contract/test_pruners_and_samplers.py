"""What every pruner and sampler of the catalogues promises, and that one more is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from skdtune.catalogues.pruners import PRUNERS
from skdtune.catalogues.samplers import SAMPLERS
from skdtune.describe.presets import load_spec
from skdtune.describe.pruner_settings import PrunerSettings
from skdtune.describe.sampler_settings import SamplerSettings
from skdtune.describe.spec import StudySpec, parse, spec_from_json
from skdtune.errors import SpecError

EPOCHS = 27


def pruner_of(name: str) -> PrunerSettings:
    return load_spec("digits-drg", overrides=[f"pruner.name={name}"]).pruner


def sampler_of(name: str) -> SamplerSettings:
    return load_spec("digits-drg", overrides=[f"sampler.name={name}"]).sampler


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_says_when_it_judges_before_it_is_built(name: str) -> None:
    pruner = pruner_of(name)
    assert (type(pruner), pruner.name) == (PRUNERS[name], name)
    for rungs in pruner.brackets(EPOCHS):
        assert list(rungs) == sorted(set(rungs))
        assert all(1 <= rung < EPOCHS for rung in rungs)
    judged = {rung for rungs in pruner.brackets(EPOCHS) for rung in rungs}
    assert pruner.judged_epochs(EPOCHS) == judged


@pytest.mark.parametrize("name", PRUNERS)
def test_the_first_judgement_is_a_field_that_moves_the_first_rung(name: str) -> None:
    pruner = pruner_of(name)
    if pruner.first_judgement is None:
        return
    later = pruner.model_copy(update={pruner.first_judgement: 7})
    assert getattr(pruner, pruner.first_judgement) is None
    assert min(later.judged_epochs(EPOCHS)) == 7


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_judges_in_a_study_and_its_marks_can_be_taken_back(name: str) -> None:
    """Of trials that get better and better none is pruned; what marks the rungs leave is known."""
    pruner = pruner_of(name)
    study = optuna.create_study(direction="maximize", pruner=pruner.build(EPOCHS))
    for number in range(8):
        trial_id = study.ask()._trial_id
        for epoch in range(EPOCHS):
            study._storage.set_trial_intermediate_value(trial_id, epoch, number + 1.0)
            if epoch + 1 in pruner.judged_epochs(EPOCHS):
                assert not study.pruner.prune(study, study._storage.get_trial(trial_id))
        trial = study._storage.get_trial(trial_id)
        marks = set(trial.system_attrs)
        assert set(pruner.rung_marks_beyond(study, trial, EPOCHS, 0)) == marks
        assert pruner.rung_marks_beyond(study, trial, EPOCHS, EPOCHS) == []
        study.tell(number, number + 1.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_proposes_by_the_seed_of_the_study_and_the_number_of_the_trial(
    name: str,
) -> None:
    sampler = sampler_of(name)
    assert (type(sampler), sampler.name) == (SAMPLERS[name], name)

    def proposal(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=sampler.build(seed, number))
        return study.ask().suggest_float("x", 0, 1)

    assert proposal(0, 3) == proposal(0, 3)
    assert len({proposal(seed, number) for seed in (0, 1) for number in (3, 4)}) == 4


@pytest.mark.parametrize(
    ("section", "name"),
    [*(("pruner", name) for name in PRUNERS), *(("sampler", name) for name in SAMPLERS)],
)
def test_a_study_with_it_is_read_back_as_it_was_stored(section: str, name: str) -> None:
    spec = load_spec("digits-drg", overrides=[f"{section}.name={name}"])
    again = spec_from_json(spec.to_json())
    assert (again, again.digest) == (spec, spec.digest)


ONE_MORE = """
from typing import Literal
from skdtune.describe.pruner_settings import PrunerSettings
from skdtune.describe.sampler_settings import SamplerSettings

class OncePruner(PrunerSettings):
    first_judgement = "after_epochs"
    name: Literal["once"]
    after_epochs: int | None = None

    def brackets(self, epochs):
        return ((self.after_epochs or 1,),)

    def build(self, epochs):
        from optuna.pruners import ThresholdPruner
        return ThresholdPruner(lower=0.2)

class GridConfig(SamplerSettings):
    name: Literal["grid"]
    points: tuple[int, ...] = (1, 2)

    def build(self, study_seed, number):
        from optuna.samplers import RandomSampler
        return RandomSampler(seed=number)
"""

#: Two lines more in the catalogues, and what they bring.
WITH_ONE_MORE = """
import sys
from skdtune.catalogues.pruners import PRUNERS
from skdtune.catalogues.samplers import SAMPLERS
PRUNERS.built_in["once"] = "one_more:OncePruner"
SAMPLERS.built_in["grid"] = "one_more:GridConfig"
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import spec_from_json
from skdtune.errors import SpecError
changes = ["pruner.name=once", "sampler={name: grid, points: [3]}", "optimizer.schedule=multistep"]
spec = load_spec("digits-drg", overrides=changes)
assert "optuna" not in sys.modules
assert spec_from_json(spec.to_json()) == spec
print(spec.pruner.name, spec.sampler.points, spec.effective_pruner.judged_epochs(12))
print(type(spec.pruner.build(12)).__name__, type(spec.sampler.build(0, 1)).__name__)
for wrong in ("pruner.after_epoch=1", "pruner.after_epochs=x", "sampler={name: grid, points: x}"):
    try:
        load_spec("digits-drg", overrides=["pruner.name=once", wrong])
    except SpecError as error:
        print(error)
"""


def run(code: str, folder: Path) -> list[str]:
    path = f"{folder}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_more_is_one_file_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "one_more.py").write_text(ONE_MORE)
    shown = run(WITH_ONE_MORE, tmp_path)
    first = load_spec("digits-drg", overrides=["optimizer.schedule=multistep"])
    drop = min(first.optimizer.drop_epochs(12))
    assert shown[:2] == [f"once (3,) frozenset({{{drop + 1}}})", "ThresholdPruner RandomSampler"]
    unknown, not_int, not_points = shown[2:]
    assert "pruner.after_epoch: unknown key; did you mean 'pruner.after_epochs'?" in unknown
    assert "pruner.after_epochs: received 'x'" in not_int
    assert "sampler.points: received 'x'" in not_points


@pytest.mark.parametrize(
    "module",
    [
        *(PRUNERS[name].__module__ for name in PRUNERS),
        *(SAMPLERS[name].__module__ for name in SAMPLERS),
        "skdtune.describe.search_choices",
    ],
)
def test_the_settings_can_be_imported_first_and_without_optuna(
    tmp_path: Path, module: str
) -> None:
    code = f"import sys, {module}; print('optuna' in sys.modules, 'torch' in sys.modules)"
    assert run(code, tmp_path) == ["False False"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sampler.name=bayes"], "sampler: received 'bayes': must be one of 'tpe', 'random'"),
        (["sampler=random"], "sampler: received 'random': must be an object"),
        (["sampler.num_startup_trials=-1"], "sampler.num_startup_trials: received -1"),
        (["sampler={name: tpe, num_startup_trail: 1}"], "sampler.num_startup_trail: unknown key"),
        (["pruner.name=ashaa"], "pruner: received 'ashaa': must be one of 'none', 'median'"),
    ],
)
def test_a_wrong_choice_is_one_line(changes: list[str], message: str) -> None:
    with pytest.raises(SpecError, match="digits-drg") as refused:
        load_spec("digits-drg", overrides=changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sampler_without_a_name_is_the_default_one() -> None:
    raw = load_spec("digits-drg").model_dump(mode="json")
    spec = parse(StudySpec, {**raw, "sampler": {"num_startup_trials": 3}}, "mine")
    assert spec.sampler.model_dump() == {"name": "tpe", "num_startup_trials": 3}
    del raw["sampler"]
    assert parse(StudySpec, raw, "mine").sampler == SAMPLERS["tpe"]()

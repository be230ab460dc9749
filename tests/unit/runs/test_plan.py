"""What a run is called and known by, and that its configuration says all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from skdtune.describe.config import TrialConfig
from skdtune.describe.preset_folder import FAMILY_KEY, list_presets
from skdtune.describe.presets import Changes, find, load_single, resolve
from skdtune.errors import SpecError
from skdtune.runs.plan import RunPlan, plan_of_trial, plan_run
from skdtune.runs.run_folder import RunFolder, config_text


def single_presets() -> list[str]:
    return [one.name for one in list_presets() if FAMILY_KEY not in resolve(find(one.name))]


def changes_of(preset: str, tmp_path: Path) -> Changes:
    """Return what a preset cannot do without."""
    needed = []
    if preset.endswith("tfkd-self"):
        (tmp_path / "teacher").write_bytes(b"no network, but a file")
        needed.append(f"method.tf_kd_self.teacher={tmp_path / 'teacher'}")
    if preset.startswith(("imagefolder", "imagenet1k")):
        needed.append(f"data.root={tmp_path}")
    return Changes(overrides=needed)


def test_the_configuration_of_every_preset_is_read_back_as_it_was(tmp_path: Path) -> None:
    presets = single_presets()
    assert len(presets) > 50
    for preset in presets:
        plan = plan_run(preset, changes_of(preset, tmp_path), seed=3)
        file = tmp_path / "config.yaml"
        file.write_text(config_text(plan))
        again = plan_run(str(file))
        assert again.config == plan.config, preset
        assert (again.digest, again.folder_name) == (plan.digest, plan.folder_name)


def test_a_run_is_its_preset_with_nothing_searched() -> None:
    plan = plan_run("digits-drg-dsr")
    base = load_single("digits-drg-dsr", Changes()).base_config()
    assert plan.config == base
    assert not plan.spec.search
    assert plan.config.seed == 0


def test_what_is_trained_decides_the_name_of_the_folder_and_nothing_else() -> None:
    plan, named = plan_run("digits-drg"), plan_run("digits-drg", name="mine")
    assert plan.digest == named.digest
    head, _, seed = plan.folder_name.rpartition("-seed")
    assert seed == "0"
    assert plan_run("digits-drg", seed=4).folder_name == f"{head}-seed4"
    others = [
        plan_run("digits-drg", epochs=13),
        plan_run("digits-drg", Changes(overrides=["optimizer.lr=0.05"])),
        RunPlan(spec=plan.spec, all_images=True),
    ]
    assert len({plan.folder_name, *(other.folder_name for other in others)}) == 4
    assert len({plan.digest, *(other.digest for other in others)}) == 4


@pytest.mark.parametrize(
    ("study", "name"),
    [
        ("cifar100-dsr", "cifar100-dsr-trial-17"),
        ("what / is: this?", "what---is--this--trial-17"),
        ("é" * 200, "-trial-17"),
    ],
)
def test_a_trial_of_any_study_has_a_name_for_its_run(study: str, name: str) -> None:
    config: TrialConfig = plan_run("digits-drg", seed=2**31 - 1).config
    if study.startswith("é"):
        name = "trial-17"
    plan = plan_of_trial(config, Changes(), study=study, number=17, spec_hash="abc")
    assert plan.spec.name == name
    assert plan.config == config
    assert plan.origin == {"study": study, "trial": 17, "spec_hash": "abc"}


def test_a_planned_budget_gives_way_to_epochs_that_are_asked_for() -> None:
    budget = {"images": 6000, "epochs": 5, "planned": True}
    config = plan_run("digits-drg").config
    planned = TrialConfig.model_validate({**config.model_dump(), "budget": budget})
    settings = {"study": "tiny", "number": 0, "spec_hash": ""}
    assert plan_of_trial(planned, Changes(), **settings).config == planned
    longer = plan_of_trial(planned, Changes(), epochs=30, **settings).config.budget
    assert (longer.epochs, longer.images, longer.planned) == (30, None, False)


def test_a_length_that_does_not_fit_the_schedule_is_refused() -> None:
    changes = Changes(overrides=["optimizer.warmup_epochs=5"])
    with pytest.raises(SpecError, match=r"warmup_epochs must be below budget\.epochs \(5\)"):
        plan_run("digits-drg", changes, epochs=5)


def test_a_run_of_another_version_is_still_told_apart(tmp_path: Path) -> None:
    plan, folder = plan_run("digits-drg"), RunFolder(tmp_path)
    folder.write_json("run.json", {"run_hash": "of another time", "all_images": False})
    with pytest.raises(Exception, match="holds another run: another configuration"):
        folder.require_for(plan)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 9}))
    with pytest.raises(Exception, match=r"another run: budget\.epochs is None there, not 12"):
        folder.require_for(plan)

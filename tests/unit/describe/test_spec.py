"""The study spec: its stored form and hash, trial 0, its checks, and the seeds of its trials."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skdtune.describe.dotted import flatten, put
from skdtune.describe.identity import derive_seed
from skdtune.describe.preset_folder import list_presets
from skdtune.describe.presets import is_family, load_spec
from skdtune.describe.spec import StudySpec, fill_stages, parse, spec_from_json
from skdtune.errors import SpecError

PRESETS = [preset.name for preset in list_presets() if not is_family(preset.name)]

presets = st.sampled_from(PRESETS)
changes = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "description": st.text(max_size=20),
        "num_trials": st.integers(1, 1000),
        "seed": st.integers(0, 2**31 - 1),
        "optimizer.lr": st.floats(0.01, 0.5),
        "optimizer.milestones": st.lists(st.floats(0.1, 0.9), max_size=3),
        "data.max_per_class": st.none() | st.integers(2, 100),
        "objective.window_epochs": st.integers(1, 12),
        "pruner": st.sampled_from(
            [{"name": "none"}, {"name": "asha"}, {"name": "hyperband", "reduction_factor": 2}]
        ),
        "sampler.name": st.sampled_from(["tpe", "random"]),
        "enqueue": st.lists(st.fixed_dictionaries({"optimizer.lr": st.floats(0.01, 0.5)})),
    },
)


@lru_cache
def load(preset: str) -> StudySpec:
    return load_spec(preset, overrides=needed(preset))


def needed(preset: str) -> list[str]:
    """Return settings for what a preset cannot bring along: a folder of images, a teacher."""
    settings = ["data.root=/images"] if preset.startswith(("imagefolder", "imagenet1k")) else []
    if preset.endswith("tfkd-self"):
        teacher = "method.tf_kd_self.teacher"
        settings += [f"{teacher}=/teacher.safetensors", f"{teacher}_sha256={'a' * 64}"]
    return settings


def raw_spec(preset: str = "digits-drg-dsr") -> dict[str, Any]:
    return load(preset).model_dump(mode="json")


def read(path: str, value: Any, preset: str = "digits-drg-dsr") -> StudySpec:
    return parse(StudySpec, put(raw_spec(preset), path, value), "test")


@st.composite
def specs(draw: st.DrawFn) -> StudySpec:
    raw = raw_spec(draw(presets))
    for path, value in draw(changes).items():
        raw = put(raw, path, value)
    return parse(StudySpec, raw, "drawn")


# The stored form


@given(specs())
def test_a_spec_reads_back_as_it_was_written(spec: StudySpec) -> None:
    again = spec_from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert again.digest == spec.digest
    assert list(again.search) == list(spec.search)


@given(specs(), st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_the_order_of_keys(
    spec: StudySpec, shuffler: random.Random
) -> None:
    shuffled = _shuffled(json.loads(spec.to_json()), shuffler)
    assert spec_from_json(json.dumps(shuffled)).digest == spec.digest


def _shuffled(value: Any, shuffler: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = list(value)
    shuffler.shuffle(keys)
    return {key: _shuffled(value[key], shuffler) for key in keys}


def test_the_hash_is_the_same_in_another_process() -> None:
    program = (
        "from skdtune.describe.presets import load_spec; print(load_spec('digits-drg-dsr').digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {load("digits-drg-dsr").digest}


@given(specs(), specs())
def test_specs_have_one_hash_if_and_only_if_they_are_equal(
    one: StudySpec, other: StudySpec
) -> None:
    assert (one.digest == other.digest) == (one == other)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("num_trials", 25),
        ("data.split_seed", 1),
        ("optimizer.lr", 0.2),
        ("search.optimizer.lr.high", 0.4),
        ("search.optimizer.lr.reason", "another"),
        ("pruner.reduction_factor", 6),
        ("enqueue", [{"optimizer.lr": 0.2}]),
    ],
)
def test_any_change_gives_another_hash(path: str, value: Any) -> None:
    assert read(path, value).digest != load("digits-drg-dsr").digest


def test_the_hash_is_16_hexadecimal_digits() -> None:
    digest = load("digits-drg-dsr").digest
    assert len(digest) == 16
    assert int(digest, 16) >= 0


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "1", "null", "{}", '{"format": 1}', "[" * 100_000],
    ids=lambda text: text[:12],
)
def test_a_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="the stored text is not a study spec"):
        spec_from_json(text)


def test_a_spec_of_a_newer_format_is_refused_with_the_remedy() -> None:
    content = {**json.loads(load("digits-dsr").to_json()), "format": 2}
    with pytest.raises(SpecError, match="spec format 2, this version reads 1: upgrade skdtune"):
        spec_from_json(json.dumps(content))


# Trial 0


@pytest.mark.parametrize("preset", PRESETS)
def test_trial_0_is_the_base_configuration(preset: str) -> None:
    spec = load(preset)
    params = spec.base_params()
    config = spec.trial_config(params, 0)
    assert config.model_copy(update={"seed": spec.seed}) == spec.base_config()
    for path, param in spec.search.items():
        assert (path in params) == param.is_active(params)


def test_trial_0_leaves_out_what_its_own_choice_switches_off() -> None:
    params = load("digits-drg").base_params()
    assert params["method.drg.stages"] == "2"
    assert "method.drg.teacher" not in params
    several = read("method.drg.stages", [1, 2], "digits-drg").base_params()
    assert several["method.drg.stages"] == "1+2"
    assert several["method.drg.teacher"] == "mean_probs"


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("optimizer.lr", 0.6, "0.6"),
        ("method.drg.weight", 0.001, "0.001"),
        ("search.method.drg.stages.of", [1], "2"),
        ("search.method.dsr.pairing.choices", ["batch_mean"], "row"),
    ],
)
def test_a_base_value_outside_of_its_range_is_refused(path: str, value: Any, shown: str) -> None:
    with pytest.raises(SpecError, match=f"trial 0 would try {shown}, which lies outside") as error:
        read(path, value)
    parameter = path.removeprefix("search.").removesuffix(".of").removesuffix(".choices")
    assert f"test: {parameter}: " in str(error.value)
    assert f"search.{parameter}=null" in str(error.value)


# Checks across fields


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "search",
            {"optimizer.lrr": {"type": "float", "low": 1, "high": 2}},
            r"search\.optimizer\.lrr: no such field; did you mean 'optimizer\.lr'\?",
        ),
        (
            "search",
            {"seed": {"type": "int", "low": 1, "high": 2}},
            r"search\.seed: no such field",
        ),
        (
            "search",
            {"budget.epochs": {"type": "int", "low": 1, "high": 2}},
            r"search\.budget\.epochs: cannot be searched",
        ),
        (
            "search",
            {"data.val_fraction": {"type": "float", "low": 0.1, "high": 0.2}},
            r"search\.data\.val_fraction: cannot be searched",
        ),
        (
            "search",
            {
                "model.name": {"type": "choice", "choices": ["resnet18", "resnet8"]},
                "method.drg.stages": {"type": "stages", "of": [2, 3]},
            },
            r"search\.method\.drg\.stages: the value '3' is not valid: .*resnet8 has 3 stages",
        ),
        (
            "search.method.drg.stages.of",
            [],
            r"search\.method\.drg\.stages: it leaves nothing to choose from",
        ),
        (
            "search",
            {"optimizer.momentum": {"type": "float", "low": 0.5, "high": 1.5}},
            r"search\.optimizer\.momentum: the value 1\.5 is not valid: .*less than 1",
        ),
        (
            "search",
            {"data.batch_size": {"type": "float", "low": 16, "high": 64}},
            r"search\.data\.batch_size: the value 16\.0 is not valid: .*valid integer",
        ),
        (
            "search",
            {"optimizer.lr": {"low": 0.5, "high": 0.1}},
            r"search\.optimizer\.lr: low must be below high, received low=0\.5 and high=0\.1",
        ),
        (
            "search.method.drg.stages.of",
            [2, 3],
            r"search\.method\.drg\.stages: the value '3' is not valid: .*resnet8 has 3 stages",
        ),
        (
            "method.drg",
            None,
            r"search\.method\.drg\.weight: method\.drg is switched off \(null\); drop .*=null",
        ),
        ("objective.window_epochs", 13, r"objective\.window_epochs: must be at most .*\(12\)"),
        ("pruner", {"name": "median", "warmup_epochs": 12}, "pruner: no rung lies before"),
        ("pruner", {"name": "asha", "min_epochs": 12}, "pruner: no rung lies before"),
        ("enqueue", [{"optimizer.lrr": 0.1}], r"enqueue: 'optimizer\.lrr' is not searched"),
        ("enqueue", [{"optimizer.lr": 9}], r"enqueue: optimizer\.lr=9 lies outside of"),
        ("name", "no spaces", "name: received 'no spaces'"),
        ("name", "../up", "name: received '../up'"),
        ("num_trials", 0, "num_trials: received 0"),
        ("seed", 2**31, "seed: received 2147483648"),
    ],
)
def test_a_contradiction_is_refused_by_its_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^test: {message}"):
        read(path, value)


def test_a_contradiction_between_parts_is_refused_in_one_line() -> None:
    raw = put(put(raw_spec(), "optimizer.lr", "a"), "optimizer.gamma", "b")
    with pytest.raises(SpecError, match=r"^test: optimizer\.lr: .* \(and 1 more\)$"):
        parse(StudySpec, raw, "test")


@given(
    st.sampled_from(["optimizer.lr", "search", "pruner", "method", "enqueue", "model.name"]),
    st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=4),
)
def test_no_value_is_too_strange_for_one_line(path: str, value: Any) -> None:
    assume(value not in ([], ()))
    with pytest.raises(SpecError, match=r"\Atest: .*\Z"):
        read(path, value)


def test_values_that_contain_themselves_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SpecError, match=r"^test: holds a value that is no plain data$"):
        read("optimizer.lr", endless)


def test_the_largest_cost_is_trials_times_epochs() -> None:
    assert read("num_trials", 7).max_epochs == 7 * 12


# Stages


@pytest.mark.parametrize(
    ("model", "stages"), [("resnet8", [1, 2]), ("resnet18", [1, 2, 3]), ("resnet50", [1, 2, 3])]
)
def test_a_choice_of_stages_ranges_over_all_that_the_backbone_offers(
    model: str, stages: list[int]
) -> None:
    raw = {"model": {"name": model}, "search": {"method.drg.stages": {"type": "stages"}}}
    assert fill_stages(raw)["search"]["method.drg.stages"]["of"] == stages


def test_a_choice_of_stages_that_names_its_own_keeps_them() -> None:
    param = {"type": "stages", "of": [1]}
    raw = {"model": {"name": "resnet18"}, "search": {"method.drg.stages": param}}
    assert fill_stages(raw) == raw


# Seeds


@given(st.integers(0, 2**31 - 1), st.text(), st.integers(0, 10**6))
def test_a_derived_seed_is_the_same_every_time(seed: int, word: str, number: int) -> None:
    derived = derive_seed(seed, word, number)
    assert derived == derive_seed(seed, word, number)
    assert 0 <= derived < 2**31


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(0, "trial", 0) == 1_192_658_259


def test_trials_have_seeds_of_their_own() -> None:
    spec = load("digits-dsr")
    seeds = [spec.trial_config({}, number).seed for number in range(300)]
    assert len(set(seeds)) == 300


def test_the_same_trial_of_two_studies_has_the_same_seed() -> None:
    one, other = load("digits-dsr"), load("digits-baseline")
    for number in (0, 1, 7):
        assert one.trial_config({}, number).seed == other.trial_config({}, number).seed


def test_studies_with_another_seed_have_other_trials() -> None:
    one, other = load("digits-dsr"), read("seed", 1, "digits-dsr")
    assert one.trial_config({}, 0).seed != other.trial_config({}, 0).seed


def test_what_a_seed_is_for_changes_it() -> None:
    seeds = {derive_seed(0, *words) for words in (("a",), ("b",), ("a", 0), ("a", 1), ())}
    assert len(seeds) == 5


def test_parameters_that_make_no_configuration_are_refused_by_the_number_of_their_trial() -> None:
    with pytest.raises(SpecError, match=r"^trial 3 of digits-dsr: optimizer\.lr: received -1"):
        load("digits-dsr").trial_config({"optimizer.lr": -1}, 3)


def test_a_trial_changes_its_parameters_and_nothing_else() -> None:
    spec = load("digits-dsr")
    config = flatten(spec.trial_config({"optimizer.lr": 0.25}, 5).model_dump(mode="json"))
    base = flatten(spec.base_config().model_dump(mode="json"))
    assert {path for path in config if config[path] != base[path]} == {"optimizer.lr", "seed"}


@given(
    pruner=st.sampled_from(["median", "asha", "hyperband"]),
    epochs=st.integers(3, 400),
    share=st.floats(0.01, 0.99),
)
def test_the_first_judgement_comes_right_after_the_first_drop_of_the_rate(
    pruner: str, epochs: int, share: float
) -> None:
    changed = {"optimizer.milestones": [share, 0.995], "pruner": {"name": pruner}}
    spec = with_changes({"budget.epochs": epochs, **changed})
    drop = min(spec.optimizer.drop_epochs(epochs))
    first = min(rungs[0] for rungs in spec.effective_pruner.brackets(epochs) if rungs)
    assert first == max(1, min(drop + 1, epochs - 1))


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband"])
@pytest.mark.parametrize(
    "changed",
    [
        {"optimizer.schedule": "cosine"},
        {"optimizer.milestones": []},
        {"search": {"optimizer.schedule": {"type": "choice", "choices": ["multistep", "cosine"]}}},
    ],
    ids=["cosine", "no milestones", "searched"],
)
def test_without_a_known_drop_a_pruner_keeps_its_own_first_judgement(
    pruner: str, changed: dict[str, Any]
) -> None:
    spec = with_changes({**changed, "pruner": {"name": pruner}})
    assert spec.effective_pruner == spec.pruner


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "median", "warmup_epochs": 7},
        {"name": "asha", "min_epochs": 7},
        {"name": "hyperband", "min_epochs": 7},
        {"name": "none"},
    ],
)
def test_a_first_judgement_that_was_set_is_kept(pruner: dict[str, Any]) -> None:
    spec = with_changes({"pruner": pruner})
    assert spec.effective_pruner == spec.pruner


def test_the_presets_judge_after_the_first_drop() -> None:
    for name in PRESETS:
        spec = load(name)
        epochs = spec.budget.epochs
        first = min(rungs[0] for rungs in spec.effective_pruner.brackets(epochs) if rungs)
        assert first == min(spec.optimizer.drop_epochs(epochs)) + 1


def with_changes(changed: dict[str, Any]) -> StudySpec:
    """Read a preset with some of its fields replaced, by dotted path."""
    raw = load("digits-dsr").model_dump(mode="json")
    for path, value in changed.items():
        raw = put(raw, path, value)
    return parse(StudySpec, raw, "test")


# Final evaluations


def evaluation(**changes: Any) -> StudySpec:
    content = load("digits-drg").model_dump(mode="json")
    content |= {
        "search": {},
        "pruner": {"name": "none"},
        "evaluation": {
            "source": "digits-drg",
            "lineage": "abc",
            "digest": "def",
            "trials": [7, 3],
            "params": [{"optimizer.lr": 0.3}, {"method.drg.stages": "1+2"}],
            **changes,
        },
    }
    return spec_from_json(json.dumps({"format": 1, "spec": content}))


def test_a_trial_of_an_evaluation_is_a_candidate_with_a_seed_that_all_studies_share() -> None:
    spec = evaluation()
    configs = [spec.trial_config({}, number) for number in range(4)]
    assert [config.optimizer.lr for config in configs] == [0.3, spec.optimizer.lr] * 2
    stages = [config.method.drg and config.method.drg.stages for config in configs]
    assert stages == [(2,), (1, 2)] * 2
    seeds = [derive_seed(0, "evaluation", index) for index in (0, 0, 1, 1)]
    assert [config.seed for config in configs] == seeds
    assert seeds[0] != seeds[2]


def test_an_evaluation_survives_its_storage() -> None:
    spec = evaluation()
    again = spec_from_json(spec.to_json())
    assert again == spec
    assert again.digest == spec.digest != evaluation(digest="other").digest


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"params": []}, "evaluation.params: expected 2 sets, one for each candidate, received 0"),
        ({"trials": [], "params": []}, "evaluation.trials: received"),
        ({"trials": [-1, 2]}, "evaluation.trials.0: received -1"),
    ],
)
def test_an_evaluation_that_names_no_candidates_is_refused(
    changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(SpecError) as refused:
        evaluation(**changes)
    assert part in str(refused.value)


def test_an_evaluation_searches_nothing() -> None:
    content = json.loads(evaluation().to_json())
    content["spec"]["search"] = {"optimizer.lr": {"type": "float", "low": 0.01, "high": 0.5}}
    with pytest.raises(SpecError, match="a final evaluation has no search space and no pruner"):
        spec_from_json(json.dumps(content))


def test_no_study_file_is_an_evaluation(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: digits-drg\nevaluation: {source: digits-drg}\n")
    with pytest.raises(SpecError, match="evaluation: only `skdtune evaluate` writes it"):
        load_spec(str(file))

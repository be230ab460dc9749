from __future__ import annotations

import pytest

from skdtune.describe.presets import Changes, load_changed, load_spec
from skdtune.describe.spec import StudySpec, spec_from_json
from skdtune.errors import SpecError


def changed(study: str, *, sets: list[str] | None = None, fixes: list[str]) -> StudySpec:
    (spec,) = load_changed(study, Changes(overrides=sets or [], fixed=fixes))
    return spec


def notes(
    study: str, *, sets: list[str] | None = None, fixes: list[str] | None = None
) -> list[str]:
    changes = Changes(overrides=sets or [], fixed=fixes or [])
    load_changed(study, changes)
    return changes.notes


def test_a_fixed_parameter_is_set_and_not_searched() -> None:
    spec = changed("digits-drg", fixes=["optimizer.lr=0.05", "method.drg.weight=3"])
    assert (spec.optimizer.lr, spec.method.drg.weight) == (0.05, 3.0)  # type: ignore[attr-defined]
    before = load_spec("digits-drg")
    gone = {"optimizer.lr", "method.drg.weight"}
    assert spec.search == {k: v for k, v in before.search.items() if k not in gone}
    assert spec.trial_config({}, 5).optimizer.lr == 0.05
    assert spec_from_json(spec.to_json()) == spec
    # What could be typed before, in two settings.
    nulls = ["optimizer.lr=0.05", "search.optimizer.lr=null"]
    fixed = changed("digits-drg", fixes=["optimizer.lr=0.05"])
    assert fixed == load_spec("digits-drg", overrides=nulls)


def test_to_fix_what_is_not_searched_is_to_set_it() -> None:
    fixes = ["budget.epochs=5", "pruner.name=none", "seed=3"]
    assert changed("digits-drg", fixes=fixes) == load_spec("digits-drg", overrides=fixes)
    assert notes("digits-drg", fixes=fixes) == []


def test_what_is_set_and_searched_all_the_same_is_said() -> None:
    said = notes("digits-drg", sets=["optimizer={lr: 0.05, momentum: 0.8}", "budget.epochs=9"])
    assert said == [
        "trial 0 starts from 0.05, and optimizer.lr is still searched over [0.01 to 0.5, log]; "
        "to keep it: --fix optimizer.lr=0.05"
    ]
    for word in ("[1, 2]", "1+2"):
        (said_of_stages,) = notes("digits-drg", sets=[f"method.drg.stages={word}"])
        assert said_of_stages.startswith("trial 0 starts from 1+2, and method.drg.stages is still")
        fixed = changed("digits-drg", fixes=[f"method.drg.stages={word}"])
        assert fixed.method.drg.stages == (1, 2)  # type: ignore[attr-defined]
    assert notes("digits-drg", sets=["search.optimizer.lr.low=0.05"]) == []
    # Of trial 0, which has one stage, it is no parameter.
    (inactive,) = notes("digits-drg", sets=["method.drg.teacher=mean_logits"])
    assert inactive.startswith("method.drg.teacher is still searched over [mean_probs | mean_log")


def test_conditions_stay_meaningful() -> None:
    """A teacher of several stages is searched where several are fixed, and nowhere else."""
    spec = changed("digits-drg", fixes=["method.drg.stages=[1, 2]"])
    assert "method.drg.stages" not in spec.search
    assert spec.base_params()["method.drg.teacher"] == "mean_probs"
    assert notes("digits-drg", fixes=["method.drg.stages=[1, 2]"]) == []
    fixes = ["method.drg.stages=2"]
    assert "method.drg.teacher" not in changed("digits-drg", fixes=fixes).search
    assert notes("digits-drg", fixes=fixes) == [
        "method.drg.teacher is not searched either: it matters only where method.drg.stages has "
        "at least 2 stages"
    ]


def test_what_hangs_on_a_parameter_that_is_gone_goes_too() -> None:
    chain = [
        "search.data.flip={type: choice, choices: [true, false], when: "
        "{method.drg.teacher: [mean_probs]}}",
        "search.optimizer.momentum={type: float, low: 0.5, high: 0.99, when: {data.flip: [true]}}",
    ]
    spec = changed("digits-drg", sets=chain, fixes=["method.drg.stages=[2]"])
    gone = {"method.drg.stages", "method.drg.teacher", "data.flip", "optimizer.momentum"}
    assert not gone & spec.search.keys()
    said = notes("digits-drg", sets=chain, fixes=["method.drg.stages=[2]"])
    assert [note.partition(" ")[0] for note in said] == [
        "method.drg.teacher",
        "data.flip",
        "optimizer.momentum",
    ]


def test_a_family_is_changed_as_one_and_told_once() -> None:
    changes = Changes(overrides=["optimizer.lr=0.05"], fixed=["optimizer.weight_decay=0.0001"])
    specs = load_changed("digits-compare", changes)
    assert len(specs) > 5
    assert {spec.optimizer.weight_decay for spec in specs} == {0.0001}
    assert all("optimizer.weight_decay" not in spec.search for spec in specs)
    assert len(changes.notes) == 1


@pytest.mark.parametrize(
    ("study", "fix", "message"),
    [
        ("digits-drg", "method.drg=null", "it has several searched fields; fix them one by one"),
        ("digits-drg", "search.optimizer.lr=0.1", "name the field itself, for example --fix opt"),
        ("digits-drg", "optimzer.lr=1", "--fix optimzer.lr: unknown key; did you mean 'optimi"),
        ("digits-drg", "optimizer.lr", "--fix optimizer.lr: expected key=value, for example"),
        ("digits-drg", "optimizer.lr=fast", "digits-drg.yaml with --fix: optimizer.lr: received"),
        ("digits-drg", "method.drg.stages=[7]", "digits-drg.yaml with --fix: "),
        ("digits-compare", "method.drg.weight=1", "--fix method.drg.weight: a family has several"),
    ],
)
def test_what_cannot_be_fixed_is_one_line(study: str, fix: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_changed(study, Changes(fixed=[fix]))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)

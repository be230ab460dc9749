import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from skdtune.describe.kinds.catalogue import KINDS, is_search, kind_of
from skdtune.describe.kinds.final_evaluation import EvaluationConfig, FinalEvaluation
from skdtune.describe.kinds.kind import Kind, note_row
from skdtune.describe.kinds.search import Search
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.errors import StudyError

SETTINGS = EvaluationConfig(
    source="tiny", lineage="abc", digest="def", trials=(7, 3), params=({"optimizer.lr": 0.3}, {})
)
EVALUATION = FinalEvaluation(SETTINGS)
ALL: list[Kind] = [Search(), EVALUATION]


@pytest.mark.parametrize("kind", ALL)
def test_a_kind_answers_everything_that_is_asked_of_one(kind: Kind) -> None:
    assert not inspect.isabstract(type(kind))
    for name in inspect.get_annotations(Kind):
        assert getattr(kind, name) is not None, name
    assert kind.default_trial([2, 0, 1]) in (0, 2)
    assert "tiny" in kind.result_command("tiny")


@pytest.mark.parametrize("field", KINDS)
def test_the_settings_of_a_kind_are_a_field_of_the_spec(field: str) -> None:
    assert field in StudySpec.model_fields
    assert not StudySpec.model_fields[field].is_required()


@pytest.mark.parametrize(("settings", "kind"), [({}, Search()), ({"evaluation": None}, Search())])
def test_a_spec_without_settings_of_a_kind_is_a_search(
    settings: Mapping[str, Any], kind: Kind
) -> None:
    assert kind_of(settings) == kind
    assert is_search(settings)
    assert load_spec("digits-drg").kind == kind


def test_an_evaluation_is_known_by_its_settings() -> None:
    assert kind_of({"evaluation": SETTINGS}) == EVALUATION
    assert not is_search({"evaluation": SETTINGS.model_dump()})


def test_a_search_is_judged_on_validation_images_and_its_best_is_picked() -> None:
    kind = Search()
    assert not kind.learns_from_all_images
    assert not kind.is_tested
    assert kind.params_of(4, {"a": 1}) == {"a": 1}
    assert kind.seed_of(4, 0) != kind.seed_of(5, 0)
    assert (kind.source, kind.candidates, kind.candidate_of(0)) == (None, (), None)
    assert kind.origin_of(3) == {}
    kind.require_picking("tiny")
    kind.require_evaluable("tiny")
    assert kind.default_trial([2, 0, 1]) == 2
    assert kind.made_by("tiny", 5, 12) is None


def test_the_published_setting_and_what_a_person_queued_are_never_pruned() -> None:
    kind = Search()
    assert kind.never_pruned(0, True) == kind.never_pruned(0, False) == "the published setting"
    assert kind.never_pruned(3, True) == "it was queued by hand"
    assert kind.never_pruned(3, False) == ""


def test_an_evaluation_learns_from_all_images_and_nothing_of_it_is_picked() -> None:
    assert EVALUATION.learns_from_all_images
    assert EVALUATION.is_tested
    assert [candidate.trial for candidate in EVALUATION.candidates] == [7, 3]
    assert EVALUATION.params_of(2, {}) == {"optimizer.lr": 0.3}
    assert EVALUATION.candidate_of(3).trial == 3
    assert EVALUATION.origin_of(3) == {"evaluated_trial": 3, "seed_index": 1}
    assert EVALUATION.seed_of(2, 0) == EVALUATION.seed_of(3, 99)
    assert EVALUATION.default_trial([2, 0, 1]) == 0
    assert EVALUATION.tried_paths({}) == ["optimizer.lr"]
    with pytest.raises(StudyError, match="of which none is picked: skdtune evaluate tiny shows"):
        EVALUATION.require_picking("tiny.test")
    with pytest.raises(StudyError, match="is itself the final evaluation of tiny"):
        EVALUATION.require_evaluable("tiny.test")


def test_the_command_of_an_evaluation_names_it_where_its_name_is_its_own() -> None:
    assert EVALUATION.result_command("tiny.test") == "skdtune evaluate tiny"
    assert EVALUATION.result_command("other") == "skdtune evaluate tiny --name other"
    words = EVALUATION.made_by("other", 9, 12)
    assert words == ["evaluate", "tiny", "--top", "2", "--seeds", "4", "--name", "other"]
    longer = FinalEvaluation(SETTINGS.model_copy(update={"search_epochs": 4}))
    words = longer.made_by("other", 9, 12)
    assert words[-4:] == ["--epochs", "12", "--name", "other"]


def test_a_cell_of_a_note_cannot_break_its_table() -> None:
    assert note_row("a\nb", "c|d").count("|") == 3

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.study._dataframe import _create_records_and_aggregate_column
from optuna.trial import TrialState

from skdtune.describe.presets import load_family
from skdtune.describe.space import sample
from skdtune.describe.spec import StudySpec
from skdtune.errors import StudyError
from skdtune.queue import leases, pausing, schema, study_attributes
from skdtune.queue import stored_study as study
from skdtune.queue.events import story
from skdtune.queue.storage import init_storage
from skdtune.queue.stored_study import (
    StoredStudy,
    create_studies,
    create_study,
    describe_difference,
    expand_family,
    find_lineage,
    load_study,
    study_names,
)

MakeSpec = Callable[..., StudySpec]
MakeStudy = Callable[..., StoredStudy]


def rows(url: str) -> dict[str, int]:
    """Count the rows of every table that a study fills."""
    storage = init_storage(url)
    tables = (
        schema.studies,
        schema.study_directions,
        schema.study_user_attributes,
        schema.study_system_attributes,
        schema.trials,
        schema.trial_system_attributes,
        schema.own_studies,
        schema.events,
    )
    with storage.engine.connect() as connection:
        counted = {
            table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in tables
        }
    storage.engine.dispose()
    return counted


def test_a_study_has_exactly_so_many_waiting_trials(make_study: MakeStudy) -> None:
    trials = make_study(num_trials=37).study.get_trials()
    assert [trial.number for trial in trials] == list(range(37))
    assert {trial.state for trial in trials} == {TrialState.WAITING}


def test_trial_0_is_the_published_setting_and_enqueued_ones_follow(make_study: MakeStudy) -> None:
    stored = make_study("enqueue=[{optimizer.lr: 0.05, method.drg.stages: '1+2'}]", num_trials=3)
    trials = stored.study.get_trials()
    fixed = [trial.system_attrs.get("fixed_params") for trial in trials]
    assert fixed == [
        stored.spec.base_params(),
        {"optimizer.lr": 0.05, "method.drg.stages": "1+2"},
        None,
    ]
    first = optuna.Trial(stored.study, _started(stored, trials[0]._trial_id))
    params = sample(stored.spec.search, first)
    assert params == stored.spec.base_params()
    assert params["method.drg.weight"] == 0.2
    config = stored.spec.trial_config(params, 0)
    assert config.method == stored.spec.base_config().method
    assert config.optimizer == stored.spec.base_config().optimizer


def _started(stored: StoredStudy, trial_id: int) -> int:
    stored.study._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    return trial_id


def test_more_enqueued_settings_than_trials_add_no_trial(make_study: MakeStudy) -> None:
    stored = make_study("enqueue=[{optimizer.lr: 0.05}, {optimizer.lr: 0.06}]", num_trials=2)
    assert len(stored.study.get_trials()) == 2


def test_the_stored_study_carries_spec_metric_and_direction(make_study: MakeStudy) -> None:
    stored = make_study()
    assert stored.study.direction is StudyDirection.MAXIMIZE
    assert stored.study.metric_names == ["validation_accuracy"]
    attributes = stored.study.user_attrs
    assert attributes["skdtune:spec_hash"] == stored.spec.digest
    assert set(attributes["skdtune:versions"]) == {"skdtune", "optuna", "python"}
    # What fills a screen stands where no list of studies shows it.
    assert len(attributes) == 2
    assert all(len(json.dumps(value)) < 100 for value in attributes.values())
    hidden = stored.storage.get_study_system_attrs(stored.study_id)
    assert json.loads(hidden["skdtune:spec"])["spec"]["name"] == "tiny"


def test_a_data_frame_has_no_blanks_in_its_names(make_study: MakeStudy) -> None:
    _, columns = _create_records_and_aggregate_column(make_study().study, ("number", "value"))
    assert columns == [("number", ""), ("value", "validation_accuracy")]


def test_the_spec_comes_back_as_it_was_stored(make_study: MakeStudy, make_spec: MakeSpec) -> None:
    for number, preset in enumerate(["digits-baseline", "digits-drg-dsr", "cifar100-dsr"]):
        stored = make_study(preset=preset, name=f"study{number}")
        assert stored.spec == make_spec(preset=preset, name=f"study{number}")


@pytest.mark.parametrize("broken", ["add_trials", "_insert_study"])
def test_a_failure_in_the_middle_leaves_no_study(
    broken: str, ready_url: str, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(ready_url)
    real = getattr(study, broken)

    def fails_at_the_end(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(study, broken, fails_at_the_end)
        with pytest.raises(RuntimeError, match="the power failed"):
            create_study(make_spec(), storage=ready_url)
    assert rows(ready_url) == before
    assert set(before.values()) == {0}
    assert create_study(make_spec(), storage=ready_url)
    assert rows(ready_url)["trials"] == 5


def test_creating_it_again_changes_nothing(ready_url: str, make_spec: MakeSpec) -> None:
    assert create_study(make_spec(), storage=ready_url) is True
    before = rows(ready_url)
    assert create_study(make_spec(), storage=ready_url) is False
    assert rows(ready_url) == before


def test_another_spec_of_the_same_name_is_refused_with_the_difference(
    ready_url: str, make_spec: MakeSpec
) -> None:
    create_study(make_spec(), storage=ready_url)
    before = rows(ready_url)
    other = make_spec("search.optimizer.lr.high=0.4", "seed=3", num_trials=6)
    with pytest.raises(StudyError) as caught:
        create_study(other, storage=ready_url)
    message = str(caught.value)
    assert message == (
        "study 'tiny' exists with another spec (num_trials: 5 there, 6 here; "
        "search.optimizer.lr.high: 0.5 there, 0.4 here; seed: 0 there, 3 here); "
        "choose another --name"
    )
    assert caught.value.exit_code == 2
    assert rows(ready_url) == before


def test_where_only_the_budget_differs_the_command_that_changes_it_is_named(
    ready_url: str, make_spec: MakeSpec
) -> None:
    create_study(make_spec(), storage=ready_url)
    with pytest.raises(StudyError) as caught:
        create_study(make_spec(num_trials=6), storage=ready_url)
    assert str(caught.value) == (
        "study 'tiny' exists with another spec (num_trials: 5 there, 6 here); "
        "`skdtune budget tiny 6` changes that"
    )


def test_a_long_difference_is_cut(make_spec: MakeSpec) -> None:
    difference = describe_difference(
        make_spec(preset="digits-baseline"), make_spec(preset="digits-drg-dsr")
    )
    assert difference.count(" there, ") == 5
    assert difference.endswith(" more")
    assert describe_difference(make_spec(), make_spec()) == ""


def test_a_study_of_somebody_else_is_refused(ready_url: str, make_spec: MakeSpec) -> None:
    storage = init_storage(ready_url)
    optuna.create_study(study_name="tiny", storage=storage)
    storage.engine.dispose()
    with pytest.raises(StudyError, match="exists and was not created by skdtune"):
        create_study(make_spec(), storage=ready_url)
    with pytest.raises(StudyError, match="was not created by skdtune: it holds no spec"):
        load_study("tiny", storage=ready_url)


def test_a_spec_that_was_changed_in_the_storage_is_refused(
    ready_url: str, make_spec: MakeSpec
) -> None:
    create_study(make_spec(), storage=ready_url)
    storage = init_storage(ready_url)
    table = schema.study_system_attributes
    with storage.engine.begin() as connection:
        stored = connection.scalar(
            sa.select(table.c.value_json).where(table.c.key == "skdtune:spec")
        )
        content = json.loads(json.loads(stored or ""))
        content["spec"]["search"]["optimizer.lr"]["high"] = 0.75
        connection.execute(
            sa.update(table)
            .where(table.c.key == "skdtune:spec")
            .values(value_json=json.dumps(json.dumps(content)))
        )
    storage.engine.dispose()
    with pytest.raises(StudyError, match="its spec was changed after it was created"):
        load_study("tiny", storage=ready_url)


def test_a_missing_study_is_named_with_the_nearest(ready_url: str, make_spec: MakeSpec) -> None:
    create_study(make_spec(name="digits-first"), storage=ready_url)
    with pytest.raises(StudyError) as near:
        load_study("digits-frist", storage=ready_url)
    assert str(near.value).endswith("did you mean 'digits-first'?")
    with pytest.raises(StudyError, match="`skdtune status` lists the studies"):
        load_study("zzz", storage=ready_url)


def test_only_studies_of_skdtune_are_listed_oldest_first(
    ready_url: str, make_spec: MakeSpec
) -> None:
    for name in ("zebra", "ant"):
        create_study(make_spec(name=name), storage=ready_url)
    storage = init_storage(ready_url)
    optuna.create_study(study_name="foreign", storage=storage)
    assert study_names(storage) == ["zebra", "ant"]
    storage.engine.dispose()


@pytest.mark.parametrize("preset", ["digits-drg-dsr", "digits-baseline"])
def test_the_dashboard_shows_the_whole_note(
    preset: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_dashboard import get_note

    monkeypatch.setattr(study_attributes, "_NOTE_PIECE", 100)
    stored = make_study(preset=preset)
    note = get_note(stored.study)
    assert len(note) > 600
    assert note == stored.spec.note()
    assert all(f"`{path}`" in note for path in stored.spec.search)


def test_a_note_of_ordinary_pieces_is_read_whole_too(make_study: MakeStudy) -> None:
    from optuna_dashboard import get_note

    stored = make_study("description=" + "long " * 900)
    assert len(get_note(stored.study)) > 4500
    assert get_note(stored.study) == stored.spec.note()


def test_the_pruner_is_the_specs(make_study: MakeStudy) -> None:
    stored = make_study("pruner={name: asha, min_epochs: 2}")
    assert type(stored.study.pruner).__name__ == "AshaPruner"


# Several at once


def family(*overrides: str, name: str = "relatives", trials: int = 2) -> list[StudySpec]:
    return load_family("digits-compare", overrides=overrides, name=name, num_trials=trials)


def test_several_studies_are_created_at_once(ready_url: str) -> None:
    specs = family()
    assert create_studies(specs, storage=ready_url) == [spec.name for spec in specs]
    assert rows(ready_url)["trials"] == 2 * len(specs)
    assert expand_family("relatives", storage=ready_url) == [spec.name for spec in specs]
    for spec in (specs[0], specs[-1]):
        with contextlib.closing(load_study(spec.name, storage=ready_url)) as stored:
            assert stored.spec == spec
            assert stored.spec.family == "relatives"


def test_creating_them_again_adds_those_that_are_missing(ready_url: str) -> None:
    specs = family()
    assert create_studies(specs[1:3], storage=ready_url) == [specs[1].name, specs[2].name]
    missing = [spec.name for spec in (specs[0], *specs[3:])]
    assert create_studies(specs, storage=ready_url) == missing
    before = rows(ready_url)
    assert create_studies(specs, storage=ready_url) == []
    assert rows(ready_url) == before


@pytest.mark.parametrize("place", [1, -1])
def test_if_one_of_them_is_there_with_another_spec_none_is_created(
    ready_url: str, place: int
) -> None:
    specs = family()
    taken = family("seed=1")[place]
    assert create_study(taken, storage=ready_url)
    before = rows(ready_url)
    with pytest.raises(StudyError) as raised:
        create_studies(specs, storage=ready_url)
    assert f"study '{taken.name}' exists with another spec (seed: 1 there, 0 here)" in str(
        raised.value
    )
    assert rows(ready_url) == before
    assert expand_family("relatives", storage=ready_url) == [taken.name]


def test_two_of_one_name_are_refused_together(ready_url: str, make_spec: MakeSpec) -> None:
    before = rows(ready_url)
    with pytest.raises(StudyError, match="study 'tiny' exists with another spec"):
        create_studies([make_spec(), make_spec("seed=1")], storage=ready_url)
    assert rows(ready_url) == before


@pytest.mark.parametrize("measure", ["images=100000", "seconds=10"])
def test_a_budget_that_is_not_planned_yet_is_refused(
    ready_url: str, make_spec: MakeSpec, measure: str
) -> None:
    before = rows(ready_url)
    for specs in (
        [make_spec(f"budget.{measure}")],
        [make_spec(name="first"), make_spec(f"budget.{measure}")],
    ):
        with pytest.raises(StudyError) as raised:
            create_studies(specs, storage=ready_url)
        assert str(raised.value) == (
            "tiny: its budget is in images or seconds; plan_budget(spec) turns it into epochs "
            "first"
        )
    assert rows(ready_url) == before
    assert create_study(
        make_spec(f"budget={{epochs: 4, {measure.replace('=', ': ')}, planned: true}}"),
        storage=ready_url,
    )


# Created anew


def delete(stored: StoredStudy) -> None:
    optuna.delete_study(study_name=stored.study.study_name, storage=stored.storage)


def test_every_creation_has_a_token_of_its_own(make_study: MakeStudy) -> None:
    first, other = make_study(), make_study(name="other")
    again = make_study()
    assert first.lineage == again.lineage != other.lineage
    assert len(first.lineage) == 32
    assert find_lineage(first.engine, first.study_id) == first.lineage
    delete(first)
    assert find_lineage(first.engine, first.study_id) is None
    assert make_study().lineage != first.lineage


def test_a_study_made_anew_has_no_story_no_lease_and_no_pause(make_study: MakeStudy) -> None:
    old = make_study()
    worker = leases.WorkerIdentity(device="cpu")
    assert leases.claim(old.engine, old.study_id, worker) is not None
    pausing.pause(old.engine, old.study_id, "somebody must look")
    delete(old)
    new = make_study()
    assert pausing.paused_reason(new.engine, new.study_id) is None
    for trial in new.study.get_trials():
        assert story(new.engine, new.study_id, trial._trial_id) == []
    with new.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.leases)) == 0
    claimed = leases.claim(new.engine, new.study_id, worker)
    assert claimed is not None
    assert (claimed.number, claimed.attempt) == (0, 1)


def test_making_one_study_leaves_the_leases_and_stories_of_others_alone(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    worker = leases.WorkerIdentity(device="cpu")
    claimed = leases.claim(stored.engine, stored.study_id, worker)
    assert claimed is not None
    make_study(name="other")
    assert leases.renew(stored.engine, claimed)
    assert len(story(stored.engine, stored.study_id, claimed.trial_id)) == 1


def test_a_study_of_an_older_skdtune_without_a_token_is_opened(make_study: MakeStudy) -> None:
    stored = make_study()
    with stored.engine.begin() as connection:
        connection.execute(sa.delete(schema.own_studies))
    url = stored.engine.url.render_as_string(hide_password=False)
    # It gets one, and keeps it.
    with contextlib.closing(load_study("tiny", storage=url)) as opened:
        assert len(opened.lineage) == 32
        with contextlib.closing(load_study("tiny", storage=url)) as again:
            assert again.lineage == opened.lineage

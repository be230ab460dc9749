"""The figures of a report: what they draw of which trials, and that plotly takes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import optuna
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.tables import format_duration
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse
from skdtune.queue.trial_attributes import Profile
from skdtune.views.dashboard.figures import dashboard_figures
from skdtune.views.report_page import figures, parameter_figures
from skdtune.views.report_page.figure_parts import rounded
from skdtune.views.report_page.figure_sheet import FigureSheet, embedded
from skdtune.views.report_page.importance import importance_of
from skdtune.views.report_page.markup import escaped, table
from skdtune.views.report_page.page import render
from skdtune.views.report_page.repeat import repetition, study_file
from skdtune.views.report_page.words import quantity, verdict

STAGES = "method.drg.stages"
PROFILE = Profile(first=(0.5, 0.3, 0.2), last=(0.98, 0.02, 0.0))


def a_trial(
    number: int, state: str = "complete", curve: tuple[float, ...] = (0.5, 0.7), **settings: Any
) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        value=curve[-1] if curve else None,
        curve=tuple(enumerate(curve, start=1)),
        **{
            "params": {"optimizer.lr": 0.1, STAGES: "1+2", "method.dsr.pairing": "row"},
            "ended_at": float(number),
            "profile": PROFILE,
            "facts": {"device": "cpu"},
            **settings,
        },
    )


def a_study(*trials: TrialRecord, name: str = "a", **settings: Any) -> StudyRecord:
    spec = load_spec("digits-drg-dsr", name=name, num_trials=max(1, len(trials)))
    return StudyRecord(spec=spec, trials=trials, **settings)


MIXED = a_study(
    a_trial(0, curve=(0.5, 0.80)),
    a_trial(1, "pruned", (0.3,), params={"optimizer.lr": 0.01, STAGES: "1"}),
    a_trial(2, curve=(0.5, 0.90)),
    a_trial(3, "failed", (0.2,), failure_kind="oom"),
    a_trial(4, curve=(0.5, 0.85), params={"optimizer.lr": 0.4, STAGES: "2"}),
    a_trial(5, "running", (0.1,)),
    a_trial(6, "waiting", (), params={}, profile=None),
    importance={"optimizer.lr": 0.75, STAGES: 0.25},
)
EMPTY = a_study(a_trial(0, "waiting", (), params={}, profile=None))
ALL_FAILED = a_study(a_trial(0, "failed", (), params={}, profile=None, failure_kind="error"))
SINGLE = a_study(a_trial(0))


def all_figures(study: StudyRecord) -> Iterator[dict[str, Any]]:
    made = [
        figures.best_so_far([study], "trials"),
        figures.best_so_far([study], "epochs"),
        figures.learning_curves(study),
        figures.ranked_outputs([study]),
        parameter_figures.importance(study),
        parameter_figures.stage_choice(study, STAGES),
        *(parameter_figures.slice_of(study, path) for path in study.spec.search),
    ]
    yield from (figure for figure in made if figure is not None)
    yield from dashboard_figures(study).values()


@pytest.mark.parametrize("study", [MIXED, SINGLE], ids=["mixed", "single"])
def test_plotly_knows_every_property_and_the_browser_every_number(study: StudyRecord) -> None:
    drawn = list(all_figures(study))
    assert len(drawn) > 8
    for figure in drawn:
        go.Figure(figure)
        json.dumps(figure, allow_nan=False)


@pytest.mark.parametrize("study", [EMPTY, ALL_FAILED], ids=["empty", "failed"])
def test_nothing_is_drawn_of_nothing(study: StudyRecord) -> None:
    assert list(all_figures(study)) == []
    assert "figure-0" not in render([study])


# Best so far


def test_best_so_far_rises_by_trials_that_ended() -> None:
    assert figures.best_points(MIXED, "trials") == [(1, 0.8, 0), (3, 0.9, 2), (5, 0.9, 2)]


def test_best_so_far_counts_the_epochs_of_pruned_and_failed_trials() -> None:
    assert figures.best_points(MIXED, "epochs") == [(2, 0.8, 0), (5, 0.9, 2), (8, 0.9, 2)]


def test_best_so_far_follows_the_order_in_which_trials_ended() -> None:
    study = a_study(a_trial(0, curve=(0.8,), ended_at=9.0), a_trial(1, curve=(0.9,), ended_at=1.0))
    assert figures.best_points(study, "trials") == [(1, 0.9, 1), (2, 0.9, 1)]


def test_many_studies_can_be_told_apart() -> None:
    figure = figures.best_so_far(
        [a_study(a_trial(0), name=f"study{index}") for index in range(16)], "trials"
    )
    assert figure is not None
    looks = {
        (t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in figure["data"]
    }
    assert len(looks) == 16


@given(st.lists(st.tuples(st.sampled_from(["complete", "pruned"]), st.floats(0, 1)), max_size=30))
def test_best_so_far_never_falls_and_ends_at_the_best(made: list[tuple[str, float]]) -> None:
    trials = [a_trial(n, state, (value,)) for n, (state, value) in enumerate(made)]
    values = [value for _, value, _ in figures.best_points(a_study(*trials), "trials")]
    assert values == sorted(values)
    complete = [value for state, value in made if state == "complete"]
    assert values[-1:] == ([max(complete)] if complete else [])


def test_several_studies_share_a_figure_and_each_has_its_name() -> None:
    figure = figures.best_so_far([MIXED, EMPTY, a_study(a_trial(0), name="b")], "trials")
    assert figure is not None
    assert [trace["name"] for trace in figure["data"]] == ["a", "b"]


# Learning curves


def test_curves_are_grouped_by_how_the_trial_ended() -> None:
    figure = figures.learning_curves(MIXED)
    assert figure is not None
    drawn = {trace["name"]: set(trace["customdata"]) - {None} for trace in figure["data"]}
    assert drawn == {
        "pruned": {1},
        "failed or not finished": {3, 5},
        "complete": {4},
        "pruned here": {1},
        "trial 0, published": {0},
        "trial 2, best": {2},
    }
    assert {t["name"]: t["line"]["dash"] for t in figure["data"] if "line" in t}[
        "pruned"
    ] == "dash"


def test_four_hundred_curves_are_a_few_traces_with_gaps() -> None:
    trials = [
        a_trial(n, "pruned" if n % 3 else "complete", tuple(n / 1000 for _ in range(1 + n % 50)))
        for n in range(400)
    ]
    figure = figures.learning_curves(a_study(*trials))
    assert figure is not None
    assert len(figure["data"]) <= 8
    numbers = [n for trace in figure["data"] for n in trace["customdata"] if n is not None]
    assert set(numbers) == set(range(400))
    for trace in figure["data"]:
        for before, after in zip(trace["customdata"], trace["customdata"][1:], strict=False):
            assert before == after or None in (before, after) or trace["mode"] == "markers"
        assert len(trace["x"]) == len(trace["y"]) == len(trace["customdata"])


def test_better_complete_trials_are_in_the_darker_group() -> None:
    figure = figures.learning_curves(a_study(*(a_trial(n, curve=(n / 100,)) for n in range(42))))
    assert figure is not None
    groups = {trace["name"]: trace["y"] for trace in figure["data"]}
    lower, upper, tenth = (
        [y for y in groups[f"complete, {name}"] if y is not None]
        for name in ("lower half", "upper half", "best tenth")
    )
    assert max(lower) < min(upper)
    assert max(upper) < min(tenth)
    assert (len(lower), len(upper), len(tenth)) == (20, 16, 4)


# Parameters


def test_slice_has_the_scale_of_the_range_and_shows_all_of_it() -> None:
    figure = parameter_figures.slice_of(MIXED, "optimizer.lr")
    assert figure is not None
    axis = figure["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert 10 ** axis["range"][0] < 0.01
    assert 10 ** axis["range"][1] > 0.5
    assert {0.01, 0.1} <= set(axis["tickvals"])


def test_slice_marks_pruned_trials_hollow_and_leaves_out_what_has_no_value() -> None:
    figure = parameter_figures.slice_of(MIXED, "optimizer.lr")
    assert figure is not None
    drawn = {t["name"]: (t["marker"]["symbol"], t["x"], t["y"]) for t in figure["data"]}
    assert drawn == {
        "pruned": ("circle-open", [0.01], [0.3]),
        "complete": ("circle", [0.4], [0.85]),
        "trial 0, published": ("diamond", [0.1], [0.8]),
        "trial 2, best": ("star", [0.1], [0.9]),
    }


def test_slice_of_a_conditional_parameter_shows_the_trials_that_have_it() -> None:
    study = a_study(
        a_trial(0, params={STAGES: "1"}),
        a_trial(1, params={STAGES: "1+2", "method.drg.teacher": "mean_logits"}),
    )
    figure = parameter_figures.slice_of(study, "method.drg.teacher")
    assert figure is not None
    assert [data[0] for trace in figure["data"] for data in trace["customdata"]] == [1]
    assert parameter_figures.slice_of(study, "method.dsr.weight") is None


def test_stage_choice_has_every_subset_and_the_medians_of_complete_trials() -> None:
    figure = parameter_figures.stage_choice(MIXED, STAGES)
    assert figure is not None
    assert figure["layout"]["xaxis"]["ticktext"] == ["1", "2", "1+2"]
    medians = figure["data"][0]
    assert (medians["x"], medians["y"]) == ([1, 2], [0.85, 0.85])
    places = [x for trace in figure["data"][1:] for x in trace["x"]]
    assert all(abs(place - round(place)) <= 0.2 for place in places)


def test_importance_has_the_largest_on_top() -> None:
    figure = parameter_figures.importance(MIXED)
    assert figure is not None
    assert figure["data"][0]["y"] == ["drg.stages", "optimizer.lr"]


def in_memory(values: list[float | None], spec: StudySpec) -> optuna.Study:
    """Make a study whose values follow the learning rate; None is a pruned trial."""
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for value in values:
        trial = study.ask()
        rate = trial.suggest_float("optimizer.lr", 0.01, 0.5, log=True)
        trial.suggest_float("method.dsr.weight", 0.05, 5, log=True)
        pruned = optuna.trial.TrialState.PRUNED
        study.tell(
            trial,
            None if value is None else value - abs(math.log(rate / 0.1)),
            state=pruned if value is None else None,
        )
    return study


def test_importance_finds_the_parameter_that_matters() -> None:
    spec = load_spec("digits-drg-dsr")
    shares, note = importance_of(in_memory([1.0] * 60 + [None] * 5, spec), spec)
    assert list(shares) == ["optimizer.lr", "method.dsr.weight"]
    assert shares["optimizer.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
    assert note == "Computed from the best 6 of 60 complete trials."


def test_importance_of_too_few_trials_is_not_computed() -> None:
    spec = load_spec("digits-drg-dsr")
    found = importance_of(in_memory([1.0] * 9 + [None] * 20, spec), spec)
    assert found == ({}, "It needs 10 complete trials; there are 9.")


def test_importance_of_trials_that_came_out_alike_is_not_computed() -> None:
    spec = load_spec("digits-drg-dsr")
    study = optuna.create_study(direction="maximize")
    for _ in range(20):
        study.ask().suggest_float("optimizer.lr", 0.01, 0.5, log=True)
    for trial in study.trials:
        study.tell(trial.number, 0.5)
    found = importance_of(study, spec)
    assert found == ({}, "It cannot be computed: all complete trials came out alike.")


# Ranked outputs


def test_ranked_outputs_show_first_and_last_epoch_of_best_and_published() -> None:
    figure = figures.ranked_outputs([MIXED])
    assert figure is not None
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert [(trace["name"], trace["line"]["dash"]) for trace in figure["data"]] == [
        ("a, trial 2, best, first epoch", "dot"),
        ("a, trial 2, best, last epoch", "solid"),
        ("a, trial 0, published, first epoch", "dot"),
        ("a, trial 0, published, last epoch", "solid"),
    ]
    assert figure["data"][1]["y"] == [0.98, 0.02, None], "a logarithm knows no zero"


# Numbers and texts


@given(st.floats())
def test_rounding_keeps_five_digits_and_writes_json(value: float) -> None:
    short = rounded(value)
    json.dumps(short, allow_nan=False)
    assert short is None or short == pytest.approx(value, rel=1e-4)


@given(st.text())
def test_data_cannot_end_their_element(text: str) -> None:
    data = embedded({"data": [{"name": text}]})
    assert not set(data) & set("<>&")
    assert json.loads(data) == {"data": [{"name": text}]}


@given(st.text())
def test_text_cannot_become_markup(text: str) -> None:
    shown = escaped(text)
    assert not set(shown) & set("<>\"'")
    assert table([text], [[text]]).count("<") == table(["x"], [["x"]]).count("<")


def test_description_of_a_figure_is_escaped() -> None:
    figure = figures.learning_curves(SINGLE)
    assert figure is not None
    assert "<b>" not in FigureSheet().place(figure, '"<b>')


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "0.25 s"), (59, "59 s"), (200, "3 min 20 s"), (90_000, "1 d 1 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_300, "12,300"), (4_560_000, "4.56 million")]
)
def test_quantity(value: float, text: str) -> None:
    assert quantity(value) == text


def test_verdict_says_when_chance_can_explain_it() -> None:
    # A standard error of two points at 86%.
    near = a_study(a_trial(0, curve=(0.86,)), a_trial(2, curve=(0.9,)), num_images=301)
    far = a_study(a_trial(0, curve=(0.5,)), a_trial(2, curve=(0.9,)), num_images=301)
    assert "4.00 points above trial 0, the published setting, which chance" in verdict(near)
    assert "40.00 points above trial 0, the published setting. The best of 2" in verdict(far)


def test_verdict_of_a_study_without_a_better_trial() -> None:
    assert verdict(EMPTY) == "No trial is complete yet."
    assert verdict(ALL_FAILED).startswith("Study 'a' has no complete trial, ")
    assert verdict(SINGLE).startswith("One trial is complete")
    alone = a_study(a_trial(0, curve=(0.9,)), a_trial(1, curve=(0.8,)), num_images=337)
    assert verdict(alone) == (
        "No trial beats the published setting. The best of 2 complete trials on the same 337 "
        "validation images is an optimistic number."
    )


# Repeat it


@pytest.mark.parametrize(
    "preset", ["digits-baseline", "digits-drg-dsr", "cifar100-ls", "imagefolder-drg"]
)
def test_a_preset_is_recognised(preset: str) -> None:
    root = ["data.root=/data"] if preset.startswith("imagefolder") else []
    spec = load_spec(preset, overrides=root, num_trials=7)
    create = repetition(spec).commands[0]
    assert create.startswith(f"skdtune create-study {preset} ")
    assert "--trials 7" in create
    assert spec == parse(StudySpec, _read(study_file(spec)), "file")


def _read(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def test_another_search_space_comes_as_a_file() -> None:
    spec = load_spec("digits-drg-dsr", name="own", overrides=["search.optimizer.lr=null"])
    assert repetition(spec).commands[0] == "skdtune create-study own.yaml"
    assert repetition(spec).needs_file
    assert spec == parse(StudySpec, _read(study_file(spec)), "file")


# The page


def test_a_comparison_is_a_table_with_its_notes_and_sentences() -> None:
    from skdtune.analysis.tables import Column, Table

    comparison = Table(
        title="Test <accuracy>",
        columns=(Column(header="method"), Column(header="accuracy", align="right")),
        rows=(("drg & dsr", "91.2 ± 0.1"),),
        notes=("A <note>.",),
    )
    page = render([SINGLE], comparison=comparison, sentences=["drg is better."])
    section = page[page.index('<section id="comparison">') :].partition("</section>")[0]
    assert "<caption>Test &lt;accuracy&gt;</caption>" in section
    assert '<td class="words">drg &amp; dsr</td><td class="number">91.2 ± 0.1</td>' in section
    assert "A &lt;note&gt;." in section
    assert "drg is better." in section
    assert 'href="#comparison"' in page
    assert 'id="comparison"' not in render([SINGLE])


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = render([MIXED, EMPTY])
    head = page.partition("<main>")[0]
    anchors = re.findall(r'href="#([^"]+)"', head)
    assert len(anchors) >= 5
    assert all(f'id="{anchor}"' in page for anchor in anchors)

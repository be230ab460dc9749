"""``skdtune report``: the page as a file, in a real browser without a network, the dashboard."""

from __future__ import annotations

import datetime
import functools
import html
import json
import math
import random
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from e2e.browser import Browser, find_chromium
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from skdtune.describe.presets import load_spec
from skdtune.describe.space import sample
from skdtune.describe.spec import StudySpec
from skdtune.queue import schema
from skdtune.queue.events import record_copies
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.stored_study import StoredStudy, create_study, load_study

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
Fill = Callable[..., StoredStudy]

#: What somebody might write to take the page over.
HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\u202e & %{x}"
)


# Studies with made-up trials in a real storage


def outcome(draw: random.Random, number: int, epochs: int) -> tuple[str, list[float]]:
    """Make up how a trial went: a noisy curve that rises and is cut off where it is low."""
    ceiling = min(0.98, 0.72 + 0.2 * draw.random() ** 0.5)
    speed = 3 + 4 * draw.random()
    curve = [
        min(1.0, ceiling * (1 - math.exp(-speed * (e + 1) / epochs)) + draw.gauss(0, 0.006))
        for e in range(epochs)
    ]
    if number and draw.random() < 0.45 + 0.5 * (ceiling < 0.8):
        return "PRUNED", curve[: max(1, int(epochs * draw.choice((0.1, 0.3, 0.6))))]
    if number and draw.random() < 0.05:
        return "FAIL", curve[: draw.randrange(epochs)]
    return "COMPLETE", curve


def rows_of(spec: StudySpec, number: int, outcomes: str | None) -> dict[str, Any]:
    """Make up one trial as rows of the storage."""
    draw = random.Random(f"{spec.name}:{number}")
    memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=draw.randrange(2**31)))
    if number == 0:
        memory.enqueue_trial(spec.base_params())
    trial = memory.ask()
    sample(spec.search, trial, spec.fixed_values())
    state, curve = outcome(draw, number, spec.budget.epochs)
    if outcomes == "FAIL":
        state, curve = "FAIL", curve[:1]
    elif outcomes == "COMPLETE":
        state, curve = "COMPLETE", [1.5, 0.9 + draw.random() / 20]
    seconds = [2.0 + draw.random() for _ in curve]
    profile = [math.exp(-rank) for rank in range(10)]
    last = [math.exp(-3 * rank) + 1e-6 for rank in range(10)]
    user: dict[str, Any] = {
        "device": "cuda:0 (NVIDIA H100)",
        "precision": "bfloat16",
        "kernels": "torch",
        "threads": 4,
        "seed": number,
        "spec_hash": spec.digest,
        "data_fingerprint": "5e0f",
        "num_val_images": 5000,
        "versions": {"skdtune": "0", "torch": "2.14"},
        "images": 1000 * len(curve),
        "train_seconds": sum(seconds),
    }
    if state == "FAIL":
        user |= {"failure_kind": draw.choice(("oom", "error")), "failure_reason": HOSTILE}
    return {
        "state": TrialState[state],
        "value": curve[-1] if state != "FAIL" else None,
        "params": {
            name: (value, trial.distributions[name]) for name, value in trial.params.items()
        },
        "curve": curve,
        "user": user,
        "system": {
            "skdtune:curves": {"epoch_seconds": seconds},
            "skdtune:profile": {
                "first": [p / sum(profile) for p in profile],
                "last": [p / sum(last) for p in last],
            },
        },
    }


def fill(stored: StoredStudy, num_ended: int, outcomes: str | None = None) -> None:
    """End the first trials of a study, each as if a worker had trained it."""
    start = datetime.datetime(2026, 1, 1)
    with stored.engine.begin() as connection:
        ids = connection.execute(
            sa.select(schema.trials.c.trial_id, schema.trials.c.number)
            .where(schema.trials.c.study_id == stored.study_id)
            .order_by(schema.trials.c.number)
        ).all()
        for trial_id, number in ids[:num_ended]:
            made = rows_of(stored.spec, number, outcomes)
            began = start + datetime.timedelta(minutes=number)
            connection.execute(
                sa.update(schema.trials)
                .where(schema.trials.c.trial_id == trial_id)
                .values(
                    state=made["state"],
                    datetime_start=began,
                    datetime_complete=began + datetime.timedelta(minutes=3),
                )
            )
            insert_rows(connection, trial_id, made)
        # Without a word of how they ended they were somebody else's.
        record_copies(connection, stored.study_id)


def insert_rows(connection: sa.Connection, trial_id: int, made: dict[str, Any]) -> None:
    step_type = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    tables: list[tuple[sa.Table, list[dict[str, Any]]]] = [
        (
            schema.params,
            [
                {
                    "param_name": name,
                    "param_value": kind.to_internal_repr(value),
                    "distribution_json": distribution_to_json(kind),
                }
                for name, (value, kind) in made["params"].items()
            ],
        ),
        (
            schema.steps,
            [
                {
                    "step": step,
                    "intermediate_value": value,
                    "intermediate_value_type": step_type,
                }
                for step, value in enumerate(made["curve"])
            ],
        ),
        (
            schema.values,
            [
                {
                    "objective": 0,
                    "value": made["value"],
                    "value_type": models.TrialValueModel.TrialValueType.FINITE,
                }
            ]
            if made["value"] is not None
            else [],
        ),
    ]
    for table, attributes in (
        (schema.trial_user_attributes, made["user"]),
        (schema.trial_system_attributes, made["system"]),
    ):
        tables.append(
            (
                table,
                [{"key": key, "value_json": json.dumps(v)} for key, v in attributes.items()],
            )
        )
    for table, rows in tables:
        if rows:
            connection.execute(sa.insert(table), [{"trial_id": trial_id, **row} for row in rows])


def make_study(
    url: str,
    name: str,
    num_ended: int,
    *overrides: str,
    outcomes: str | None = None,
    num_trials: int | None = None,
    preset: str = "digits-drg-dsr",
) -> None:
    spec = load_spec(preset, overrides=overrides, name=name, num_trials=num_trials or num_ended)
    create_study(spec, storage=url)
    stored = load_study(name, storage=url)
    fill(stored, num_ended, outcomes)
    stored.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(find_chromium(), tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a storage with studies in every stage of their life."""
    url = f"sqlite:///{tmp_path_factory.mktemp('report') / 'study.db'}"
    description = f"description={json.dumps(HOSTILE)}"
    make_study(url, "mid", 40, description, num_trials=45)
    make_study(url, "smoothed", 12, "budget.epochs=5", preset="digits-ls")
    make_study(url, "empty", 0, num_trials=3)
    make_study(url, "single", 1, num_trials=3)
    make_study(url, "failed", 4, outcomes="FAIL")
    evaluation = create_evaluation("smoothed", top=2, num_seeds=3, storage=url)
    stored = load_study(evaluation, storage=url)
    fill(stored, 5, "COMPLETE")
    stored.close()
    long = ("budget.epochs=200", "model.name=resnet18")
    make_study(url, "big", 400, *long)
    return url


@pytest.fixture(scope="module")
def page_of(storage: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a page as a person does; the same page once for all tests."""

    @functools.cache
    def page_of(*studies: str) -> Path:
        file = tmp_path_factory.mktemp("page") / "report.html"
        report(*studies, "-o", str(file), "--no-dashboard", "--storage", storage)
        return file

    return page_of


def report(*arguments: str) -> str:
    command = [sys.executable, "-m", "skdtune", "report", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def draw_all(browser: Browser) -> list[str]:
    """Scroll to every figure until all are drawn; return what became of each."""
    number = browser.run("document.querySelectorAll('.figure').length")
    for index in range(number):
        place = f"document.getElementById('figure-{index}')"
        browser.run(f"{place}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
        browser.until(f"['drawn', 'failed'].includes({place}.dataset.state)")
    states: list[str] = browser.run(
        "[...document.querySelectorAll('.figure')].map((place) => place.dataset.state)"
    )
    return states


def prefer(browser: Browser, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=features)


# The page in a browser


@pytest.mark.browser
def test_page_of_several_studies_is_drawn_without_a_network(
    browser: Browser, page_of: Callable[..., Path]
) -> None:
    file = page_of("mid", "smoothed", "smoothed.test", "empty", "single", "failed")

    browser.open(file.as_uri())
    states = draw_all(browser)

    assert set(states) == {"drawn"}
    with_drawing = browser.run(
        "[...document.querySelectorAll('.figure')].filter((p) => p.querySelector('.main-svg')"
        " && p.querySelector('.trace, .point, .points path')).length"
    )
    assert with_drawing == len(states) > 20
    assert browser.complaints() == []
    assert browser.requested() == [file.as_uri()]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_what_people_wrote_is_text(browser: Browser, page_of: Callable[..., Path]) -> None:
    browser.open(page_of("mid", "failed").as_uri())
    draw_all(browser)

    assert browser.run("document.title") == "mid, failed"
    assert browser.run("document.images.length") == 0
    shown = HOSTILE.replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert browser.run("document.querySelector('.lead').textContent") == shown
    assert browser.run(f"document.body.textContent.split({json.dumps(shown)}).length") > 2
    assert browser.complaints() == []


@pytest.mark.browser
def test_a_script_that_is_not_the_pages_own_does_not_run(
    browser: Browser, page_of: Callable[..., Path], tmp_path: Path
) -> None:
    page = page_of("single").read_text(encoding="utf-8")
    file = tmp_path / "forged.html"
    file.write_text(page.replace("<main>", "<main><script>document.title = 'taken'</script>"))

    browser.open(file.as_uri())

    assert browser.run("document.title") == "single"
    assert any("Content Security Policy" in said for said in browser.complaints())


@pytest.mark.browser
def test_no_button_sends_the_data_away(browser: Browser, page_of: Callable[..., Path]) -> None:
    browser.open(page_of("mid").as_uri())
    draw_all(browser)

    buttons = browser.run(
        "[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title || '')"
    )
    assert any("Download" in title for title in buttons)
    assert not [title for title in buttons if "hare" in title or "loud" in title]
    assert browser.run("document.querySelectorAll('main a[href^=http]').length") == 0


@pytest.mark.browser
def test_theme_follows_the_system_until_the_button_says_otherwise(
    browser: Browser, page_of: Callable[..., Path]
) -> None:
    url = page_of("single").as_uri()
    color = "getComputedStyle(document.body).backgroundColor"
    text = (
        "getComputedStyle(document.querySelector('#figure-0 .xtick text, #figure-0 .ytick text'))"
        ".fill"
    )
    prefer(browser, "light")
    browser.open(url)
    browser.run("localStorage.clear()")
    browser.until("document.getElementById('figure-0').dataset.state === 'drawn'")
    light = browser.run(color), browser.run(text)

    prefer(browser, "dark")
    browser.until(f"{text} !== {json.dumps(light[1])}")
    dark = browser.run(color), browser.run(text)
    browser.run("document.getElementById('theme').click()")
    browser.until(f"{text} === {json.dumps(light[1])}")

    assert dark[0] != light[0]
    assert browser.run(color) == light[0]
    browser.open(url)
    assert browser.run(color) == light[0], "it was not remembered"
    assert browser.run("document.getElementById('theme').textContent") == "Dark"
    browser.open(f"{url}?theme=dark")
    assert browser.run(color) == dark[0], "the address asks for a theme"
    browser.run("localStorage.clear()")
    prefer(browser, "")


@pytest.mark.browser
def test_four_hundred_trials_are_a_few_traces_that_name_each_trial(
    browser: Browser, page_of: Callable[..., Path], storage: str
) -> None:
    browser.open(page_of("big").as_uri())
    assert set(draw_all(browser)) == {"drawn"}
    curves = (
        "[...document.querySelectorAll('.figure')]"
        ".find((p) => p.getAttribute('aria-label') === 'Learning curves of big')"
    )
    browser.run(f"window.curves = {curves}; 1")
    names, numbers, points = browser.run(
        "[curves.data.map((t) => t.name), [...new Set(curves.data.flatMap((t) => t.customdata))],"
        " curves.data.reduce((sum, t) => sum + t.x.length, 0)]"
    )
    assert len(names) <= 8
    assert len(set(numbers) - {None}) == 400
    assert points > 30_000
    browser.run("curves.scrollIntoView({behavior: 'instant', block: 'center'})")
    # The pointer on the best trial, with many other curves close by.
    left, top = browser.run(
        "(({left, top}, {xaxis, yaxis}, best) => ["
        "left + xaxis._offset + xaxis.d2p(best.x[99]),"
        "top + yaxis._offset + yaxis.d2p(best.y[99])])"
        "(curves.getBoundingClientRect(), curves._fullLayout, curves.data.at(-1))"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)
    browser.until("curves.querySelector('.hoverlayer .hovertext')")
    hovered = browser.run("curves.querySelector('.hoverlayer').textContent")
    found = re.fullmatch(r"trial (\d+)epoch (\d+): ([\d.]+)%", hovered)
    assert found is not None
    number, epoch, value = int(found[1]), int(found[2]), float(found[3]) / 100
    stored = load_study("big", storage=storage)
    curve = stored.study.get_trials(deepcopy=False)[number].intermediate_values
    stored.close()
    assert abs(epoch - 100) <= 1
    assert value == pytest.approx(curve[epoch - 1], abs=6e-5)
    assert browser.complaints() == []


@pytest.mark.browser
def test_it_fits_a_telephone(browser: Browser, page_of: Callable[..., Path]) -> None:
    size = {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    try:
        browser.open(page_of("mid", "failed").as_uri())
        assert set(draw_all(browser)) == {"drawn"}
        assert browser.run("document.documentElement.scrollWidth") <= 380
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


# The page as a file


def text_of(file: Path) -> str:
    """Return what the page says, without code, data and figures."""
    page = file.read_text(encoding="utf-8")
    without_code = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without_code)).split())


def test_empty_sections_say_why(page_of: Callable[..., Path]) -> None:
    text = text_of(page_of("empty"))

    assert 'class="figure"' not in page_of("empty").read_text(encoding="utf-8")
    for sentence in (
        "No trial is complete yet.",
        "No trial has finished an epoch yet.",
        "None of the trials shown here has recorded its outputs.",
        "It needs 10 complete trials; there are 0.",
        "No trial has a value yet.",
        "No trial failed.",
    ):
        assert sentence in text


def test_headline_says_what_was_found_and_what_it_cost(
    page_of: Callable[..., Path], storage: str
) -> None:
    stored = load_study("mid", storage=storage)
    trials = stored.study.get_trials(deepcopy=False)
    stored.close()
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    pruned = [t for t in trials if t.state is TrialState.PRUNED]
    failed = [t for t in trials if t.state is TrialState.FAIL]
    best = max(complete, key=lambda t: t.value or 0.0)
    assert best.value is not None
    error = math.sqrt(best.value * (1 - best.value) / 5000)
    epochs = sum(len(t.intermediate_values) for t in trials)

    text = text_of(page_of("mid"))

    assert f"mid {best.number} {best.value * 100:.2f} ± {error * 100:.2f}%" in text
    assert f"{len(complete)} / {len(pruned)} / {len(failed)} 5 {epochs} {epochs * 1000:,}" in text
    assert "an optimistic number" in text


def test_a_final_evaluation_is_summed_up_over_seeds(
    page_of: Callable[..., Path], storage: str
) -> None:
    stored = load_study("smoothed.test", storage=storage)
    values = [trial.value for trial in stored.study.get_trials(deepcopy=False) if trial.values]
    evaluation = stored.spec.evaluation
    stored.close()
    assert evaluation is not None
    assert len(values) == 5

    text = text_of(page_of("smoothed.test"))

    for candidate, number in enumerate(evaluation.trials):
        own = [value for value in values[candidate::2] if value is not None]
        mean, sd = statistics.fmean(own) * 100, statistics.stdev(own) * 100
        assert f"trial {number} {len(own)} {mean:.2f} ± {sd:.2f}%" in text
    assert "skdtune evaluate smoothed --top 2 --seeds 3 --name smoothed.test" in text
    assert "optimistic" not in text


def test_failures_are_counted_by_kind(page_of: Callable[..., Path], storage: str) -> None:
    stored = load_study("failed", storage=storage)
    kinds = [t.user_attrs["failure_kind"] for t in stored.study.get_trials(deepcopy=False)]
    stored.close()

    text = text_of(page_of("failed"))

    for kind in set(kinds):
        numbers = ", ".join(str(n) for n, found in enumerate(kinds) if found == kind)
        assert f"{kind} failed {kinds.count(kind)} {numbers} </script>" in text


def test_the_commands_make_the_same_study_again(
    page_of: Callable[..., Path], run_cli: RunCli, storage: str, tmp_path: Path
) -> None:
    page = page_of("mid").read_text(encoding="utf-8")
    found = re.search(r"<pre>(skdtune create-study .*?)</pre>", page, re.DOTALL)
    assert found is not None
    command = shlex.split(
        html.unescape(found[1]).splitlines()[0].replace("\N{REPLACEMENT CHARACTER}", "\u202e")
    )
    other = f"sqlite:///{tmp_path / 'again.db'}"

    made = run_cli(*command[1:], "--storage", other)

    assert made.returncode == 0, made.stderr
    first, again = (load_study("mid", storage=url) for url in (storage, other))
    assert again.spec == first.spec
    for stored in (first, again):
        stored.close()


def test_a_page_that_is_there_is_replaced(storage: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old")

    said = report("single", "-o", str(file), "--no-dashboard", "--storage", storage)

    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert said == f"{file}  {len(page.encode()) / 1e6:.1f} MB\n"
    assert [found.name for found in tmp_path.iterdir() if "report" in found.name] == [file.name]


@pytest.mark.parametrize("name", ["nowhere/report.html", "."])
def test_a_page_that_cannot_be_written_is_one_line(
    name: str, run_cli: RunCli, storage: str, tmp_path: Path
) -> None:
    path = str(tmp_path / name)
    ended = run_cli("report", "single", "-o", path, "--storage", storage)

    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("skdtune: cannot write ")


def test_an_unknown_study_is_one_line_and_writes_nothing(
    run_cli: RunCli, storage: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    ended = run_cli("report", "single", "sngle", "-o", str(file), "--storage", storage)

    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line == "skdtune: there is no study 'sngle' in this storage; did you mean 'single'?"
    assert not file.exists()


# The dashboard


def system_attributes(stored: StoredStudy) -> dict[str, Any]:
    found: dict[str, Any] = stored.storage.get_study_system_attrs(stored.study_id)
    return found


def test_dashboard_gets_the_key_figures_once(storage: str, tmp_path: Path) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    found = []
    for _ in range(2):
        report("mid", "-o", str(tmp_path / "report.html"), "--storage", storage)
        stored = load_study("mid", storage=storage)
        found.append(get_plotly_graph_objects(system_attributes(stored)))
        stored.close()

    assert found[0] == found[1]
    assert set(found[0]) == {
        "skdtune-best-so-far",
        "skdtune-importance",
        "skdtune-layer-choice-method.drg.stages",
        "skdtune-ranked-outputs",
    }
    for text in found[0].values():
        assert json.loads(text)["data"]
        assert len(text) < 50_000


def test_without_the_dashboard_nothing_is_written_to_the_storage(
    page_of: Callable[..., Path], storage: str
) -> None:
    page_of("smoothed")

    stored = load_study("smoothed", storage=storage)
    written = [key for key in system_attributes(stored) if "plot_data" in key]
    stored.close()
    assert written == []


@pytest.mark.browser
def test_dashboard_draws_the_key_figures(
    browser: Browser,
    storage: str,
    start: Callable[..., subprocess.Popen[bytes]],
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    report("mid", "-o", str(tmp_path / "report.html"), "--storage", storage)
    stored = load_study("mid", storage=storage)
    study_id = stored.study_id
    stored.close()
    log = tmp_path / "dashboard.log"
    process = start("dashboard", "--port", "0", "--storage", storage, log=log, env={})
    address = eventually(
        lambda: re.search(r"http://\S+:\d+/dashboard/", log.read_text()), process=process, log=log
    )

    browser.open(f"{address[0]}studies/{study_id}")

    for name in ("best-so-far", "importance", "ranked-outputs"):
        browser.until(
            f"document.querySelector('[id=\"user-defined-plot:skdtune-{name}\"] .main-svg .trace')"
        )
    text = browser.run("document.body.textContent")
    assert "Layer choice, drg.stages" in text
    assert browser.complaints() == []

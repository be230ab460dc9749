"""What the dashboard says of a study is what skdtune says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
from optuna.distributions import FloatDistribution
from optuna_dashboard import wsgi

from skdtune.views.dashboard.study_pages import StudyPages


def ask(pages: StudyPages, path: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    body = b"".join(pages(environ, lambda *_: None))
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_foreign_value_is_not_the_best_of_a_search(
    make_study: Callable[..., Any], finish_trials: Callable[..., None], ready_url: str
) -> None:
    stored = make_study()
    finish_trials(ready_url, "tiny", {"test_accuracy": 0.4}, {"test_accuracy": 0.6})
    stored.study.add_trial(
        optuna.trial.create_trial(
            value=93.5,
            params={"optimizer.lr": 0.1},
            distributions={"optimizer.lr": FloatDistribution(0.01, 0.5, log=True)},
        )
    )
    application = wsgi(stored.storage)
    pages = StudyPages(application, stored.storage)
    study = ask(pages, f"/api/studies/{stored.study_id}")
    assert [(one["number"], one["values"]) for one in study["best_trials"]] == [(1, [0.6])]
    assert len(study["trials"]) > 2

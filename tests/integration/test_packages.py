"""What an installed package offers: used, named with every trial, and missed where it is not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from installed import Site

SETTINGS = '''
    from __future__ import annotations

    from pydantic import Field

    from skdtune.describe.term_config import TermConfig


    class ConfidencePenaltyConfig(TermConfig):
        """Confidence penalty: outputs of low entropy cost something."""

        term = "lumen.term:ConfidencePenalty"

        weight: float = Field(default=0.1, ge=0)
'''
TERM = """
    from skdtune.methods.base import Term, no_loss


    class ConfidencePenalty(Term):
        def __init__(self, settings, context):
            super().__init__()
            self.weight = settings.weight

        def forward(self, step):
            if not self.weight:
                return {"confidence_penalty": no_loss(step.logits_BK)}
            log_BK = step.logits_BK.float().log_softmax(dim=1)
            loss = (log_BK.exp() * log_BK).sum(dim=1).mean()
            return {"confidence_penalty": self.weight * loss}
"""
PRESET = """
    description: "confidence penalty"
    extends: methods/baseline
    method:
      confidence_penalty: {weight: 0.2}
    search:
      method.confidence_penalty.weight:
        {type: float, low: 0.01, high: 1.0, log: true, reason: "a decade each side"}
"""
FILES = {
    "lumen/__init__.py": "",
    "lumen/settings.py": SETTINGS,
    "lumen/term.py": TERM,
    "lumen/studies/methods/confidence-penalty.yaml": PRESET,
}
OFFERS = {"skdtune.methods": {"confidence_penalty": "lumen.settings:ConfidencePenaltyConfig"}}

STUDY = "digits-confidence-penalty"
SMALL = [
    *("--set", "budget.epochs=1", "--set", "data.max_per_class=8", "--set", "data.batch_size=16"),
    *("--set", "model.name=resnet8", "--set", "model.width=4", "--trials", "2"),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tmp_path / "home")


@pytest.fixture
def lumen(site: Site) -> Site:
    site.install("lumen", FILES, OFFERS)
    return site


def attributes(home: Path, table: str) -> dict[str, Any]:
    """Return the user attributes of the first study, or of its first trial."""
    with sqlite3.connect(home / "skdtune.db") as database:
        key = "study_id" if table.startswith("study") else "trial_id"
        rows = database.execute(f"select key, value_json from {table} where {key} = 1").fetchall()
    return {key: json.loads(value) for key, value in rows}


def test_a_method_of_a_package_is_searched_and_named_with_every_trial(lumen: Site) -> None:
    plan = lumen.run("create-study", STUDY, *SMALL, "--dry-run")
    assert "method.confidence_penalty.weight" in plan.stdout, plan.stderr
    assert "Needs lumen 1.2: method confidence_penalty" in plan.stdout
    assert lumen.run("create-study", STUDY, *SMALL).returncode == 0
    trained = lumen.run("launch", STUDY, "--workers", "1")
    assert trained.returncode == 0, trained.stderr
    assert "2 complete" in trained.stdout + trained.stderr
    of_study = attributes(lumen.home, "study_user_attributes")
    needed = {"lumen": {"version": "1.2", "offers": ["method confidence_penalty"]}}
    assert of_study["skdtune:packages"] == needed
    assert '"confidence_penalty": {"weight": 0.2}' in of_study["skdtune:spec"]
    of_trial = attributes(lumen.home, "trial_user_attributes")
    assert of_trial["versions"]["lumen"] == "1.2"
    assert "confidence_penalty" in of_trial["losses"]


def test_who_lacks_the_package_takes_no_trial_and_is_told_which_to_install(lumen: Site) -> None:
    assert lumen.run("create-study", STUDY, *SMALL).returncode == 0
    for command in ("worker", "launch", "best", "trials", "status"):
        refused = lumen.run(command, STUDY, packages=False)
        assert refused.returncode == 2, command
        assert "it needs the package lumen 1.2 (method confidence_penalty)" in refused.stderr
        assert "pip install 'lumen==1.2'" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    with sqlite3.connect(lumen.home / "skdtune.db") as database:
        states = database.execute("select state, count(*) from trials group by state").fetchall()
    assert states == [("WAITING", 2)]


def test_a_study_of_built_in_things_is_the_same_with_a_package_and_without(lumen: Site) -> None:
    """Created with the package and read without it, and the other way round."""
    for packages, name in ((True, "with"), (False, "without")):
        made = lumen.run(
            "create-study", "digits-drg-dsr", *SMALL, "--name", name, packages=packages
        )
        assert made.returncode == 0, made.stderr
        read = lumen.run("status", name, packages=not packages)
        assert read.returncode == 0, read.stderr
        again = lumen.run(
            "create-study", "digits-drg-dsr", *SMALL, "--name", name, packages=not packages
        )
        assert "there already with the same spec" in again.stderr + again.stdout
    trained = lumen.run("worker", "with", packages=False)
    assert trained.returncode == 0, trained.stderr
    show = (
        "import skdtune; spec = skdtune.load_spec('digits-drg-dsr');"
        "from skdtune.worker.objective import config_hash;"
        "print(spec.digest, spec.to_json(), config_hash(spec.base_config()))"
    )
    first, second = (lumen.python("-c", show, packages=packages) for packages in (True, False))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert "confidence_penalty" not in first.stdout


def test_a_key_that_is_null_and_unknown_is_ignored(site: Site) -> None:
    read = (
        "import json, skdtune; from skdtune.describe.spec import spec_from_json;"
        "spec = skdtune.load_spec('digits-drg'); stored = json.loads(spec.to_json());"
        "stored['spec']['method']['of_tomorrow'] = None;"
        "stored['spec']['method']['drg']['of_tomorrow'] = None;"
        "stored['spec']['of_tomorrow'] = None;"
        "assert spec_from_json(json.dumps(stored)) == spec;"
        "stored['spec']['method']['of_tomorrow'] = {};"
        "spec_from_json(json.dumps(stored))"
    )
    refused = site.python("-c", read)
    assert "SpecError: stored spec: method.of_tomorrow: unknown key" in refused.stderr


def test_the_same_name_from_another_package_is_refused(lumen: Site, tmp_path: Path) -> None:
    assert lumen.run("create-study", STUDY, *SMALL).returncode == 0
    other = Site(tmp_path / "other", lumen.home)
    files = {path.replace("lumen", "nox"): text for path, text in FILES.items()}
    offers = {"skdtune.methods": {"confidence_penalty": "nox.settings:ConfidencePenaltyConfig"}}
    other.install("nox", {p: t.replace("lumen", "nox") for p, t in files.items()}, offers)
    refused = other.run("worker", STUDY)
    assert refused.returncode == 2
    expected = "created with the method confidence_penalty of lumen, here that is of nox"
    assert expected in refused.stderr


def test_a_package_that_cannot_be_imported_breaks_nothing_but_what_names_it(site: Site) -> None:
    site.install(
        "broken",
        {"broken/__init__.py": "import of_nobody"},
        {
            "skdtune.methods": {"confidence_penalty": "broken.settings:ConfidencePenaltyConfig"},
            "skdtune.datasets": {"stripes": "broken:STRIPES"},
            "skdtune.models": {"mixers": "broken:MIXERS"},
        },
    )
    assert site.run("create-study", "digits-drg", *SMALL).returncode == 0
    for named in ("method.confidence_penalty.weight=1", "data.name=stripes"):
        refused = site.run("create-study", "digits-drg", *SMALL, "--set", named, "--dry-run")
        assert refused.returncode == 2
        assert "broken 1.2" in refused.stderr
        assert "No module named 'of_nobody'" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("drg", SETTINGS, ""),
        ("terms", SETTINGS, "has a name that is taken"),
        (
            "confidence_penalty",
            SETTINGS.replace("(TermConfig)", "(object)"),
            "is no settings class",
        ),
        ("confidence_penalty", SETTINGS.replace('term = "', '"'), "name its term"),
    ],
)
def test_what_cannot_be_a_method_is_left_out_with_a_reason(
    site: Site, name: str, settings: str, reason: str
) -> None:
    files = {"lumen/__init__.py": "", "lumen/settings.py": settings}
    target = OFFERS["skdtune.methods"]["confidence_penalty"]
    site.install("lumen", files, {"skdtune.methods": {name: target}})
    plan = site.run("create-study", "digits-drg", *SMALL, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    if name == "drg":
        # What is built in wins, and is what it was.
        assert "Needs" not in plan.stdout
        return
    refused = site.run("create-study", "digits-drg", *SMALL, "--set", f"method.{name}.weight=1")
    assert refused.returncode == 2
    assert reason in refused.stderr

"""What an installed package offers: used, named with every trial, and missed where it is not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from throwaway_package import Site

from skdtune.describe.packages import differs, other_versions, what_is_missing
from skdtune.describe.presets import load_spec

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
    """Return attributes of the first study, or of its first trial."""
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
    of_study = attributes(lumen.home, "study_system_attributes")
    needed = {"lumen": {"version": "1.2", "offers": ["method confidence_penalty"]}}
    assert of_study["skdtune:packages"] == needed
    assert '"confidence_penalty": {"weight": 0.2}' in of_study["skdtune:spec"]
    of_trial = attributes(lumen.home, "trial_user_attributes")
    assert of_trial["versions"]["lumen"] == "1.2"
    assert "confidence_penalty" in of_trial["losses"]


def test_who_lacks_the_package_takes_no_trial_and_is_told_which_to_install(lumen: Site) -> None:
    assert lumen.run("create-study", STUDY, *SMALL).returncode == 0
    for command in ("worker", "best", "status"):
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
    trained = lumen.run("worker", "with", packages=False)
    assert trained.returncode == 0, trained.stderr
    show = (
        "import skdtune; spec = skdtune.load_spec('digits-drg-dsr');"
        "from skdtune.describe.config import config_hash;"
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


LABEL = """
    from typing import Literal

    from skdtune.describe.term_config import LabelTermConfig


    class MineConfig(LabelTermConfig):
        term = "odd.term:Mine"
        name: {kind} = "mine"
"""


def listed(site: Site) -> dict[str, str]:
    """Return the state of everything that the packages of a site offer, by its name."""
    shown = site.run("extensions", "--json")
    assert shown.returncode == 0, shown.stderr
    return {row["name"]: row["state"] for row in json.loads(shown.stdout)}


@pytest.mark.parametrize("kind", ["str", 'Literal["mine", "cross_entropy"]', "Literal['other']"])
def test_what_is_written_wrongly_is_in_nobodys_way(site: Site, kind: str) -> None:
    files = {
        "odd/__init__.py": "",
        "odd/settings.py": SETTINGS,
        "odd/label.py": LABEL.format(kind=kind),
        "odd/family.py": "from skdtune.extending import Family\nODD = Family('a:b', ['tiny'])",
        "odd/leaves.py": "import sys\nsys.exit(0)",
        "odd/first.py": SETTINGS.replace(
            "        term =", "        of_first_release = True\n        term ="
        ),
        "odd/undefined.py": SETTINGS.replace("weight: float", "weight: Missing"),
    }
    target = "odd.settings:ConfidencePenaltyConfig"
    methods = {
        **dict.fromkeys(("label", "name", "type"), target),
        "mine": "odd.label:MineConfig",
        "leaves": "odd.leaves:Nothing",
        "first": "odd.first:ConfidencePenaltyConfig",
        "undefined": "odd.undefined:ConfidencePenaltyConfig",
        "no": "not a valid!! value",
    }
    site.install(
        "odd", files, {"skdtune.methods": methods, "skdtune.models": {"odd": "odd.family:ODD"}}
    )
    states = listed(site)
    assert {name for name, state in states.items() if state == "ok"} == {"first"}
    for name in ("label", "name", "type"):
        assert states[name].startswith("has a name that is taken")
    assert states["leaves"] == "cannot be imported: SystemExit: 0"
    assert states["undefined"].startswith("has settings that cannot be used: PydanticUserError")
    assert states["odd"].startswith("cannot be imported: ValueError: the networks of a family")
    if kind != "Literal['other']":
        assert states["mine"] == (
            "learns from the labels: give it a field name: Literal['mine'] = 'mine'"
        )
    show = "import skdtune; print(skdtune.load_spec('digits-drg').to_json())"
    shown = [site.python("-c", show, packages=packages).stdout for packages in (True, False)]
    assert shown[0] == shown[1] != ""


def test_of_two_packages_with_one_name_neither_is_taken(site: Site) -> None:
    family = (
        "from skdtune.extending import Family, Network\n"
        "OF = Family('x.y:build', {{'tiny': Network(stages=('a',)), '{own}': "
        "Network(stages=('a',))}})"
    )
    shared = {"shared/__init__.py": "", "shared/settings.py": SETTINGS}
    for name in ("one", "two"):
        site.install(
            name,
            {**shared, f"{name}_family.py": family.format(own=name)},
            {
                "skdtune.methods": {"twin": "shared.settings:ConfidencePenaltyConfig"},
                "skdtune.models": {name: f"{name}_family:OF"},
            },
        )
    states = listed(site)
    assert states["twin"] == "one 1.2 and two 1.2 both offer it"
    for name, other in (("one", "two"), ("two", "one")):
        assert states[name].startswith(f"offers tiny, as the family of networks {other!r}")


def test_presets_of_packages_come_after_ours_and_break_nothing(site: Site) -> None:
    description = 'description: "not ended'
    files = {
        **FILES,
        "lumen/studies/data/digits-drg.yaml": "extends: data/digits\nnum_trials: 3\n",
        "lumen/studies/data/drg.yaml": "extends: data/digits\nnum_trials: 3\n",
        "lumen/studies/methods/drg.yaml": "extends: methods/baseline\n",
        "lumen/studies/methods/broken.yaml": description,
    }
    site.install("lumen", files, OFFERS)
    show = (
        "import skdtune; from skdtune.describe.preset_folder import part;"
        "print(*(skdtune.load_spec(f'digits-{m}').digest for m in ('drg', 'drg-dsr')),"
        "part('_base/drg').path)"
    )
    shown = [site.python("-c", show, packages=packages).stdout for packages in (True, False)]
    assert shown[0] == shown[1] != ""
    listed_presets = site.run("studies")
    assert listed_presets.returncode == 0, listed_presets.stderr
    assert "digits-confidence-penalty" in listed_presets.stdout
    assert "broken.yaml cannot be read" in listed_presets.stdout
    refused = site.run("create-study", "digits-broken", "--dry-run")
    assert refused.returncode == 2
    assert "broken.yaml" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit"])
def test_a_term_that_cannot_be_imported_costs_no_trial(site: Site, error: str) -> None:
    site.install("lumen", {**FILES, "lumen/term.py": f"raise {error}('not today')"}, OFFERS)
    assert site.run("create-study", STUDY, *SMALL).returncode == 0
    refused = site.run("worker", STUDY)
    assert refused.returncode == 2
    expected = f"the term lumen.term:ConfidencePenalty cannot be imported: {error}: not today"
    assert expected in refused.stderr
    with sqlite3.connect(site.home / "skdtune.db") as database:
        states = database.execute("select state, count(*) from trials group by state").fetchall()
    assert states == [("WAITING", 2)]


def test_an_upgrade_that_a_study_does_not_fit_is_named(lumen: Site, tmp_path: Path) -> None:
    assert lumen.run("create-study", STUDY, *SMALL).returncode == 0
    upgraded = Site(tmp_path / "upgraded", lumen.home)
    files = {**FILES, "lumen/settings.py": SETTINGS.replace("weight:", "strength:")}
    upgraded.install("lumen", files, OFFERS, version="2.0")
    refused = upgraded.run("worker", STUDY)
    assert refused.returncode == 2
    assert "method.confidence_penalty.weight" in refused.stderr
    assert "it was created with lumen 1.2, here is 2.0: pip install 'lumen==1.2'" in refused.stderr


@pytest.mark.parametrize(
    "row",
    [
        {"x": {"version": "1", "offers": 5}},
        {"x": None, "-r": {"version": "evil.txt", "offers": ["method y"]}},
        {"a; rm -rf ~": {"version": "1", "offers": ["method y"]}},
        {f"x{n}": {"version": "1", "offers": ["method y"] * 1000} for n in range(1000)},
        ["lumen"],
    ],
)
def test_what_somebody_wrote_into_the_row_is_not_repeated(row: object) -> None:
    spec = load_spec("digits-drg")
    for said in (what_is_missing(row), other_versions(row), differs(spec, row)):
        assert len(said) < 30_000
        assert "rm" not in said
        assert "-r" not in said


def test_a_label_term_that_is_only_searched_is_needed_too(site: Site) -> None:
    files = {"odd/__init__.py": "", "odd/label.py": LABEL.format(kind="Literal['mine']")}
    site.install("odd", files, {"skdtune.methods": {"mine": "odd.label:MineConfig"}})
    search = "search.method.label.name={type: choice, choices: [cross_entropy, mine]}"
    plan = site.run("create-study", "digits-baseline", *SMALL, "--set", search, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "Needs odd 1.2: method mine" in plan.stdout

"""From a budget in images or device seconds to epochs, before a study is created.

How many images an epoch has, and how long it takes, is for the data and this machine to tell: a
process of its own looks, because describing a study needs no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from skdtune.describe import dotted
from skdtune.describe.spec import StudySpec, parse
from skdtune.errors import InputError, SpecError
from skdtune.home import Home, home


def plan_budget(spec: StudySpec, *, at: Home | None = None) -> StudySpec:
    """Derive the epochs of a study whose budget is given in images or seconds.

    Args:
        spec: The study; one whose budget is given in epochs is returned as it is.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.

    Returns:
        The study with planned epochs: as many whole ones as the budget pays for.

    Raises:
        SpecError: If the budget pays for less than one epoch, or the study is wrong with the
            epochs that it pays for.
        InputError: If data or device cannot be used here.
    """
    budget = spec.budget
    if not budget.is_open:
        return spec
    seen = _look(spec, at or home(), is_timed=budget.seconds is not None)
    if budget.images is not None:
        given, each, unit = float(budget.images), float(seen["images"]), "images"
    else:
        given, each, unit = float(budget.seconds or 0), float(seen["seconds"]), "seconds"
    epochs = int(given / each + 1e-9)
    if epochs < 1:
        raise SpecError(
            f"budget.{unit}: {given:g} do not pay for one epoch of {spec.name}, which takes "
            f"{each:g}"
        )
    return _with_epochs(spec, epochs)


def measure_epoch(spec: StudySpec, *, at: Home | None = None) -> float:
    """Measure for a few seconds what an epoch of a study's published setting takes here.

    Args:
        spec: The study.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.

    Returns:
        Device seconds, validation included.

    Raises:
        InputError: If data or device cannot be used here.
    """
    return float(_look(spec, at or home(), is_timed=True)["seconds"])


def planned_before(spec: StudySpec, stored: StudySpec | None) -> StudySpec | None:
    """Return what a study was planned as, if it differs in nothing but that.

    Args:
        spec: A study whose budget is open.
        stored: The study of that name, if there is one.
    """
    if stored is None or not stored.budget.planned:
        return None
    try:
        planned = _with_epochs(spec, stored.budget.epochs)
    except SpecError:
        return None
    return planned if planned == stored else None


def _with_epochs(spec: StudySpec, epochs: int) -> StudySpec:
    raw = dotted.put(spec.model_dump(mode="json"), "budget.epochs", epochs)
    return parse(StudySpec, dotted.put(raw, "budget.planned", True), spec.name)


def _look(spec: StudySpec, at: Home, *, is_timed: bool) -> dict[str, Any]:
    """Ask another process what an epoch of the published setting takes."""
    asked = json.dumps({"spec": json.loads(spec.to_json()), "is_timed": is_timed})
    # Without -P a file in the current folder could stand in for a library.
    command = [sys.executable, "-P", "-m", "skdtune.worker.probes.epoch_cost"]
    environment = {"data": str(at.data), "cache": str(at.cache)}
    looked = subprocess.run(
        [*command, json.dumps(environment)],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    if looked.returncode != 0:
        said = looked.stderr.strip().splitlines() or ["it ended without a word"]
        raise InputError(f"the budget of {spec.name} cannot be planned here: {said[-1][:300]}")
    seen: dict[str, Any] = json.loads(looked.stdout.splitlines()[-1])
    return seen

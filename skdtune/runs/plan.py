"""What one training without a study is: its configuration, its images, its name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skdtune.describe.budget_planning import plan_budget
from skdtune.describe.config import TrialConfig
from skdtune.describe.data_source import DataSource
from skdtune.describe.presets import Changes, load_single, single_of
from skdtune.describe.settings import canonical
from skdtune.describe.spec import StudySpec
from skdtune.home import Home

_DIGEST_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is trained, once."""

    spec: StudySpec
    """A study that searches nothing; its seed is the training's."""

    all_images: bool = False
    """Learn from training and validation images together, as a final evaluation does."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the configuration is from: ``study``, ``trial`` and ``spec_hash``; empty if not from
    a study."""

    pinned: DataSource | None = None
    """What the images of that study come from."""

    @property
    def config(self) -> TrialConfig:
        """The full configuration."""
        return self.spec.base_config()

    @property
    def digest(self) -> str:
        """Identify what is trained, whatever it is called: 16 hexadecimal digits."""
        return _hash([canonical(self.config), self.all_images])

    @property
    def folder_name(self) -> str:
        """``<name>-<hash of the configuration>-seed<seed>``: one name for all seeds of one."""
        unseeded = {**canonical(self.config), "seed": 0}
        short = _hash([unseeded, self.all_images])[:_DIGEST_LENGTH]
        return f"{self.spec.name}-{short}-seed{self.spec.seed}"


def plan_run(
    study: str,
    changes: Changes | None = None,
    *,
    name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    all_images: bool = False,
    at: Home | None = None,
) -> RunPlan:
    """Plan to train the published setting of a preset, or of a study file, once.

    Args:
        study: Name of a preset, or path of a YAML file.
        changes: What is changed of it.
        name: What the training is called; default as the preset.
        epochs: How long it is; default as the preset says. The schedule is one of shares.
        seed: Its seed; default that of the file, else 0.
        all_images: Learn from the validation images, too.
        at: Folders of data and cache, for a budget in images; default those of ``SKDTUNE_HOME``.

    Raises:
        SpecError: One line with file, key, what was received and what is allowed.
        InputError: If the budget is given in images, and the data cannot be used here.
    """
    spec = load_single(study, changes or Changes(), name=name, epochs=epochs, seed=seed)
    return RunPlan(spec=plan_budget(spec, at=at), all_images=all_images)


def plan_of_trial(
    config: TrialConfig,
    changes: Changes,
    *,
    study: str,
    number: int,
    spec_hash: str,
    pinned: DataSource | None = None,
    name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    all_images: bool = False,
) -> RunPlan:
    """Plan to train a trial of a study again, without the study.

    Args:
        config: What the trial trained.
        changes: What is changed of it.
        study: Name of the study.
        number: Number of the trial.
        spec_hash: Hash of the study's spec.
        pinned: What the study's training images come from.
        name: What the training is called; default ``<study>-trial-<number>``.
        epochs: How long it is; default as the trial. The schedule is one of shares: it stretches.
        seed: Its seed; default that of the trial.
        all_images: Learn from the validation images, too.

    Raises:
        SpecError: If a change, or the length, does not fit.
    """
    # A study may have any name in a storage that others write to.
    usual = re.sub(r"[^\w.-]", "-", f"{study}-trial-{number}", flags=re.ASCII).lstrip("._-")
    raw = {
        **config.model_dump(mode="json"),
        "name": usual[-100:],
        "description": f"trial {number} of {study}",
    }
    source = f"trial {number} of {study}"
    return RunPlan(
        spec=single_of(raw, source, changes, name=name, epochs=epochs, seed=seed),
        all_images=all_images,
        origin={"study": study, "trial": number, "spec_hash": spec_hash},
        pinned=pinned,
    )


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

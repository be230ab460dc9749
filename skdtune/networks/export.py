"""Hand out the network of a trial, which its study keeps as an artifact."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from skdtune.analysis.verdict import standard_error
from skdtune.errors import StudyError
from skdtune.home import Home, artifacts_url, storage_url
from skdtune.models.network_file import NetworkFile, read_network_file
from skdtune.networks.export_folder import Origin, require_free, write_export
from skdtune.networks.network_artifact import Agreement, read_artifact
from skdtune.queue.best_trial import best_first
from skdtune.queue.checked_values import count
from skdtune.queue.foreign_trials import read_checked
from skdtune.queue.kept_network import KeptFile, network_of
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_attributes import score_attribute


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported."""

    folder: Path
    """Where it lies."""

    trial: int
    """Number of the trial."""

    files: tuple[str, ...]
    """Names of the files."""

    agreement: Agreement
    """How near the network comes to the one that was evaluated."""

    def to_dict(self, study: str) -> dict[str, Any]:
        """Return plain data for JSON.

        Args:
            study: Name of the study.
        """
        return {
            "study": study,
            "trial": self.trial,
            "folder": str(self.folder),
            "files": list(self.files),
            "agreement": dataclasses.asdict(self.agreement),
        }


def export_network(
    study: str,
    *,
    number: int | None = None,
    folder: Path | None = None,
    with_program: bool = True,
    storage: str | None = None,
    at: Home | None = None,
) -> Exported:
    """Export the network of a trial, without its auxiliary classifiers.

    Args:
        study: Name of the study.
        number: Number of the trial; default the best one. Of a final evaluation the first one,
            since to choose by the test images is not for it.
        folder: Where to; default ``<study>-trial-<number>`` here. It must not exist, or be empty.
        with_program: Whether to write the torch.export program, too.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        at: Where the artifacts lie unless ``SKDTUNE_ARTIFACTS`` says otherwise.

    Raises:
        StudyError: If there is no such study or trial, or its network was not kept.
        InputError: If the folder cannot be used.
        DataError: If the artifact is damaged, or its outputs are not those that were evaluated.
        SkdtuneError: If the artifact cannot be read.
    """
    with contextlib.closing(load_study(study, storage=storage_url(storage, at=at))) as stored:
        trial = _pick(stored, number)
        kept = _require_kept(stored, trial)
    target = (folder or Path(f"{study}-trial-{trial.number}")).expanduser().absolute()
    require_free(target)
    content = read_artifact(artifacts_url(at=at), kept.artifact_id)
    file = read_network_file(content, kept.sha256)
    agreement = write_export(target, file, _origin(stored, trial, file), with_program=with_program)
    files = tuple(sorted(path.name for path in target.iterdir()))
    return Exported(folder=target, trial=trial.number, files=files, agreement=agreement)


def _pick(stored: StoredStudy, number: int | None) -> FrozenTrial:
    checked = read_checked(stored.storage, stored.study_id, stored.spec.kind)
    name = stored.spec.name
    if number is not None:
        found = next((one for one in checked if one.trial.number == number), None)
        if found is None:
            raise StudyError(f"study {name!r} has no trial {number}, it has {len(checked)} trials")
        if found.foreign:
            raise StudyError(f"trial {number} of {name!r} is foreign: {found.foreign}")
        trial = found.trial
        if trial.state is not TrialState.COMPLETE:
            raise StudyError(
                f"trial {number} of {name!r} is {trial.state.name.lower()}: only complete trials "
                "have a network"
            )
        return trial
    own = [one.trial for one in checked if not one.foreign]
    ranked = best_first(trial for trial in own if trial.state is TrialState.COMPLETE)
    if not ranked:
        raise StudyError(f"study {name!r} has no complete trial yet: skdtune best {name}")
    chosen = stored.spec.kind.default_trial([trial.number for trial in ranked])
    return next(trial for trial in ranked if trial.number == chosen)


def _require_kept(stored: StoredStudy, trial: FrozenTrial) -> KeptFile:
    kept = network_of(trial.system_attrs)
    if kept is not None:
        return kept
    name, keep = stored.spec.name, stored.spec.keep_networks
    why = stored.spec.kind.without_network(name, keep)
    raise StudyError(f"the network of trial {trial.number} of {name!r} was not kept{why}")


def _origin(stored: StoredStudy, trial: FrozenTrial, file: NetworkFile) -> Origin:
    trained = {
        "study": stored.spec.name,
        "trial": trial.number,
        "spec_hash": stored.digest,
        "study_seed": stored.spec.seed,
        "params": trial.params,
        "value": trial.value,
        "measured": _measured(stored, trial.user_attrs, file),
    }
    return Origin(trained=trained, recorded={"user_attributes": trial.user_attrs})


def _measured(
    stored: StoredStudy, attributes: Mapping[str, Any], file: NetworkFile
) -> dict[str, Any]:
    kind = stored.spec.kind
    prefix = kind.scores_prefix
    num_images = count(attributes.get(f"num_{prefix}_images"))
    return {
        "images": kind.judged_images,
        "num_images": num_images,
        "accuracy": file.info.accuracy,
        "standard_error": standard_error(file.info.accuracy, num_images),
        "scores": {
            name: attributes.get(score_attribute(prefix, name)) for name in ("top5", "ece", "nll")
        },
    }

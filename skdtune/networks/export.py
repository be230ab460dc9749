"""Hand out the network of a trial: weights, program and model card, checked and all or nothing.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from optuna.trial import FrozenTrial, TrialState

from skdtune.analysis.verdict import standard_error
from skdtune.data.augmentation import normalise
from skdtune.errors import DataError, InputError, StudyError
from skdtune.home import Home, artifacts_url, storage_url
from skdtune.models.backbone import ImageClassifier
from skdtune.models.network_file import NetworkFile, read_network_file, write_network
from skdtune.networks.model_card import model_card
from skdtune.networks.network_artifact import Agreement, check_outputs, read_artifact
from skdtune.queue.best_trial import best_first
from skdtune.queue.checked_values import count
from skdtune.queue.foreign_trials import read_checked
from skdtune.queue.kept_network import KeptFile, network_of
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_attributes import score_attribute

#: Largest difference of the program's outputs, as a share of the largest of them.
_PROGRAM_TOLERANCE = 1e-5

_STATE, _PROGRAM, _CARD, _FACTS = "model.safetensors", "model.pt2", "README.md", "trial.json"


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
    _require_free(target)
    content = read_artifact(artifacts_url(at=at), kept.artifact_id)
    file = read_network_file(content, kept.sha256)
    agreement = check_outputs(file)
    with _new_folder(target) as filling:
        _write_weights(filling / _STATE, file)
        if with_program:
            _write_program(filling / _PROGRAM, file)
        facts = _facts(stored, trial, kept, file, agreement, filling)
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (filling / _FACTS).write_text(text, encoding="utf-8")
        (filling / _CARD).write_text(model_card(facts), encoding="utf-8")
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


def _require_free(target: Path) -> None:
    try:
        is_free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    except OSError as error:
        raise InputError(f"{target} cannot be used: {error.strerror}") from None
    if not is_free:
        raise InputError(f"{target} is there already; choose another folder with -o")


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Fill a folder that takes its name when all is in it."""
    filling = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        filling.mkdir(parents=True)
        yield filling
        # Over an empty folder, and over nothing else: what came there meanwhile stays.
        os.rename(filling, target)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}; choose another folder with -o"
        ) from error
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def _write_weights(path: Path, file: NetworkFile) -> None:
    """Write the plain state dict; the description in its metadata makes it a teacher."""
    path.write_bytes(write_network(file.info, file.state))
    # What was written, and not what was meant.
    read = safetensors.torch.load_file(path)
    if read.keys() != file.state.keys() or not all(
        torch.equal(read[name], tensor) for name, tensor in file.state.items()
    ):
        raise DataError(f"{path.name} does not hold what was written to it")


def _write_program(path: Path, file: NetworkFile) -> None:
    """Write the network as a program that needs torch alone, and try it."""
    check = file.check
    assert check is not None
    mean_C, std_C = torch.tensor(file.info.mean), torch.tensor(file.info.std)
    # Channels first, as anybody's images lie in memory.
    images_BCHW = normalise(check.images_NCHW, mean_C, std_C).contiguous()
    network = file.build().requires_grad_(False).to(memory_format=torch.contiguous_format)
    torch.export.save(export_program(network, images_BCHW), path)
    program = torch.export.load(path).module()
    for batch_BCHW in (images_BCHW, images_BCHW[:1]):
        with torch.inference_mode():
            expected_BK, found_BK = network(batch_BCHW), program(batch_BCHW)
        difference = float((found_BK - expected_BK).abs().max() / expected_BK.abs().max())
        if not difference <= _PROGRAM_TOLERANCE:
            raise DataError(
                f"the program's outputs differ by {difference:.1e} of the largest from the "
                "network's; --no-program leaves it out"
            )


def export_program(
    network: ImageClassifier, images_BCHW: torch.Tensor
) -> torch.export.ExportedProgram:
    """Trace a network into torch's own operations, for batches of any length.

    Args:
        network: In evaluation mode, on the CPU.
        images_BCHW: Normalised images, of the size that the program will take.
    """
    # One image would be taken for a constant.
    example_BCHW = images_BCHW[:1].expand(2, -1, -1, -1).contiguous()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        network, (example_BCHW,), dynamic_shapes=({0: batch},), strict=False
    )
    # Where this package lies on the machine is nobody's business.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _facts(
    stored: StoredStudy,
    trial: FrozenTrial,
    kept: KeptFile,
    file: NetworkFile,
    agreement: Agreement,
    folder: Path,
) -> dict[str, Any]:
    """Gather what the card is written from; plain data."""
    return {
        "study": stored.spec.name,
        "trial": trial.number,
        "spec_hash": stored.digest,
        "study_seed": stored.spec.seed,
        "params": trial.params,
        "value": trial.value,
        "measured": _measured(stored, trial.user_attrs, file),
        "num_parameters": sum(p.numel() for p in file.build().parameters()),
        "agreement": agreement.describe(),
        "artifact_sha256": kept.sha256,
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
        },
        "network": file.info.model_dump(mode="json"),
        "user_attributes": trial.user_attrs,
    }


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

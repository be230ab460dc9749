"""The model card of a run, and the folder that `skdtune export` hands out of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skdtune.errors import InputError
from skdtune.models.network_file import read_network_file
from skdtune.networks.export_folder import Origin, write_export
from skdtune.networks.model_card import model_card
from skdtune.networks.network_artifact import Agreement, check_outputs
from skdtune.runs.run_folder import NETWORK, RESULT, RunFolder


def export_run(path: Path, target: Path, *, with_program: bool = True) -> Agreement:
    """Export the network of a finished run, as that of a trial is.

    Args:
        path: The folder of the run.
        target: Folder to make. It must not exist, or be empty.
        with_program: Whether to write the torch.export program, too.

    Raises:
        InputError: If the run is not finished, or the folder cannot be used.
        DataError: If the network is damaged, or its outputs are not those that were evaluated.
    """
    run = RunFolder(path)
    result = run.result()
    if result is None:
        raise InputError(f"{path} is not finished: there is no {RESULT} in it")
    file = read_network_file(path / NETWORK, str(result.get("network_sha256")))
    return write_export(target, file, _origin(result), with_program=with_program)


def card_of_run(path: Path, result: Mapping[str, Any]) -> str:
    """Write the card of a network that lies in the folder of its run, after a check of it.

    Args:
        path: The folder.
        result: What the run came to.

    Raises:
        DataError: If the outputs of the network are not those that were evaluated.
    """
    file = read_network_file(path / NETWORK)
    agreement = check_outputs(file)
    return model_card(_origin(result).facts(file, agreement, [path / NETWORK]))


def _origin(result: Mapping[str, Any]) -> Origin:
    prefix, images = ("test", "test") if "test_accuracy" in result else ("val", "validation")
    trained = {
        "run": result["name"],
        "run_hash": result["run_hash"],
        "from": result.get("from"),
        "measured": {
            "images": images,
            "num_images": result[f"num_{prefix}_images"],
            "accuracy": result[f"{prefix}_accuracy"],
            "standard_error": result[f"{prefix}_standard_error"],
            "scores": {name: result.get(f"{prefix}_{name}") for name in ("top5", "ece", "nll")},
        },
    }
    return Origin(trained=trained, recorded={"result": dict(result)})

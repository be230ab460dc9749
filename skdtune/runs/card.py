"""The model card of a run, and the folder that `skdtune export` hands out of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skdtune.errors import InputError
from skdtune.models.network_file import NetworkFile, read_network_file
from skdtune.networks.export_folder import card_facts, write_export
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
    return write_export(target, file, _origin(result, file), with_program=with_program)


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
    return model_card(card_facts(_origin(result, file), file, agreement, [path / NETWORK]))


def _origin(result: Mapping[str, Any], file: NetworkFile) -> dict[str, Any]:
    images = "test" if "test_accuracy" in result else "val"
    return {
        "run": result["name"],
        "run_hash": result["run_hash"],
        "from": result.get("from"),
        "measured": {
            "images": "test" if images == "test" else "validation",
            "num_images": result[f"num_{images}_images"],
            "accuracy": result[f"{images}_accuracy"],
            "standard_error": result[f"{images}_standard_error"],
            "scores": {name: result.get(f"{images}_{name}") for name in ("top5", "ece", "nll")},
        },
        "artifact_sha256": file.sha256,
        "result": dict(result),
    }

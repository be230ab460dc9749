"""A folder with a network to hand out: weights, program and model card, checked, all or nothing.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from skdtune.data.augmentation import normalise
from skdtune.errors import DataError, InputError
from skdtune.models.backbone import ImageClassifier
from skdtune.models.network_file import NetworkFile, write_network
from skdtune.networks.model_card import CARD, FACTS, PROGRAM, STATE, model_card
from skdtune.networks.network_artifact import Agreement, check_outputs

#: Largest difference of the program's outputs, as a share of the largest of them.
_PROGRAM_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a model card says of a network beside what its file says; plain data."""

    trained: Mapping[str, Any]
    """What trained it, and how it was ``measured``."""

    recorded: Mapping[str, Any]
    """All that the training left behind."""

    def facts(
        self, file: NetworkFile, agreement: Agreement, files: Iterable[Path]
    ) -> dict[str, Any]:
        """Gather what the card is written from.

        Args:
            file: The network.
            agreement: How near its outputs come to those that were evaluated.
            files: What is handed out with the card.
        """
        return {
            **self.trained,
            "num_parameters": sum(p.numel() for p in file.build().parameters()),
            "agreement": agreement.describe(),
            "artifact_sha256": file.sha256,
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
            "network": file.info.model_dump(mode="json"),
            **self.recorded,
        }


def write_export(
    target: Path, file: NetworkFile, origin: Origin, *, with_program: bool
) -> Agreement:
    """Write a network without its auxiliary classifiers into a new folder.

    Args:
        target: The folder. It must not exist, or be empty.
        file: The network with the outputs that it is checked by.
        origin: Where it comes from and how it was measured, as the card tells it.
        with_program: Whether to write the torch.export program, too.

    Returns:
        How near its outputs come to those of the network that was evaluated.

    Raises:
        InputError: If the folder cannot be used.
        DataError: If its outputs are not those that were evaluated.
    """
    require_free(target)
    agreement = check_outputs(file)
    with _new_folder(target) as filling:
        _write_weights(filling / STATE, file)
        if with_program:
            _write_program(filling / PROGRAM, file)
        facts = origin.facts(file, agreement, sorted(filling.iterdir()))
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        (filling / FACTS).write_text(text, encoding="utf-8")
        (filling / CARD).write_text(model_card(facts), encoding="utf-8")
    return agreement


def require_free(target: Path) -> None:
    """Refuse a folder in which something lies.

    Raises:
        InputError: If something does, or it cannot be read.
    """
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

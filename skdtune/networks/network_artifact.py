"""Write down a trained network, keep the file, and check that a network read back is the same.

Tensor shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skdtune.data.augmentation import normalise
from skdtune.data.batches import DeviceImages
from skdtune.errors import DataError, SkdtuneError
from skdtune.home import shown
from skdtune.models.backbone import Backbone
from skdtune.models.network_file import (
    NetworkFile,
    NetworkInfo,
    OutputCheck,
    read_network_file,
    write_network,
)
from skdtune.queue.kept_network import KeptFile
from skdtune.training.device import autocast
from skdtune.training.files import (
    absolute,
    make_folder,
    open_folder,
    persistently,
    reason_of,
    write_file,
)

#: Images whose outputs are written down with a network.
NUM_CHECK_IMAGES = 8

#: Largest difference to the written outputs, as a share of the largest of them. Rounding to
#: bfloat16, and a GPU's TF32, differ from device to device; float32 on a CPU hardly does.
_FLOAT32_TOLERANCE = 1e-4
_ROUNDED_TOLERANCE = 0.1

_ARTIFACT_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Agreement:
    """How near a network that was read back comes to the one that was evaluated."""

    num_images: int
    """Images it was tried on."""

    precision: str
    """Arithmetic of the evaluation."""

    difference: float
    """Largest difference in that arithmetic, as a share of the largest output."""

    difference_float32: float
    """The same in float32 on the CPU."""

    def describe(self) -> str:
        """Say in a sentence how well they agree."""
        if self.difference == self.difference_float32 == 0:
            return f"equal, bit for bit, on {self.num_images} images"
        return (
            f"equal on {self.num_images} images within {self.difference:.1e} of the largest "
            f"output in {self.precision}, and within {self.difference_float32:.1e} in float32"
        )


def pack_network(
    network: Backbone, images: DeviceImages, dtype: torch.dtype | None, info: NetworkInfo
) -> bytes:
    """Write a trained network down, with its outputs on a few images; it is left evaluating.

    Args:
        network: The network without its auxiliary classifiers, on any device.
        images: Where the few images come from.
        dtype: Type of autocast of the evaluation, None for float32.
        info: What the file says about it.
    """
    network.eval()
    count = min(NUM_CHECK_IMAGES, len(images))
    rows_N = torch.linspace(0, len(images) - 1, count, device=images.device).long()
    raw_NCHW = images.raw(rows_N)
    logits_NK = outputs(network, raw_NCHW, images.mean_C, images.std_C, dtype)
    state = network.state_dict()
    # By what a reader makes of it, and on the CPU: a GPU rounds float32 in ways of its own.
    draft = read_network_file(write_network(info, state))
    in_float32_NK = _outputs_on_cpu(draft, raw_NCHW.cpu(), None)
    check = OutputCheck(images_NCHW=raw_NCHW, logits_NK=logits_NK, logits_float32_NK=in_float32_NK)
    return write_network(info, state, check)


def outputs(
    network: Backbone,
    raw_NCHW: Tensor,
    mean_C: Tensor,
    std_C: Tensor,
    dtype: torch.dtype | None,
) -> Tensor:
    """Return a network's logits for raw images as float32, shape ``[N, K]``.

    Args:
        network: In evaluation mode, on the device of the images.
        raw_NCHW: Images, uint8.
        mean_C: Mean of each channel, on the scale 0 to 1.
        std_C: Standard deviation of each channel.
        dtype: Type of autocast, None for float32.
    """
    with torch.inference_mode(), autocast(dtype, raw_NCHW.device):
        images_NCHW = normalise(raw_NCHW, mean_C, std_C)
        # Not by a call: a network that is compiled would be compiled anew for so few images.
        return network.forward(images_NCHW).logits_BK.float()


def check_outputs(file: NetworkFile) -> Agreement:
    """Compute the written outputs again, on this CPU, and compare.

    Raises:
        DataError: If they differ by more than rounding explains, or were not written.
    """
    check = file.check
    if check is None:
        raise DataError("the file holds no outputs of the network that was evaluated")
    dtype = torch.bfloat16 if file.info.precision == "bfloat16" else None
    images_NCHW = check.images_NCHW
    difference = _difference(_outputs_on_cpu(file, images_NCHW, dtype), check.logits_NK)
    in_float32 = _difference(_outputs_on_cpu(file, images_NCHW, None), check.logits_float32_NK)
    on_cpu = file.info.environment.get("device", "").startswith("cpu")
    is_exact = dtype is None and on_cpu
    allowed = _FLOAT32_TOLERANCE if is_exact else _ROUNDED_TOLERANCE
    # Not a number is no agreement either.
    if not (difference <= allowed and in_float32 <= _FLOAT32_TOLERANCE):
        raise DataError(
            "the network's outputs are not those of the network that was evaluated: they differ "
            f"by {difference:.1e} of the largest, in float32 by {in_float32:.1e}"
        )
    return Agreement(len(images_NCHW), file.info.precision, difference, in_float32)


def _outputs_on_cpu(file: NetworkFile, raw_NCHW: Tensor, dtype: torch.dtype | None) -> Tensor:
    mean_C, std_C = torch.tensor(file.info.mean), torch.tensor(file.info.std)
    raw_NCHW = raw_NCHW.contiguous(memory_format=torch.channels_last)
    return outputs(file.build().backbone, raw_NCHW, mean_C, std_C, dtype)


def _difference(logits_NK: Tensor, expected_NK: Tensor) -> float:
    largest = expected_NK.abs().max().clamp(min=1e-30)
    return float((logits_NK - expected_NK).abs().max() / largest)


def store_artifact(url: str, content: bytes) -> KeptFile:
    """Write a file into an artifact store, under a new name.

    Args:
        url: A folder, or an fsspec URL.
        content: The whole file.

    Raises:
        SkdtuneError: If it cannot be written.
    """
    artifact_id = uuid.uuid4().hex
    with _saying_where(url, "cannot be written"):
        files, folder = open_folder(absolute(url))
        make_folder(files, folder)
        write_file(files, folder, artifact_id, content)
    return KeptFile(artifact_id, hashlib.sha256(content).hexdigest(), len(content))


def read_artifact(url: str, artifact_id: str) -> bytes:
    """Read a file of an artifact store.

    Args:
        url: A folder, or an fsspec URL.
        artifact_id: Its name in the store.

    Raises:
        SkdtuneError: If it is not there, or cannot be read.
    """
    # The name comes out of a database, and must not lead out of the store.
    if not _ARTIFACT_ID.fullmatch(artifact_id):
        raise DataError(f"{artifact_id!r} is no name of an artifact")
    with _saying_where(url, "cannot be read"):
        files, folder = open_folder(absolute(url))
        content: bytes = persistently(lambda: files.cat_file(f"{folder}/{artifact_id}"))
    return content


def remove_artifact(url: str, artifact_id: str) -> None:
    """Remove a file that nothing names; best effort, and no harm if it stays."""
    with contextlib.suppress(Exception):
        files, folder = open_folder(absolute(url))
        files.rm_file(f"{folder}/{artifact_id}")


@contextlib.contextmanager
def _saying_where(url: str, problem: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason: Any = reason_of(error)
        raise SkdtuneError(f"the artifact store {shown(absolute(url))} {problem}: {reason}") from (
            error
        )

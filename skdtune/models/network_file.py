"""A trained network in one file: safetensors, with all that is needed to use and to check it.

The file holds the backbone's tensors under the names that they have in its state dict, and a
description as metadata. The file that a worker keeps also holds a few raw images with the logits
that the network gave for them; the one that is exported is a plain state dict. It is data: reading
it executes nothing.

Tensor shapes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from torch import Tensor

from skdtune.catalogues.catalogue import Package
from skdtune.catalogues.models import (
    MODELS,
    StemChoice,
    family_of,
    network_named,
    networks,
    usable_family,
)
from skdtune.describe.settings import Frozen
from skdtune.errors import DataError, InputError, in_one_line
from skdtune.models.backbone import Backbone, ImageClassifier, build_backbone

_METADATA_KEY = "skdtune"
#: Name of the format in the metadata; a reader refuses another one instead of guessing.
NETWORK_FORMAT = "skdtune network 1"

_CHECK_IMAGES = "check.images"
_CHECK_LOGITS = "check.logits"
_CHECK_FLOAT32 = "check.logits_float32"
#: Tensors of a file that are none of its network.
CHECKS = (_CHECK_IMAGES, _CHECK_LOGITS, _CHECK_FLOAT32)
# The description is text; the tensors follow after it.
_MAX_HEADER = 100 * 2**20

Precision = Literal["float32", "bfloat16"]


class NetworkInfo(Frozen):
    """What a file says about its network."""

    model: str
    """Name of the backbone."""

    width: int | None = Field(ge=1)
    """Channels of its first stage; None if they cannot be chosen."""

    in_channels: int = Field(ge=1)
    """Channels of an image."""

    height: int = Field(ge=1)
    """Rows of an image."""

    image_width: int = Field(ge=1)
    """Columns of an image."""

    class_names: tuple[str, ...] = Field(min_length=1)
    """Name of each class, in the order of the logits."""

    mean: tuple[float, ...]
    """Mean of each channel on the scale 0 to 1, which is taken off an image."""

    std: tuple[float, ...]
    """Standard deviation of each channel, by which an image is then divided."""

    data_fingerprint: str
    """What identifies the images that it learned from and was judged on."""

    trained_on: Literal["train", "train+val"]
    """Images that it learned from: those of a search, or of a final evaluation."""

    config: dict[str, Any]
    """Full configuration of the trial, as plain data."""

    study: str
    """Name of the study."""

    trial: int = Field(ge=0)
    """Number of the trial."""

    accuracy: float = Field(ge=0, le=1)
    """Share that it classified right, of the validation or of the test images."""

    precision: Precision
    """Arithmetic of the evaluation."""

    environment: dict[str, str]
    """Where it was evaluated: device, kernels, threads and versions."""

    package: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+ [A-Za-z0-9._+!-]+$")
    """Name and version of the package that offered its family; None for one of skdtune."""

    stem: StemChoice = "default"
    """What it begins with."""

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.class_names)

    @model_serializer(mode="wrap")
    def _as_before_there_was_more_to_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        plain: dict[str, Any] = serialize(self)
        # Other releases read the files of what they can build themselves.
        unsaid = {"package": None, "stem": "default"}
        return {k: v for k, v in plain.items() if k not in unsaid or v != unsaid[k]}


def package_that_offers(model: str) -> str | None:
    """Return name and version of the package that a network comes from, None for skdtune's own."""
    family = family_of(model)
    package = MODELS.package(family)
    if package is None and (name := usable_family(family).package) is not None:
        package = Package(name, version(name))
    return None if package is None else str(package)


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputCheck:
    """A few images and what the evaluated network gave for them."""

    images_NCHW: Tensor
    """Raw images, uint8."""

    logits_NK: Tensor
    """Logits where the network was evaluated, as float32."""

    logits_float32_NK: Tensor
    """Logits in float32 on a CPU."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkFile:
    """The content of a file, checked against the architecture that it names."""

    info: NetworkInfo
    """What the file says about its network."""

    state: Mapping[str, Tensor]
    """State dict of the backbone, on the CPU."""

    check: OutputCheck | None
    """What its outputs can be checked by, if that is in the file."""

    sha256: str
    """Checksum of the whole file."""

    def build(self) -> ImageClassifier:
        """Build the network in evaluation mode, on the CPU; its tensors are its own.

        It maps normalised images ``[B, C, H, W]`` to logits ``[B, K]``.
        """
        backbone = _outline(self.info)
        backbone.load_state_dict({k: v.clone() for k, v in self.state.items()}, assign=True)
        return ImageClassifier(backbone).to(memory_format=torch.channels_last).eval()


def write_network(
    info: NetworkInfo,
    state: Mapping[str, Tensor],
    check: OutputCheck | None = None,
) -> bytes:
    """Write a network as the content of a file.

    Args:
        info: What the file says about it.
        state: State dict of the backbone, on any device.
        check: Images and outputs; None for a plain state dict.
    """
    tensors = dict(state)
    if check is not None:
        values = (check.images_NCHW, check.logits_NK, check.logits_float32_NK)
        tensors |= dict(zip(CHECKS, values, strict=True))
    plain = {
        name: tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    description = {"format": NETWORK_FORMAT, "description": info.model_dump(mode="json")}
    text = json.dumps(description, ensure_ascii=False, sort_keys=True)
    # One entry: several are written in any order, and a file's checksum would be any of several.
    return safetensors.torch.save(plain, {_METADATA_KEY: text})


def read_network_file(source: str | Path | bytes, sha256: str | None = None) -> NetworkFile:
    """Read a network back; nothing in the file is executed.

    Args:
        source: Path of the file, or its content.
        sha256: Checksum that the content must have, 64 hexadecimal digits; None for any.

    Raises:
        DataError: If the file is missing, has another checksum, is damaged or no network of
            skdtune, or holds another architecture than it names.
    """
    where = "the network" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else Path(source).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"the network {Path(where)} cannot be read: {reason}") from None
    checksum = hashlib.sha256(content).hexdigest()
    if sha256 is not None and checksum != sha256.strip().lower():
        raise DataError(f"{where}: its sha256 is {checksum}, not {sha256}: it is another file")
    info = _read_info(content, where)
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:
        raise DataError(f"{where}: it is damaged: {in_one_line(error)}") from None
    _require_architecture(info, tensors, where)
    return NetworkFile(
        info=info,
        state={name: tensor for name, tensor in tensors.items() if name not in CHECKS},
        check=OutputCheck(
            images_NCHW=tensors[_CHECK_IMAGES],
            logits_NK=tensors[_CHECK_LOGITS],
            logits_float32_NK=tensors[_CHECK_FLOAT32],
        )
        if _CHECK_IMAGES in tensors
        else None,
        sha256=checksum,
    )


def _read_info(content: bytes, where: str) -> NetworkInfo:
    """Read the description, without the tensors."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _MAX_HEADER):
        raise DataError(f"{where}: it is no safetensors file, or was cut off")
    try:
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        described = json.loads(metadata[_METADATA_KEY])
        stored_format, description = described["format"], described["description"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(f"{where}: it is no network that skdtune wrote") from None
    if stored_format != NETWORK_FORMAT:
        raise DataError(
            f"{where}: its format is {stored_format!r}, this version reads {NETWORK_FORMAT!r}"
        )
    try:
        return NetworkInfo.model_validate_json(json.dumps(description))
    except (ValidationError, TypeError) as error:
        raise DataError(f"{where}: its description is wrong: {in_one_line(error)}") from None


def _require_architecture(info: NetworkInfo, tensors: Mapping[str, Tensor], where: str) -> None:
    try:
        network_named(info.model)
    except InputError as error:
        raise DataError(f"{where}: it holds a {info.model!r}: {error}") from None
    except KeyError:
        remedy = f"known are {', '.join(sorted(networks()))}"
        if info.package is not None:
            name, version = info.package.split()
            remedy = f"install the package {name} that it comes from (it was version {version})"
        raise DataError(f"{where}: it holds a {info.model!r}; {remedy}") from None
    try:
        outline = _outline(info)
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{where}: its sizes are wrong: {in_one_line(error)}") from None
    expected = {name: (t.shape, t.dtype) for name, t in outline.state_dict().items()}
    for name in sorted(expected.keys() ^ (tensors.keys() - set(CHECKS))):
        problem = "is missing" if name in expected else "has no place in it"
        raise DataError(f"{where}: it is no {info.model}: {name} {problem}")
    expected |= _expected_checks(info, tensors, where)
    for name, (shape, dtype) in expected.items():
        tensor = tensors[name]
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise DataError(
                f"{where}: it is no such {info.model}: {name} is {tensor.dtype} of "
                f"{list(tensor.shape)}, expected {dtype} of {list(shape)}"
            )
    if not len(info.mean) == len(info.std) == info.in_channels:
        raise DataError(f"{where}: it has no mean and deviation for each of its channels")


def _expected_checks(
    info: NetworkInfo, tensors: Mapping[str, Tensor], where: str
) -> dict[str, tuple[torch.Size, torch.dtype]]:
    names = [name for name in CHECKS if name in tensors]
    if not names:
        return {}
    if (
        len(names) < len(CHECKS)
        or tensors[_CHECK_IMAGES].ndim != 4
        or not len(tensors[_CHECK_IMAGES])
    ):
        raise DataError(f"{where}: the images to check its outputs on are incomplete")
    count = len(tensors[_CHECK_IMAGES])
    images = torch.Size((count, info.in_channels, info.height, info.image_width))
    logits = torch.Size((count, info.num_classes))
    return {
        _CHECK_IMAGES: (images, torch.uint8),
        _CHECK_LOGITS: (logits, torch.float32),
        _CHECK_FLOAT32: (logits, torch.float32),
    }


def _outline(info: NetworkInfo) -> Backbone:
    """Build the network without memory and without drawing weights."""
    with torch.device("meta"):
        return build_backbone(
            info.model,
            width=info.width,
            in_channels=info.in_channels,
            image_size=(info.height, info.image_width),
            num_classes=info.num_classes,
            stem=info.stem,
        )

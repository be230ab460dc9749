"""The networks of the catalogue as tests build them: small, on small images, and as teachers.

Everything that the tests over all methods have to know of a network's class is in this file.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from skdtune.catalogues.models import Network, family_of, networks
from skdtune.describe.config import ModelConfig
from skdtune.models.backbone import Backbone, build_backbone
from skdtune.models.description import describe_network
from skdtune.models.network_file import NetworkInfo, write_network

NUM_CLASSES = 10


@dataclass(frozen=True)
class NetworkCase:
    """A network with the images that it is tried on."""

    model: ModelConfig
    image_shape: tuple[int, int, int]

    def build(self) -> Backbone:
        """Build it with fresh weights from torch's global generator."""
        channels, height, width = self.image_shape
        return build_backbone(
            self.model.name,
            width=self.model.width,
            in_channels=channels,
            image_size=(height, width),
            num_classes=NUM_CLASSES,
        )

    def stage_shapes(self, network: Backbone) -> Any:
        """Measure what the stages put out."""
        described = describe_network(network, self.image_shape, has_maps=self.model.has_maps)
        return described.stage_shapes

    def write_teacher(self, folder: Path) -> dict[str, str]:
        """Write an untrained network of this kind, once, and return the settings that name it."""
        path = folder / f"{self.model.name}.safetensors"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(11)
                state = self.build().state_dict()
            channels, height, width = self.image_shape
            info = network_info(
                model=self.model.name,
                width=self.model.channels,
                in_channels=channels,
                height=height,
                image_width=width,
            )
            path.write_bytes(write_network(info, state))
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"teacher": str(path), "teacher_sha256": checksum}


def network_info(**facts: Any) -> NetworkInfo:
    """Return what a file says of a network, made up but for what a test says.

    Args:
        facts: Fields of the file; ``model``, ``width``, ``height`` and ``image_width`` at least.
    """
    channels = facts.get("in_channels", 1)
    made_up = {
        "in_channels": channels,
        "class_names": tuple(map(str, range(NUM_CLASSES))),
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "data_fingerprint": "0" * 12,
        "trained_on": "train",
        "config": {},
        "study": "baseline",
        "trial": 0,
        "accuracy": 0.5,
        "precision": "float32",
        "environment": {},
    }
    return NetworkInfo(**{**made_up, **facts})


def watch_images(network: Backbone, seen: list[int]) -> None:
    """Note how many images the network is shown in each forward of a training."""
    network.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module.training else None
    )


def without_draws(network: Backbone) -> Backbone:
    """Switch off what draws from the global generator in a forward, dropout for example.

    The state of that generator is in a trainer's checkpoints, and is none of what is tried here.
    """
    for module in network.modules():
        if isinstance(module, (nn.Dropout, StochasticDepth)):
            module.p = 0.0
    return network


def last_stage(network: Backbone) -> nn.Module:
    """Return the module of the last stage of a network that is a chain of them."""
    stages: nn.ModuleList = network.stages  # type: ignore[assignment]
    return stages[-1]


def _smallest() -> tuple[str, ...]:
    """Return of each kind that methods can tell apart the first network."""
    kinds: dict[tuple[int, bool], str] = {}
    for name, network in networks().items():
        kinds.setdefault((network.num_stages, network.has_maps), name)
    return tuple(kinds.values())


#: Those on which everything is tried: to a method all others look like one of them.
SMALLEST = _smallest()
#: The one on which a promise is tried that has little to do with networks.
FIRST = SMALLEST[0]


def each_kind_of_block() -> list[Any]:
    """Return all networks as parameters; those that only repeat another's blocks, on demand."""
    seen: set[str] = set()
    parameters = []
    for name in networks():
        # Networks of a family that differ in a number differ in how many blocks they have.
        block = f"{family_of(name)} {re.sub('[0-9]+', '', name)}"
        repeats = block in seen and name not in SMALLEST
        parameters.append(pytest.param(name, marks=pytest.mark.full if repeats else ()))
        seen.add(block)
    return parameters


def _cases() -> dict[str, NetworkCase]:
    # The last map of a chain that halves has two rows; grey and coloured images, one of odd size.
    kinds = itertools.cycle([(1, 0), (3, 0), (3, 0), (3, 1)])
    return {
        name: NetworkCase(
            ModelConfig(name=name, width=_width(name, network)),
            (channels, *[2**network.num_stages + odd] * 2),
        )
        for (name, network), (channels, odd) in zip(networks().items(), kinds, strict=False)
    }


def _width(name: str, network: Network) -> int | None:
    narrow = 8 if name in SMALLEST else 4
    return None if network.width is None else min(narrow, network.width)


#: Every network of the catalogue by its name.
NETWORKS = _cases()

"""Weights that a training begins with in place of drawn ones: of a file, or of a name.

A study keeps the checksum of such weights (``model.weights_sha256``) and never where they lie: who
trains says that, by ``--weights`` or the variable ``SKDTUNE_WEIGHTS``. A file is data, in the
format safetensors: reading it executes nothing.

Three ways lead from the names of a state dict to those of a network: they are the same; the
network's family says what others call its tensors (``Backbone.names_elsewhere``); or, where the
order of the tensors is known, both go through the same layers in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from skdtune.catalogues.catalogue import imported, load_target
from skdtune.catalogues.models import MODELS, networks, usable_family
from skdtune.describe.config import TrialConfig
from skdtune.describe.data_facts import facts_of
from skdtune.errors import DataError, InputError, in_one_line
from skdtune.home import WEIGHTS_VARIABLE
from skdtune.models.backbone import Backbone
from skdtune.models.measuring import outline
from skdtune.models.network_file import CHECKS, NetworkInfo, read_network_file

_CLASSIFIER = "classifier."
# A count that only batch normalisation without a momentum reads; older state dicts lack it.
_COUNT = ".num_batches_tracked"


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights:
    """A state dict that a training can begin with."""

    origin: str
    """Where it is from, as a person named it."""

    state: Mapping[str, Tensor]
    """Tensors by the names that they have there."""

    sha256: str
    """Checksum of names, types, shapes and values: 64 hexadecimal digits."""

    has_order: bool
    """The tensors come in the order of the layers."""

    info: NetworkInfo | None = None
    """What a network file of skdtune says about its network."""


@cache
def read_weights(origin: str) -> Weights:
    """Read weights; those with a name are downloaded where they are not at hand.

    Args:
        origin: A safetensors file: of a state dict, or a network file of skdtune. Or
            ``torchvision:ResNet18_Weights.DEFAULT``, a name that torchvision knows, or one that a
            family of networks knows, after the family's name and a colon.

    Raises:
        InputError: One line that says why there are none.
    """
    owner, _, name = origin.partition(":")
    if name and (read := _reader(owner)) is not None:
        try:
            state = dict(read(name))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the weights {origin} cannot be had: {type(error).__name__}: "
                f"{in_one_line(error)}; download them elsewhere, and name the file"
            ) from error
        return Weights(origin=origin, state=state, sha256=_checksum(state), has_order=True)
    path = Path(origin).expanduser()
    if not path.is_file():
        raise InputError(
            f"there are no weights {origin!r}: name a safetensors file, or weights that are known "
            f"by a name, {', '.join(f'{owner}:<name>' for owner in _owners())}"
        )
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: {in_one_line(error)}; weights are safetensors files"
        ) from None
    state = {name: tensor for name, tensor in state.items() if name not in CHECKS}
    try:
        info = read_network_file(path).info
    except DataError:
        info = None
    return Weights(origin=origin, state=state, sha256=_checksum(state), has_order=False, info=info)


def weights_at_hand(config: TrialConfig) -> Weights | None:
    """Return the weights that a training begins with, None if they are drawn.

    Raises:
        InputError: If they are not at hand, are others, or learned from what they are judged on.
    """
    wanted, origin = config.model.weights_sha256, os.environ.get(WEIGHTS_VARIABLE)
    if wanted is None:
        if origin:
            raise InputError(
                f"{config.model.name} begins with drawn weights here, and --weights names others: "
                "leave it out, or create the study with --weights"
            )
        return None
    if not origin:
        raise InputError(
            f"{config.model.name} begins with the weights of sha256 {wanted}: name them by "
            "--weights"
        )
    weights = read_weights(origin)
    if weights.sha256 != wanted:
        raise InputError(
            f"{origin} has weights of sha256 {weights.sha256}, and the training begins with "
            f"{wanted}: name those"
        )
    if (learned := _what_it_should_not_know(weights, config)) is not None:
        raise InputError(f"{origin} learned from {learned}: name weights that did not")
    return weights


def require_network(config: TrialConfig) -> None:
    """Refuse weights that are not at hand or do not fit, and images that a network cannot take.

    Nothing is drawn and nothing is computed: an outline of the network is held against them.

    Raises:
        InputError: One line that says what does not fit.
    """
    name, data = config.model.name, config.data
    weights = weights_at_hand(config)
    if weights is None and name in networks():
        # The catalogue has said all there is to say.
        return
    shape = facts_of(data.name).image_shape or (3, data.image_size, data.image_size)
    model = config.model
    network = outline(name, shape, num_classes=2, width=model.width, stem=model.stem)
    if weights is not None:
        load_weights(network, weights, name)


def load_weights(network: Backbone, weights: Weights, name: str) -> None:
    """Put weights into a network; a classifier of another number of classes stays as it was drawn.

    Args:
        network: The network, freshly built.
        weights: The weights.
        name: Name of the network, for messages.

    Raises:
        InputError: If they are those of another network; the line names a tensor.
    """
    own = network.state_dict()
    given = _by_own_names(network, weights)
    is_fresh = any(
        key not in given or given[key].shape != own[key].shape
        for key in own
        if key.startswith(_CLASSIFIER)
    )
    expected = {key for key in own if not (is_fresh and key.startswith(_CLASSIFIER))}
    needed = {key for key in expected if not key.endswith(_COUNT)}
    if wrong := sorted(given.keys() - own.keys()) + sorted(needed - given.keys()):
        problem = "has no place in it" if wrong[0] in given else "is missing"
        raise InputError(f"the weights {weights.origin} are none of {name}: {wrong[0]} {problem}")
    loaded = expected & given.keys()
    if other := [key for key in own if key in loaded and given[key].shape != own[key].shape]:
        there, here = list(given[other[0]].shape), list(own[other[0]].shape)
        raise InputError(
            f"the weights {weights.origin} do not fit {name}: {other[0]} is {there} there and "
            f"{here} here; stem, width and channels of the images must be those of the weights"
        )
    with torch.no_grad():
        for key in loaded:
            own[key].copy_(given[key])


def _by_own_names(network: Backbone, weights: Weights) -> dict[str, Tensor]:
    """Name the tensors as the network does, in the way that fits best."""
    own, state = network.state_dict(), weights.state
    ways: list[dict[str, Tensor]] = [dict(state)]
    if network.names_elsewhere:
        ways.append({_renamed(key, network.names_elsewhere): t for key, t in state.items()})
    same_kinds = [_kind(key) for key in own] == [_kind(key) for key in state]
    if weights.has_order and same_kinds:
        ways.append(dict(zip(own, state.values(), strict=True)))
    return max(ways, key=lambda way: len(way.keys() & own.keys()))


def _renamed(key: str, patterns: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in patterns:
        renamed, count = re.subn(pattern, replacement, key, count=1)
        if count:
            return renamed
    return key


def _kind(key: str) -> str:
    return key.rpartition(".")[2]


def _what_it_should_not_know(weights: Weights, config: TrialConfig) -> str | None:
    """Say what a network of ours saw of the images that the training is judged on."""
    info = weights.info
    before = info.config.get("data") if info is not None else None
    if info is None or not isinstance(before, dict) or before.get("name") != config.data.name:
        return None
    if info.trained_on != "train":
        return "the validation images too"
    split = ("val_fraction", "split_seed", "max_per_class")
    if any(before.get(field) != getattr(config.data, field) for field in split):
        return "another split of the same data"
    return None


def _owners() -> list[str]:
    """Return who knows weights by a name."""
    return ["torchvision", *(name for name in MODELS if _weights_of(name) is not None)]


def _weights_of(family: str) -> str | None:
    try:
        return usable_family(family).weights
    except (KeyError, InputError):
        return None


def _reader(owner: str) -> Callable[[str], Mapping[str, Tensor]] | None:
    if owner == "torchvision":
        return _of_torchvision
    target = _weights_of(owner)
    if target is None:
        return None
    read: Callable[[str], Mapping[str, Tensor]] = imported(
        f"what reads weights of {MODELS.described(owner)}", partial(load_target, target)
    )
    return read


def _of_torchvision(name: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_weight

    try:
        weights: Any = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise InputError(
            f"torchvision has no weights {name!r}: {in_one_line(error)}; they are called as "
            "ResNet18_Weights.IMAGENET1K_V1"
        ) from None
    state: Mapping[str, Tensor] = weights.get_state_dict(
        progress=True, check_hash=True, weights_only=True
    )
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(head.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

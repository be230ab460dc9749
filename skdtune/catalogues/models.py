"""The families of backbones there are: for each, its networks and their stages, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, get_args

from skdtune.catalogues.catalogue import Catalogue, imported, load_target
from skdtune.errors import InputError

#: What a network begins with: for images of so many pixels, or as it was published for ImageNet.
Stem = Literal["32px", "64px", "imagenet"]
#: The stem that a study names: a certain one, that of the images' size, or the network's default.
StemChoice = Literal["default", "by_size", "32px", "64px", "imagenet"]

#: Every non-empty subset of the stages below the last one may be searched: 15 subsets of five.
MAX_STAGES = 5


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is known of a backbone before it is built.

    Raises:
        ValueError: If it has no stage, more than five, or two of one name.
    """

    stages: tuple[str, ...]
    """Names of its stages, first to last; a study counts them from 1."""

    width: int | None = None
    """Channels of the first stage where a study names none; None if they cannot be chosen."""

    has_maps: bool = True
    """Every stage puts out a map ``[B, C, H, W]``; else it is any tensor ``[B, ...]``."""

    stems: tuple[Stem, ...] = ()
    """Stems that can be chosen; none if it has one only, or its own way with sizes of images."""

    default_stem: StemChoice = "by_size"
    """Which of them it has where a study names none."""

    min_size: int = 1
    """Height and width in pixels below which an image cannot be classified."""

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.stages)) == len(self.stages) <= MAX_STAGES:
            raise ValueError(
                f"a network has 1 to {MAX_STAGES} stages of different names, received "
                f"{list(self.stages)}"
            )
        if unknown := [stem for stem in self.stems if stem not in get_args(Stem)]:
            raise ValueError(f"a stem is one of {', '.join(get_args(Stem))}, not {unknown[0]!r}")

    def stem_for(self, choice: StemChoice, image_size: tuple[int, int]) -> Stem | None:
        """Return the stem for images of a size.

        Args:
            choice: What a study says.
            image_size: Height and width of the images in pixels.

        Returns:
            A stem; None if there is nothing to choose from.

        Raises:
            ValueError: If the network has no such stem.
        """
        named = self.default_stem if choice == "default" else choice
        if named == "by_size":
            if not self.stems:
                return None
            side = max(image_size)
            named = "32px" if side <= 48 else "64px" if side <= 96 else "imagenet"
        elif choice == "default" and not self.stems:
            return None
        if named not in self.stems:
            has = f"the stems {', '.join(self.stems)}" if self.stems else "one stem only"
            raise ValueError(f"has {has}, received {named!r}")
        return named

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.stages)


@dataclass(frozen=True)
class Family:
    """Backbones that one function builds.

    Raises:
        ValueError: If it is not described as its fields say.
    """

    build: str
    """``module:function`` of what builds them; see ``skdtune.models.backbone.Builder``."""

    networks: Mapping[str, Network]
    """The backbones by the name they have in a study, from the smallest to the largest."""

    describe: str | None = None
    """``module:function`` of what describes further networks of the family, as a `Network`, by
    their full name ``<family>/<name>``; it raises InputError where there is none of this name.
    It may need torch: a study keeps what it says."""

    weights: str | None = None
    """``module:function`` of what reads trained weights by a name, ``--weights <family>:<name>``:
    a state dict in the order of the layers. It may download them; it raises InputError where
    there are none of this name."""

    package: str | None = None
    """The package whose networks they are, by the name under which it is installed."""

    def __post_init__(self) -> None:
        if not isinstance(self.build, str) or not all(self.build.partition(":")):
            raise ValueError(
                f"a family names what builds it as 'module:function', not {self.build!r}"
            )
        networks = self.networks
        if not isinstance(networks, Mapping) or not all(
            isinstance(name, str) and isinstance(network, Network)
            for name, network in networks.items()
        ):
            raise ValueError("the networks of a family are a mapping of names to Network")


_THREE, _FOUR, _FIVE = (
    tuple(f"stage{number}" for number in range(1, last + 1)) for last in (3, 4, 5)
)
_STEMS = get_args(Stem)
# Those of small images, whatever the images: the first releases had no other.
_RESNET = Network(stages=_FOUR, width=64, stems=_STEMS, default_stem="32px")

#: Families by name.
MODELS: Catalogue[Family] = Catalogue(
    "family of networks",
    {
        "resnet": Family(
            "skdtune.models.families.resnet:build",
            {
                "resnet8": Network(stages=_THREE, width=16),
                "resnet20": Network(stages=_THREE, width=16),
                "resnet18": _RESNET,
                "resnet34": _RESNET,
                "resnet50": _RESNET,
                "resnet101": _RESNET,
                "resnet152": _RESNET,
                "resnext50": replace(_RESNET, width=None),
                "wide_resnet50": _RESNET,
            },
        ),
        "timm": Family(
            "skdtune.models.families.timm:build",
            {},
            describe="skdtune.models.families.timm:describe",
            weights="skdtune.models.families.timm:weights",
            package="timm",
        ),
        "wide_resnet": Family(
            "skdtune.models.families.wide_resnet:build",
            {"wide_resnet28": Network(stages=_THREE, width=160)},
        ),
        "densenet": Family(
            "skdtune.models.families.densenet:build",
            {"densenet121": Network(stages=_FOUR, stems=_STEMS)},
        ),
        "mobilenet": Family(
            "skdtune.models.families.mobilenet:build",
            {
                "mobilenet_v3_small": Network(stages=_FOUR, width=16, stems=_STEMS),
                "mobilenet_v2": Network(stages=_FIVE, width=16, stems=_STEMS),
                "mobilenet_v3_large": Network(stages=_FIVE, width=16, stems=_STEMS),
                "efficientnet_b0": Network(stages=_FIVE, stems=_STEMS),
            },
        ),
        "shufflenet": Family(
            "skdtune.models.families.shufflenet:build",
            {"shufflenet_v2": Network(stages=_THREE, stems=_STEMS)},
        ),
        "vgg": Family(
            "skdtune.models.families.vgg:build",
            {name: Network(stages=_FIVE, stems=_STEMS) for name in ("vgg16_bn", "vgg19_bn")},
        ),
        "convnext": Family(
            "skdtune.models.families.convnext:build",
            {"convnext_tiny": Network(stages=_FOUR, stems=_STEMS, min_size=8)},
        ),
        "vision_transformer": Family(
            "skdtune.models.families.vision_transformer:build",
            {"vit_tiny": Network(stages=_FIVE, width=192, has_maps=False, min_size=4)},
        ),
    },
    "skdtune.models",
)


@cache
def networks() -> Mapping[str, Network]:
    """Return all networks that can be named, family by family; none of a family that is broken."""
    return {
        name: network
        for family in _families().values()
        if isinstance(family, Family)
        for name, network in family.networks.items()
    }


def family_of(name: str) -> str:
    """Return the name of the family that a network belongs to.

    Raises:
        KeyError: If there is no such network.
    """
    for key, family in _families().items():
        if isinstance(family, Family) and name in family.networks:
            return key
    if is_of_open_family(name):
        return name.partition("/")[0]
    raise KeyError(name)


def is_of_open_family(name: str) -> bool:
    """Tell whether a name is that of a network that only its family can describe."""
    key, _, rest = name.partition("/")
    family = _families().get(key) if re.fullmatch(r"[A-Za-z0-9._-]{1,80}", rest) else None
    return isinstance(family, Family) and family.describe is not None


def network_named(name: str) -> Network:
    """Return what is known of a network; one of an open family is described by the family.

    Raises:
        KeyError: If there is no such network, nor a family that could have it.
        InputError: If its family has no such network, or cannot be asked here.
    """
    if name in networks():
        return networks()[name]
    return _described(family_of(name), name)


@cache
def _described(family: str, name: str) -> Network:
    target = usable_family(family).describe
    assert target is not None
    load = partial(load_target, target)
    network: Network = imported(f"what describes {MODELS.described(family)}", load)(name)
    return network


def usable_family(name: str) -> Family:
    """Return a family whose networks a study can name.

    Raises:
        KeyError: If there is no such family.
        InputError: If it comes from a package that cannot be imported, is no family, or offers a
            network under a name that is taken.
    """
    family = _families()[name]
    if isinstance(family, InputError):
        raise family
    return family


@cache
def _families() -> Mapping[str, Family | InputError]:
    """Return every family, or why it cannot be used."""
    families: dict[str, Family | InputError] = {}
    for name in MODELS:
        try:
            family = MODELS[name]
        except InputError as error:
            families[name] = error
            continue
        is_one = isinstance(family, Family)
        families[name] = family if is_one else InputError(f"{MODELS.described(name)} is no Family")
    usable = {name: family for name, family in families.items() if isinstance(family, Family)}
    for name in MODELS.offered:
        # A built-in network wins; of two packages that offer one name neither is taken.
        for other in usable.keys() - {name} if name in usable else ():
            if both := sorted(usable[name].networks.keys() & usable[other].networks.keys()):
                families[name] = InputError(
                    f"{MODELS.described(name)} offers {both[0]}, as {MODELS.described(other)} does"
                )
    return families

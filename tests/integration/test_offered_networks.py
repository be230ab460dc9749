"""A package offers a family whose stages put out no maps; all that takes a network takes it.

The package is written into a folder with its metadata, as an installation leaves it, and found by
processes that have the folder on their path. This process has not.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from throwaway_package import Site

from skdtune.errors import DataError
from skdtune.models.network_file import read_network_file

ROOT = Path(__file__).parents[2]

CATALOGUE = """
from skdtune.catalogues.models import Family, Network

STAGES = ("mixed", "merged", "vector")
FAMILY = Family(
    "some_tokens.networks:build",
    {
        "tiny_tokens": Network(stages=STAGES, width=8, has_maps=False),
        "fork_tokens": Network(stages=STAGES[1:], has_maps=False),
    },
)
"""

NETWORKS = '''
import torch
from torch import nn

from skdtune.models.backbone import Backbone, Outputs, StagedBackbone


class Stem(nn.Module):
    """Patches of 4 x 4 pixels as tokens [B, T, C], with a learned position."""

    def __init__(self, in_channels, channels, image_size):
        super().__init__()
        height, width = image_size
        self.patches = nn.Conv2d(in_channels, channels, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(height // 4 * (width // 4), channels))

    def forward(self, images_BCHW):
        return self.patches(images_BCHW).flatten(2).transpose(1, 2) + self.position


class Mixer(nn.Module):
    def __init__(self, num_tokens, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.tokens = nn.Linear(num_tokens, num_tokens)
        self.channels = nn.Linear(channels, channels)

    def forward(self, tokens_BTC):
        mixed_BTC = self.tokens(self.norm(tokens_BTC).transpose(1, 2)).transpose(1, 2)
        return tokens_BTC + self.channels(mixed_BTC.relu())


class Merge(nn.Module):
    """Neighbours in pairs: half the tokens, twice the channels."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(2 * channels, 2 * channels)

    def forward(self, tokens_BTC):
        return self.linear(tokens_BTC.unflatten(1, (-1, 2)).flatten(2)).relu()


class Mean(nn.Module):
    def forward(self, tokens_BTC):
        return tokens_BTC.mean(dim=1)


class Fork(Backbone):
    """No chain: two branches over the same patches, whose features are added."""

    def __init__(self, in_channels, image_size, num_classes):
        super().__init__()
        self.num_stages = 2
        self.left, self.right = Stem(in_channels, 8, image_size), Stem(in_channels, 8, image_size)
        self.classifier = nn.Linear(8, num_classes)

    def forward(self, images_BCHW, stages=()):
        if not set(stages) <= {1, 2}:
            raise ValueError(f"stages are 1 and 2, not {stages}")
        left_BTC, right_BTC = self.left(images_BCHW), self.right(images_BCHW)
        pooled_BC = (left_BTC + right_BTC).relu().mean(dim=1)
        features = {1: left_BTC, 2: pooled_BC}
        chosen = {number: features[number] for number in stages}
        return Outputs(self.classifier(pooled_BC), chosen, pooled_BC)


def build(name, *, width, in_channels, image_size, num_classes):
    if name == "fork_tokens":
        assert width is None
        return Fork(in_channels, image_size, num_classes)
    num_tokens = image_size[0] // 4 * (image_size[1] // 4)
    stages = [
        Mixer(num_tokens, width),
        nn.Sequential(Merge(width), Mixer(num_tokens // 2, 2 * width)),
        nn.Sequential(Mean(), nn.Linear(2 * width, 2 * width), nn.ReLU()),
    ]
    stem, classifier = Stem(in_channels, width, image_size), nn.Linear(2 * width, num_classes)
    return StagedBackbone(stem, stages, nn.Identity(), classifier)
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Install the package."""
    place = tmp_path_factory.mktemp("tokens")
    site = Site(place / "site", place / "home")
    files = {"__init__": "", "catalogue": CATALOGUE, "networks": NETWORKS}
    site.install(
        "some-tokens",
        {f"some_tokens/{name}.py": source for name, source in files.items()},
        {"skdtune.models": {"tokens": "some_tokens.catalogue:FAMILY"}},
    )
    return site


def test_naming_its_networks_needs_no_torch(site: Site) -> None:
    code = (
        "import sys; from skdtune.describe.config import ModelConfig as M; "
        "print(M(name='tiny_tokens').has_maps, M(name='fork_tokens').num_stages, "
        "'torch' in sys.modules)"
    )
    assert site.printed("-c", code).split() == ["False", "2", "False"]


@pytest.mark.parametrize(
    ("contract", "chosen"), [("models", "tokens"), ("methods", "tiny_tokens")]
)
def test_it_keeps_the_contracts(site: Site, contract: str, chosen: str) -> None:
    module = ROOT / "tests" / "contract" / f"test_{contract}.py"
    options = ("-p", "no:cacheprovider", "-n", "0", "-x", "-k", chosen)
    said = site.printed("-m", "pytest", str(module), *options)
    assert " passed" in said
    assert "failed" not in said


@pytest.fixture(scope="module")
def exported(site: Site) -> Path:
    """Train a study on it and export the best network."""
    settings = {
        "model.name": "tiny_tokens",
        "budget.epochs": "2",
        "data.max_per_class": "20",
        "data.batch_size": "32",
    }
    sets = [part for pair in settings.items() for part in ("--set", "=".join(pair))]
    best = site.home / "best"
    create = ("create-study", "digits-drg-dsr", "--name", "tokens", "--trials", "2", *sets)
    for command in (create, ("worker", "tokens"), ("export", "tokens", "-o", str(best))):
        site.printed("-m", "skdtune", *command)
    return best


def test_a_study_trains_it(exported: Path) -> None:
    facts = json.loads((exported / "trial.json").read_text())
    assert (facts["network"]["model"], facts["network"]["width"]) == ("tiny_tokens", 8)
    assert facts["network"]["package"] == "some-tokens 1.2"
    assert facts["agreement"].startswith("equal, bit for bit")
    assert facts["value"] > 0.15


def test_the_program_needs_no_package(exported: Path) -> None:
    program = torch.export.load(exported / "model.pt2").module()
    logits_BK = program(torch.rand(3, 1, 8, 8))
    assert logits_BK.shape == (3, 10)


def test_the_weights_need_the_package_and_say_so(exported: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_network_file(exported / "model.safetensors")
    assert str(caught.value).endswith(
        "holds a 'tiny_tokens'; install the package some-tokens that it comes from "
        "(it was version 1.2)"
    )

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from skdtune.catalogues.models import Family, Network
from skdtune.errors import InputError
from skdtune.models import backbone as module
from skdtune.models.backbone import ImageClassifier, StagedBackbone, build_backbone


def chain(num_stages: int = 3, num_classes: int = 5) -> StagedBackbone:
    stages = [nn.Conv2d(4, 4, 3, stride=2, padding=1) for _ in range(num_stages)]
    stem, classifier = nn.Conv2d(1, 4, 1), nn.Linear(4, num_classes)
    return StagedBackbone(stem, stages, nn.AdaptiveAvgPool2d(1), classifier)


IMAGES_BCHW = torch.randn(2, 1, 16, 16)


def test_the_stages_that_were_asked_for_are_returned() -> None:
    network = chain()
    outputs = network(IMAGES_BCHW, (3, 1))
    assert list(outputs.stage_features) == [1, 3]
    assert torch.equal(outputs.stage_features[1], network.stages[0](network.stem(IMAGES_BCHW)))
    assert torch.equal(outputs.pooled_BC, outputs.stage_features[3].mean(dim=(2, 3)))
    assert torch.equal(outputs.logits_BK, network.classifier(outputs.pooled_BC))
    assert torch.equal(outputs.logits_BK, network(IMAGES_BCHW).logits_BK)


def test_gradients_flow_through_what_is_returned() -> None:
    network = chain()
    network(IMAGES_BCHW, (1,)).stage_features[1].sum().backward()
    assert network.stem.weight.grad is not None
    assert network.stages[1].weight.grad is None


def test_no_other_stage_is_kept_alive() -> None:
    network = chain()
    alive: list[weakref.ref[torch.Tensor]] = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _m, _i, feature: alive.append(weakref.ref(feature)))
    with torch.no_grad():
        outputs = network(IMAGES_BCHW, (2,))
    gc.collect()
    assert [reference() is not None for reference in alive] == [False, True, False]
    assert list(outputs.stage_features) == [2]


@pytest.mark.parametrize("wrong", [0, 4, -1])
def test_an_unknown_stage_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"stages 1 to 3, not {wrong}"):
        chain()(IMAGES_BCHW, (1, wrong))


def test_names_in_the_state_dict() -> None:
    parts = {name.split(".")[0] for name in chain().state_dict()}
    assert parts == {"stem", "stages", "classifier"}
    assert "stages.2.weight" in chain().state_dict()


def test_a_deep_copy_reads_its_own_stages() -> None:
    network = chain()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.stages[0].bias.add_(1.0)
    first, second = (one(IMAGES_BCHW, (1,)).stage_features[1] for one in (network, twin))
    assert not torch.equal(first, second)


def test_a_classifier_gives_logits_and_has_the_names_of_the_backbone() -> None:
    network, other = ImageClassifier(chain()), ImageClassifier(chain())
    other.load_state_dict(network.state_dict())
    assert network.state_dict().keys() == chain().state_dict().keys()
    assert torch.equal(other(IMAGES_BCHW), network.backbone(IMAGES_BCHW).logits_BK)


def hiding() -> StagedBackbone:
    network = chain()
    network.register_buffer("mask", torch.ones(1), persistent=False)
    return network


def headless() -> StagedBackbone:
    network = chain()
    network.classifier = nn.Sequential(network.classifier)  # type: ignore[assignment]
    return network


BROKEN = {
    "no_backbone": (nn.Identity, "is a Identity, not a skdtune.models.backbone.Backbone"),
    "stages": (lambda: chain(2), "has 2 stages, its catalogue line 3"),
    "classes": (lambda: chain(num_classes=4), "no torch.nn.Linear with 5 outputs"),
    "headless": (headless, "no torch.nn.Linear with 5 outputs"),
    "hiding": (hiding, "holds mask, which is no tensor of its state dict"),
}


def build(name: str, **_sizes: object) -> nn.Module:
    made: nn.Module = chain() if name == "right" else BROKEN[name][0]()
    return made


@pytest.fixture
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of one family, whose networks are built here."""
    named = dict.fromkeys(["right", *BROKEN], Network(stages=("a", "b", "c")))
    families = {"toys": Family(f"{__name__}:build", named)}

    class Catalogue(dict[str, Family]):
        def described(self, name: str) -> str:
            return f"the family of networks {name!r} of the package toybox 1.0"

    monkeypatch.setattr(module, "MODELS", Catalogue(families))
    monkeypatch.setattr(module, "usable_family", families.__getitem__)
    monkeypatch.setattr(module, "network_named", named.__getitem__)
    monkeypatch.setattr(module, "family_of", lambda _name: "toys")


@pytest.mark.usefixtures("_toys")
def test_a_family_of_a_package_is_built() -> None:
    built = build_backbone("right", in_channels=1, image_size=(16, 16), num_classes=5)
    assert isinstance(built, StagedBackbone)


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("name", BROKEN)
def test_what_a_package_builds_must_keep_its_promise(name: str) -> None:
    family = "the family of networks 'toys' of the package toybox 1.0"
    expected = f"^{family} cannot be used: .*{BROKEN[name][1]}"
    with pytest.raises(InputError, match=expected):
        build_backbone(name, in_channels=1, image_size=(16, 16), num_classes=5)


def test_a_family_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Family("no.such.module:build", {})
    monkeypatch.setattr(module, "usable_family", lambda _name: lost)
    expected = (
        "^what builds the family of networks 'resnet' cannot be imported: ModuleNotFoundError"
    )
    with pytest.raises(InputError, match=expected):
        build_backbone("resnet8", in_channels=1, image_size=(8, 8), num_classes=5)

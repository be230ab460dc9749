"""What every network of the catalogue promises, whichever family or package it belongs to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from network_cases import SMALLEST, each_kind_of_block, network_info
from torch import Tensor, nn

from skdtune.catalogues.models import MODELS, networks
from skdtune.describe.config import ModelConfig
from skdtune.models.backbone import Backbone, ImageClassifier, Outputs, build_backbone
from skdtune.models.description import FeatureShape, StageShape, describe_network
from skdtune.models.network_file import (
    NetworkInfo,
    package_that_offers,
    read_network_file,
    write_network,
)

NUM_CLASSES = 7
IMAGE_SHAPE = (3, 16, 16)
IMAGES_BCHW = torch.rand(2, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(0)) - 0.5

every_network = pytest.mark.parametrize("name", each_kind_of_block())


def widths(name: str) -> tuple[int | None, ...]:
    """Choose widths that a study may ask for: the least, and one that is no power of two."""
    return (None,) if networks()[name].width is None else (4, 12)


def build(name: str, width: int | None = None, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    _, height, width_of_image = IMAGE_SHAPE
    return build_backbone(
        name,
        width=width or widths(name)[0],
        in_channels=IMAGE_SHAPE[0],
        image_size=(height, width_of_image),
        num_classes=NUM_CLASSES,
    )


def equal(left: nn.Module, right: nn.Module) -> bool:
    mine, other = left.state_dict(), right.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_no_network_is_lost() -> None:
    offered = [name for family in MODELS for name in MODELS[family].networks]
    assert sorted(offered) == sorted(networks())


@every_network
def test_the_stages_are_those_of_the_catalogue(name: str) -> None:
    for width in widths(name):
        config, network = ModelConfig(name=name, width=width), build(name, width)
        described = describe_network(network, IMAGE_SHAPE, has_maps=config.has_maps)
        assert network.num_stages == config.num_stages == len(described.stage_shapes)
        assert described.num_parameters == sum(p.numel() for p in network.parameters())
        kind = StageShape if config.has_maps else FeatureShape
        assert all(isinstance(shape, kind) for shape in described.stage_shapes)


@every_network
@pytest.mark.parametrize("training", [True, False])
def test_a_forward_returns_what_was_asked_for_and_nothing_else(name: str, training: bool) -> None:
    network = build(name).train(training)
    shapes = describe_network(network, IMAGE_SHAPE, has_maps=networks()[name].has_maps)
    numbers = tuple(range(1, network.num_stages + 1))

    def outputs_with(stages: tuple[int, ...]) -> Outputs:
        # Of dropout the draws are the same.
        torch.manual_seed(1)
        return network(IMAGES_BCHW, stages)

    expected = outputs_with(numbers)
    for stages in [(), *zip(numbers, strict=True), numbers[:-1], numbers[::-2]]:
        outputs = outputs_with(stages)
        assert sorted(outputs.stage_features) == sorted(stages)
        assert torch.equal(outputs.logits_BK, expected.logits_BK)
        for number, feature in outputs.stage_features.items():
            shape = shapes.stage_shapes[number - 1]
            sizes = vars(shape).values() if isinstance(shape, StageShape) else shape.sizes
            assert tuple(feature.shape) == (len(IMAGES_BCHW), *sizes)
            assert torch.equal(feature, expected.stage_features[number])
    assert expected.logits_BK.shape == (len(IMAGES_BCHW), NUM_CLASSES)
    assert torch.equal(network.classifier(expected.pooled_BC), expected.logits_BK)


@every_network
def test_the_layout_in_memory_does_not_matter(name: str) -> None:
    network, last = build(name).eval(), build(name).eval().to(memory_format=torch.channels_last)
    images_BCHW = IMAGES_BCHW.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected_BK = network(IMAGES_BCHW).logits_BK
        # Fresh weights of a deep network give large logits.
        difference_BK = last(images_BCHW).logits_BK - expected_BK
    assert difference_BK.abs().max() <= 1e-4 * expected_BK.abs().max()


@every_network
def test_it_begins_with_each_of_its_stems(name: str) -> None:
    """A stem leaves larger maps of small images."""
    network, large = networks()[name], (64, 64)
    sides = []
    for stem in ("default", "by_size", *network.stems):
        with torch.device("meta"):
            built = build_backbone(
                name, in_channels=3, image_size=large, num_classes=NUM_CLASSES, stem=stem
            )
            features = built(torch.zeros(2, 3, *large), (built.num_stages,)).stage_features
        sides.append(features[built.num_stages].shape[-1])
    default, by_size, *of_stems = sides
    if of_stems:
        assert network.stems == ("32px", "64px", "imagenet")
        assert of_stems == sorted(of_stems, reverse=True)
        assert by_size == of_stems[1]
    assert default in sides[1:]
    assert ModelConfig(name=name, stem="by_size").stem == "by_size"
    for missing in {"32px", "64px", "imagenet"} - set(network.stems):
        with pytest.raises(ValueError, match=f"model.stem: {name} has one stem only"):
            ModelConfig(name=name, stem=missing)


@every_network
def test_an_unknown_stage_is_refused(name: str) -> None:
    network = build(name)
    for wrong in (0, network.num_stages + 1):
        with pytest.raises(ValueError, match="stage"):
            network(IMAGES_BCHW, (wrong,))


@every_network
def test_gradients_reach_all_parameters_and_every_stage(name: str) -> None:
    network = build(name)
    outputs = network(IMAGES_BCHW, tuple(range(1, network.num_stages + 1)))
    for feature in outputs.stage_features.values():
        feature.retain_grad()
    outputs.logits_BK.square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(feature.grad is not None for feature in outputs.stage_features.values())


@every_network
def test_the_classifier_is_linear(name: str) -> None:
    classifier = build(name).classifier
    assert isinstance(classifier, nn.Linear)
    assert classifier.out_features == NUM_CLASSES


@every_network
def test_same_seed_same_weights(name: str) -> None:
    assert equal(build(name, seed=5), build(name, seed=5))
    assert not equal(build(name, seed=5), build(name, seed=6))


@every_network
def test_evaluation_looks_at_each_image_alone_and_changes_nothing(name: str) -> None:
    network, twin = build(name).eval(), build(name)
    with torch.no_grad():
        together = network(IMAGES_BCHW).logits_BK
        alone = torch.cat([network(images_1CHW).logits_BK for images_1CHW in IMAGES_BCHW.split(1)])
    # Fresh weights of a deep network give large logits; the sums are added up in another order.
    assert (together - alone).abs().max() <= 1e-5 * together.abs().max()
    assert equal(network, twin)


@every_network
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_network_file_brings_it_back(name: str, dtype: torch.dtype | None) -> None:
    for width in widths(name):
        network = build(name, width)
        network(IMAGES_BCHW)
        network.to(memory_format=torch.channels_last).eval()
        content = write_network(info_of(name, width), network.state_dict())
        random_state = torch.get_rng_state()
        built = read_network_file(content).build()
        assert torch.equal(random_state, torch.get_rng_state())
        assert equal(built, network)
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            expected_BK: Tensor = network(IMAGES_BCHW).logits_BK
            assert torch.equal(built(IMAGES_BCHW), expected_BK)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in SMALLEST else pytest.mark.full) for n in networks()],
)
def test_a_program_of_it_takes_batches_of_any_size(name: str) -> None:
    network = ImageClassifier(build(name)).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (IMAGES_BCHW,), dynamic_shapes=({0: batch},))
    images_BCHW = IMAGES_BCHW.repeat(3, 1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images_BCHW), network(images_BCHW))


def info_of(name: str, width: int | None) -> NetworkInfo:
    channels, height, image_width = IMAGE_SHAPE
    return network_info(
        model=name,
        width=width,
        package=package_that_offers(name),
        in_channels=channels,
        height=height,
        image_width=image_width,
        class_names=tuple(map(str, range(NUM_CLASSES))),
    )

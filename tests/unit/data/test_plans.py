"""What every batch plan promises, for any labels and batch sizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skdtune.data.batches import DeviceImages, TrainBatches
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.draws import epoch_generator
from skdtune.data.images import image_set
from skdtune.data.plans import BatchPlan, EpochRows, build_plan
from skdtune.describe.config import DataConfig, MethodConfig
from skdtune.methods.bake.settings import BakeConfig
from skdtune.methods.cs_kd.settings import CsKdConfig
from skdtune.methods.ddgsd.settings import DdgsdConfig
from skdtune.methods.dlb.settings import DlbConfig
from skdtune.methods.ps_kd.settings import PsKdConfig

METHODS = {
    "plain": MethodConfig(),
    "indexed": MethodConfig(label=PsKdConfig()),
    "class_pairs": MethodConfig(cs_kd=CsKdConfig()),
    "groups": MethodConfig(bake=BakeConfig(num_companions=3)),
    "groups_of_two": MethodConfig(bake=BakeConfig(num_companions=1)),
    "two_views": MethodConfig(dlb=DlbConfig()),
    "two_views_joint": MethodConfig(ddgsd=DdgsdConfig()),
}

labels = st.lists(st.integers(0, 5), min_size=2, max_size=60)
every_plan = pytest.mark.parametrize("name", METHODS)


def plan_of(name: str, labels_N: list[int], batch_size: int = 8) -> BatchPlan:
    return build_plan(METHODS[name], torch.tensor(labels_N), batch_size)


def drawn(plan: BatchPlan, seed: int = 0, epoch: int = 0) -> EpochRows:
    return plan.draw(epoch_generator(seed, epoch), epoch_generator(seed, epoch, 1))


def anchors_of(name: str, rows: EpochRows) -> torch.Tensor:
    """The images that an epoch is about: without second views and companions."""
    width = rows.main_SR.shape[1]
    share = {"two_views_joint": 2, "groups": 4, "groups_of_two": 2}.get(name, 1)
    return rows.main_SR[:, : width // share]


@every_plan
@settings(deadline=None, max_examples=60)
@given(labels_N=labels, batch_size=st.integers(4, 16), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_index_once(
    name: str, labels_N: list[int], batch_size: int, epoch: int
) -> None:
    plan = plan_of(name, labels_N, batch_size)
    rows = drawn(plan, epoch=epoch)
    visited = Counter(anchors_of(name, rows).flatten().tolist())
    assert max(visited.values()) == 1
    # All but those of the last, smaller batch, which is dropped.
    dropped = len(labels_N) - len(visited)
    assert 0 <= dropped < anchors_of(name, rows).shape[1]
    assert len(rows.main_SR) == plan.num_steps >= 1
    images = rows.main_SR.numel() + (0 if rows.second_SR is None else rows.second_SR.numel())
    assert images == plan.num_steps * plan.images_per_step


@every_plan
def test_an_epoch_follows_from_seed_and_number_alone(name: str) -> None:
    labels_N = [index % 5 for index in range(97)]
    plan = plan_of(name, labels_N)
    first = [drawn(plan, epoch=epoch) for epoch in range(3)]
    # Another object, the other way round.
    again = plan_of(name, labels_N)
    for epoch in (2, 0, 1):
        rows = drawn(again, epoch=epoch)
        assert torch.equal(rows.main_SR, first[epoch].main_SR)
        if rows.second_SR is not None:
            assert torch.equal(rows.second_SR, first[epoch].second_SR)
    assert not torch.equal(first[0].main_SR, first[1].main_SR)
    assert not torch.equal(first[0].main_SR, drawn(plan, seed=1).main_SR)


@every_plan
def test_plans_share_the_order_of_the_plain_one(name: str) -> None:
    labels_N = [index % 5 for index in range(64)]
    rows = drawn(plan_of(name, labels_N))
    plain = drawn(plan_of("plain", labels_N))
    anchors = anchors_of(name, rows).flatten()
    assert torch.equal(anchors, plain.main_SR.flatten()[: len(anchors)])


@settings(deadline=None, max_examples=100)
@given(labels_N=labels, seed=st.integers(0, 100))
def test_a_pair_really_shares_a_class(labels_N: list[int], seed: int) -> None:
    rows = drawn(plan_of("class_pairs", labels_N), seed)
    classes = torch.tensor(labels_N)
    assert rows.second_SR is not None
    assert torch.equal(classes[rows.main_SR], classes[rows.second_SR])


def test_partners_are_uniform_over_the_class() -> None:
    labels_N = [0] * 4 + [1] * 60
    plan = plan_of("class_pairs", labels_N, 64)
    partners = Counter[int]()
    for epoch in range(2000):
        rows = drawn(plan, epoch=epoch)
        assert rows.second_SR is not None
        partners.update(rows.second_SR[rows.main_SR == 0].tolist())
    # 2000 draws of four images: 500 each, standard deviation 19.
    assert set(partners) == {0, 1, 2, 3}
    assert all(400 < count < 600 for count in partners.values())


@settings(deadline=None, max_examples=100)
@given(labels_N=labels, seed=st.integers(0, 100), num_companions=st.integers(1, 7))
def test_companions_share_the_class_and_differ(
    labels_N: list[int], seed: int, num_companions: int
) -> None:
    method = MethodConfig(bake=BakeConfig(num_companions=num_companions))
    size = 1 + num_companions
    classes = torch.tensor(labels_N)
    rows = drawn(build_plan(method, classes, 2 * size), seed)
    num_anchors = rows.main_SR.shape[1] // size
    assert rows.second_SR is None
    for step in rows.main_SR:
        groups = step.view(size, num_anchors).T
        for group in groups.tolist():
            anchor, *companions = group
            members = int((classes == classes[anchor]).sum())
            assert {labels_N[row] for row in companions} == {labels_N[anchor]}
            if members > 1:
                assert anchor not in companions
            if members > num_companions:
                assert len(set(companions)) == num_companions


def test_companions_are_uniform_over_the_others_of_the_class() -> None:
    plan = plan_of("groups", [0] * 6 + [1] * 6, 48)
    counts = Counter[int]()
    for epoch in range(2000):
        for step in drawn(plan, epoch=epoch).main_SR:
            groups = step.view(4, -1)
            counts.update(groups[1:, groups[0] == 2].flatten().tolist())
    # 6000 draws of five images: 1200 each, standard deviation 22.
    assert set(counts) == {0, 1, 3, 4, 5}
    assert all(1080 < count < 1320 for count in counts.values())


def test_views_are_of_one_image() -> None:
    labels_N = [index % 3 for index in range(20)]
    apart = drawn(plan_of("two_views", labels_N))
    assert apart.second_SR is not None
    assert torch.equal(apart.main_SR, apart.second_SR)
    first_SB, second_SB = drawn(plan_of("two_views_joint", labels_N)).main_SR.chunk(2, dim=1)
    assert torch.equal(first_SB, second_SB)


@pytest.mark.parametrize(
    ("name", "factor"),
    {
        "plain": 1,
        "indexed": 1,
        "class_pairs": 2,
        "two_views": 2,
        "two_views_joint": 2,
        "groups": 4,
        "groups_of_two": 2,
    }.items(),
)
def test_what_an_epoch_costs(name: str, factor: int) -> None:
    plan = plan_of(name, [index % 4 for index in range(80)])
    assert METHODS[name].images_per_anchor == factor
    assert plan.num_steps * plan.images_per_step == 80 * factor


@every_plan
def test_batches_carry_the_second_view_augmented_on_its_own(name: str) -> None:
    generator = np.random.default_rng(0)
    images_NHWC = generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    images = image_set(images_NHWC, np.arange(40) % 4, ("a", "b", "c", "d"))
    on_device = DeviceImages(images, *channel_statistics(images), "cpu")
    config = DataConfig(name="cifar10", batch_size=8)
    plan = build_plan(METHODS[name], on_device.labels_N, config.batch_size)
    train = TrainBatches(on_device, config, 0, plan)
    batches = list(train.epoch(0))
    total = 0
    for batch in batches:
        assert torch.equal(batch.labels_B, on_device.labels_N[batch.indices_B])
        total += len(batch.labels_B)
        has_second = name in ("class_pairs", "two_views")
        assert (batch.second_BCHW is not None) == has_second
        if batch.second_BCHW is not None:
            total += len(batch.second_BCHW)
            assert batch.second_BCHW.shape == batch.images_BCHW.shape
            assert not torch.equal(batch.second_BCHW, batch.images_BCHW)
        if name == "two_views_joint":
            first, second = batch.images_BCHW.chunk(2)
            assert not torch.equal(first, second)
    assert total == train.images_per_epoch
    if name not in ("groups", "groups_of_two", "two_views_joint"):
        plain = next(TrainBatches(on_device, config, 0).epoch(0))
        assert torch.equal(batches[0].images_BCHW, plain.images_BCHW)

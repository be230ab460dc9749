"""The targets and votes of Zipf's label smoothing against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formula_cases import (
    BATCH,
    CHANNELS,
    CLASSES,
    Array,
    Loss,
    LossPromises,
    Taught,
    TeachingPromises,
    assert_equal,
    batches,
    examples,
    labels,
    log_softmax,
    logits,
    maps,
    normal,
    require_finite_gradient,
    some_labels,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.zipf.formulas import dense_votes, zipf_loss, zipf_targets

powers = st.floats(0, 3)


def votes() -> Tensor:
    """Small whole numbers: many classes share a place."""
    return torch.randint(
        0, 4, (BATCH, CLASSES), generator=torch.Generator().manual_seed(7)
    ).double()


def zipf_by_loops(scores: Array, power: float) -> Array:
    target = np.zeros_like(scores)
    for i, label in enumerate(labels().tolist()):
        for j in range(CLASSES):
            rank = 1 + sum(scores[i, k] > scores[i, j] for k in range(CLASSES))
            target[i, j] = 0 if j == label else float(rank) ** -power
        target[i] /= target[i].sum()
    return target


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scores", [votes(), logits(1)], ids=["votes", "logits"])
def test_zipf(power: float, scores: Tensor) -> None:
    expected = zipf_by_loops(scores.numpy(), power)
    np.testing.assert_allclose(zipf_targets(scores, labels(), power), expected, rtol=1e-12)
    total = 0.0
    for i, label in enumerate(labels().tolist()):
        others = [j for j in range(CLASSES) if j != label]
        log_probs = log_softmax(logits().numpy()[i, others])
        for j, log_prob in zip(others, log_probs, strict=True):
            total += expected[i, j] * (np.log(expected[i, j]) - log_prob)
    assert_equal(zipf_loss(logits(), scores, labels(), power), total / BATCH)


def test_the_label_takes_a_rank_of_its_own() -> None:
    scores = torch.tensor([[9.0, 5.0, 5.0, 1.0]])
    target = zipf_targets(scores, torch.tensor([0]), 1.0)
    shares = torch.tensor([[0, 1 / 2, 1 / 2, 1 / 4]]) / (5 / 4)
    torch.testing.assert_close(target, shares)


def test_the_label_gets_no_gradient_from_zipf() -> None:
    rows = logits().requires_grad_()
    zipf_loss(rows, votes(), labels(), 1.0).backward()
    assert rows.grad is not None
    at_label = rows.grad.gather(1, labels().unsqueeze(1))
    assert (at_label == 0).all()
    others = logits().scatter(1, labels().unsqueeze(1), -torch.inf).softmax(-1)
    expected = (others - zipf_targets(votes(), labels(), 1.0)) / BATCH
    torch.testing.assert_close(rows.grad, expected, rtol=0, atol=1e-13)


def test_of_two_classes_zipf_knows_the_other() -> None:
    rows, label = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    assert torch.equal(zipf_targets(rows, label, 1.0), F.one_hot(1 - label, 2).float())
    assert zipf_loss(rows, rows, label, 1.0) == 0


@pytest.mark.parametrize("upsample", [False, True])
def test_dense_votes(upsample: bool) -> None:
    weight, bias = normal(3, CLASSES, CHANNELS), normal(4, CLASSES)
    at = np.einsum("kc,bchw->bkhw", weight.numpy(), maps().numpy())
    at += bias.numpy()[:, None, None]
    if upsample:
        at = doubled(doubled(at, 2), 3)
    expected = np.zeros((BATCH, CLASSES))
    for i in range(BATCH):
        for h in range(at.shape[2]):
            for w in range(at.shape[3]):
                expected[i, np.argmax(at[i, :, h, w])] += 1
    received = dense_votes(maps(), weight, bias, upsample)
    assert received.tolist() == expected.tolist()
    assert received.sum(dim=-1).tolist() == [48 if upsample else 12] * BATCH


def doubled(at: Array, axis: int) -> Array:
    """Linear interpolation at the quarter points of each cell, the edges repeated."""
    size = at.shape[axis]
    slices = []
    for place in range(2 * size):
        where = min(max((place + 0.5) / 2 - 0.5, 0), size - 1)
        low = int(np.floor(where))
        high = min(low + 1, size - 1)
        share = where - low
        slices.append((1 - share) * at.take(low, axis) + share * at.take(high, axis))
    return np.stack(slices, axis)


def test_one_class_is_an_error() -> None:
    rows, label = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        zipf_loss(rows, rows, label, 1.0)


def test_autocast_changes_no_vote() -> None:
    weight, bias = normal(3, CLASSES, CHANNELS).float(), normal(4, CLASSES).float()
    plain = dense_votes(maps().float(), weight, bias, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        received = dense_votes(maps().float(), weight, bias, True)
    assert torch.equal(plain, received)


def test_targets_have_no_gradient() -> None:
    weight, bias = normal(3, CLASSES, CHANNELS).requires_grad_(), normal(4, CLASSES)
    assert not zipf_targets(logits().requires_grad_(), labels(), 1.0).requires_grad
    assert not dense_votes(maps().requires_grad_(), weight, bias, True).requires_grad


def test_low_precision_gives_float32_targets() -> None:
    weight, bias = normal(3, CLASSES, CHANNELS).float(), normal(4, CLASSES).float()
    for target in (
        zipf_targets(logits().bfloat16(), labels(), 1.0),
        dense_votes(maps().bfloat16(), weight, bias, True),
    ):
        assert target.dtype == torch.float32
        assert target.isfinite().all()


LOSSES: dict[str, Loss] = {"zipf": lambda z: zipf_loss(z, z, labels(), 1.0)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "zipf": (lambda z, t: zipf_loss(z, t, labels(), 1.0), logits(0), logits(1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


@examples
@given(batches(), powers, st.integers(0, 99))
def test_the_loss_is_not_negative(rows: list[Tensor], power: float, seed: int) -> None:
    student, scores = rows
    assert zipf_loss(student, scores, some_labels(student, seed), power) >= -1e-12


@examples
@given(batches(num=1), powers, st.integers(0, 99), st.floats(-9, 9))
def test_targets_of_zipf(rows: list[Tensor], power: float, seed: int, score: float) -> None:
    (scores_BK,) = rows
    label = some_labels(scores_BK, seed)
    target = zipf_targets(scores_BK, label, power)
    assert (target.gather(1, label.unsqueeze(1)) == 0).all()
    torch.testing.assert_close(target.sum(dim=-1), torch.ones_like(target[:, 0]))
    equal = zipf_targets(torch.full_like(scores_BK, score), label, power)
    others = 1 - F.one_hot(label, scores_BK.shape[1]).double()
    torch.testing.assert_close(equal, others / (scores_BK.shape[1] - 1))


@examples
@given(batches(), powers, st.integers(0, 99))
def test_zipf_knows_no_order(rows: list[Tensor], power: float, seed: int) -> None:
    logits_BK, scores_BK = rows
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(scores_BK.shape[1], generator=generator)
    label, moved = some_labels(scores_BK, seed), classes.argsort()
    target = zipf_targets(scores_BK[:, classes], moved[label], power)
    torch.testing.assert_close(target, zipf_targets(scores_BK, label, power)[:, classes])
    loss = zipf_loss(logits_BK[:, classes], scores_BK[:, classes], moved[label], power)
    torch.testing.assert_close(loss, zipf_loss(logits_BK, scores_BK, label, power))


@examples
@given(batches(), powers, st.integers(0, 99))
def test_zipf_reads_the_order_of_the_scores_alone(
    rows: list[Tensor], power: float, seed: int
) -> None:
    scores_BK = rows[0].round()  # so that rounding makes no two meet
    label = some_labels(scores_BK, seed)
    bent = 3 * scores_BK + scores_BK.pow(3)
    assert torch.equal(zipf_targets(bent, label, power), zipf_targets(scores_BK, label, power))


@examples
@given(batches(num=1, limit=1e4), powers)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], power: float) -> None:
    student, scores = rows[0].float().requires_grad_(), -rows[0].float()
    require_finite_gradient(zipf_loss(student, scores, some_labels(student), power), student)

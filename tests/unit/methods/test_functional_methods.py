"""The losses of BYOT, PS-KD, TF-KD, BAKE, DDGSD, FRSKD and Zipf, each against plain loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from skdtune.methods.bake.formulas import bake_targets
from skdtune.methods.byot.formulas import byot_feature_loss
from skdtune.methods.ddgsd.formulas import mean_discrepancy
from skdtune.methods.frskd.formulas import attention_map, attention_transfer_loss
from skdtune.methods.functional import (
    Discrepancy,
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
    soft_cross_entropy,
)
from skdtune.methods.ps_kd.formulas import ps_kd_loss
from skdtune.methods.tf_kd_reg.formulas import tf_kd_reg_loss
from skdtune.methods.tf_kd_self.formulas import tf_kd_self_loss
from skdtune.methods.zipf.formulas import dense_votes, zipf_loss, zipf_targets

Array = NDArray[np.float64]

BATCH, CLASSES, CHANNELS = 6, 11, 9
TEMPERATURES = (0.5, 1.0, 4.0, 20.0)


def normal(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def logits(seed: int = 0) -> Tensor:
    return normal(seed, BATCH, CLASSES)


def features(seed: int = 0) -> Tensor:
    return normal(100 + seed, BATCH, CHANNELS)


def maps(seed: int = 0, channels: int = CHANNELS) -> Tensor:
    return normal(200 + seed, BATCH, channels, 4, 3)


def labels() -> Tensor:
    return torch.arange(BATCH) * 3 % CLASSES


def votes() -> Tensor:
    """Small whole numbers: many classes share a place."""
    return torch.randint(
        0, 4, (BATCH, CLASSES), generator=torch.Generator().manual_seed(7)
    ).double()


def softmax(row: Array) -> Array:
    powers: Array = np.exp(row - row.max())
    return powers / powers.sum()


def log_softmax(row: Array) -> Array:
    shifted = row - row.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def assert_equal(received: Tensor, expected: float) -> None:
    assert received.ndim == 0
    assert received.item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_cross_entropy(temperature: float) -> None:
    student, teacher = logits(0).numpy(), logits(1).numpy()
    total = 0.0
    for i in range(BATCH):
        target = softmax(teacher[i] / temperature)
        for j in range(CLASSES):
            total -= target[j] * log_softmax(student[i] / temperature)[j]
    received = soft_cross_entropy(logits(0), logits(1), temperature)
    assert_equal(received, temperature**2 * total / BATCH)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_cross_entropy_has_the_gradient_of_the_divergence(temperature: float) -> None:
    gradients = []
    for loss in (soft_cross_entropy, distillation_kl):
        student = logits(0).requires_grad_()
        loss(student, logits(1), temperature).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


def test_byot_features() -> None:
    feature, final = features(0).numpy(), features(1).numpy()
    total, skipped = 0.0, 0
    for i in range(BATCH):
        for c in range(CHANNELS):
            if feature[i, c] > 0 or final[i, c] > 0:
                total += (feature[i, c] - final[i, c]) ** 2
            else:
                skipped += 1
    assert skipped > 5
    assert_equal(byot_feature_loss(features(0), features(1)), total)


def test_byot_features_are_not_pulled_where_both_are_negative() -> None:
    feature = torch.tensor([[-1.0, -1.0, 2.0, 0.0]], requires_grad=True)
    byot_feature_loss(feature, torch.tensor([[-3.0, 3.0, -3.0, 0.0]])).backward()
    assert feature.grad is not None
    assert feature.grad.tolist() == [[0, -8, 10, 0]]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_ps_kd(alpha: float) -> None:
    rows, memory = logits(0).numpy(), logits(1).softmax(-1).numpy()
    total = 0.0
    for i in range(BATCH):
        for j in range(CLASSES):
            target = (1 - alpha) * (j == labels()[i].item()) + alpha * memory[i, j]
            total -= target * log_softmax(rows[i])[j]
    received = ps_kd_loss(logits(0), labels(), torch.from_numpy(memory), alpha)
    assert_equal(received, total / BATCH)


def test_ps_kd_without_memory_is_cross_entropy_to_the_bit() -> None:
    rows, memory = logits(0).float(), logits(1).float().softmax(-1)
    assert torch.equal(ps_kd_loss(rows, labels(), memory, 0.0), cross_entropy(rows, labels()))


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_ps_kd_that_remembers_the_labels_is_cross_entropy(alpha: float) -> None:
    memory = F.one_hot(labels(), CLASSES).float()
    received = ps_kd_loss(logits(), labels(), memory, alpha)
    assert_equal(received, cross_entropy(logits(), labels()).item())


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_tf_kd_self(temperature: float) -> None:
    student, teacher = logits(0).numpy(), logits(1).numpy()
    total = 0.0
    for i in range(BATCH):
        log_target = log_softmax(teacher[i] / temperature)
        log_probs = log_softmax(student[i] / temperature)
        for j in range(CLASSES):
            total += np.exp(log_target[j]) * (log_target[j] - log_probs[j])
    expected = temperature**2 * total / (BATCH * CLASSES)
    assert_equal(tf_kd_self_loss(logits(0), logits(1), temperature), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("correct_prob", [0.5, 0.99, 1.0])
def test_tf_kd_reg(temperature: float, correct_prob: float) -> None:
    rows = logits().numpy()
    total = 0.0
    for i in range(BATCH):
        designed = np.full(CLASSES, (1 - correct_prob) / (CLASSES - 1))
        designed[labels()[i]] = correct_prob
        target = softmax(designed / temperature)
        for j in range(CLASSES):
            total += target[j] * (np.log(target[j]) - log_softmax(rows[i])[j])
    received = tf_kd_reg_loss(logits(), labels(), correct_prob, temperature)
    assert_equal(received, total / (BATCH * CLASSES))


def test_the_published_teacher_of_tf_kd_reg_is_nearly_uniform() -> None:
    # methods.md, 4.7: 0.0105 for the label and 0.0100 for the others, of 100 classes at T = 20.
    rows = torch.zeros(1, 100, dtype=torch.float64, requires_grad=True)
    tf_kd_reg_loss(rows, torch.tensor([3]), 0.99, 20.0).backward()
    assert rows.grad is not None
    target = 0.01 - 100 * rows.grad[0]  # the gradient is (softmax(z) - q) / (B K)
    assert target[3].item() == pytest.approx(0.0105, abs=5e-5)
    assert target[4].item() == pytest.approx(0.0100, abs=5e-5)


def bake_by_loops(rows: Array, feature: Array, omega: float, temperature: float) -> Array:
    own = np.stack([softmax(row / temperature) for row in rows])
    unit = np.stack([vector / max(np.sqrt((vector**2).sum()), 1e-12) for vector in feature])
    weight = np.zeros((len(rows), len(rows)))
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        weight[i, others] = softmax(np.array([unit[i] @ unit[j] for j in others]))
    target = own
    for _ in range(2000):  # what the inverse is the limit of
        target = omega * weight @ target + (1 - omega) * own
    return target


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("omega", [0.1, 0.5, 0.9])
def test_bake(omega: float, temperature: float) -> None:
    expected = bake_by_loops(logits().numpy(), features().numpy(), omega, temperature)
    received = bake_targets(logits(), features(), omega, temperature)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-13)


def test_bake_alone_or_with_omega_0_predicts_for_itself() -> None:
    own = (logits() / 4).softmax(-1)
    torch.testing.assert_close(bake_targets(logits(), features(), 0.0, 4.0), own)
    alone = bake_targets(logits()[:1], features()[:1], 0.9, 4.0)
    torch.testing.assert_close(alone, own[:1])
    assert distillation_kl_to_probs(logits(), own, 4.0).item() == pytest.approx(0, abs=1e-12)


def test_bake_listens_to_those_who_are_alike() -> None:
    feature = torch.tensor([[1.0, 0.0], [2.0, 0.1], [-1.0, 0.0]])
    rows = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    target = bake_targets(rows, feature, 0.5, 1.0)
    assert target[0, 0] > target[0, 1] + 0.2


def test_autocast_changes_no_target_of_bake_and_no_vote() -> None:
    weight, bias = normal(3, CLASSES, CHANNELS).float(), normal(4, CLASSES).float()
    rows, feature, feature_map = logits().float(), features().float(), maps().float()
    plain = bake_targets(rows, feature, 0.9, 4.0), dense_votes(feature_map, weight, bias, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        received = (
            bake_targets(rows, feature, 0.9, 4.0),
            dense_votes(feature_map, weight, bias, True),
        )
    assert all(torch.equal(x, y) for x, y in zip(plain, received, strict=True))


@pytest.mark.parametrize("kind", ["scalar", "linear"])
def test_mean_discrepancy(kind: Discrepancy) -> None:
    a, b = features(0).numpy(), features(1).numpy()
    if kind == "scalar":
        expected = float(sum(a.flatten()) / a.size - sum(b.flatten()) / b.size) ** 2
    else:
        means = [(sum(a[:, c]) - sum(b[:, c])) / BATCH for c in range(CHANNELS)]
        expected = sum(mean**2 for mean in means)
    assert_equal(mean_discrepancy(features(0), features(1), kind), expected)


@pytest.mark.parametrize("kind", ["scalar", "linear"])
def test_mean_discrepancy_pulls_both_views(kind: Discrepancy) -> None:
    a, b = features(0).requires_grad_(), features(1).requires_grad_()
    mean_discrepancy(a, b, kind).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.abs().max() > 0
    torch.testing.assert_close(a.grad, -b.grad)


def attention_by_loops(feature: Array) -> Array:
    batch, channels, height, width = feature.shape
    result = np.zeros((batch, height * width))
    for i in range(batch):
        for h in range(height):
            for w in range(width):
                energy = sum(feature[i, c, h, w] ** 2 for c in range(channels)) / channels
                result[i, h * width + w] = energy
        result[i] /= np.sqrt((result[i] ** 2).sum())
    return result


def test_attention() -> None:
    expected = attention_by_loops(maps().numpy())
    np.testing.assert_allclose(attention_map(maps()), expected, rtol=1e-12)
    teacher = attention_by_loops(maps(1, channels=5).numpy())
    received = attention_transfer_loss(maps(), maps(1, channels=5))
    assert_equal(received, float(np.mean((expected - teacher) ** 2)))


def test_attention_to_nothing_is_finite() -> None:
    empty = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(empty, torch.rand(2, 5, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 16)
    assert empty.grad is not None
    assert empty.grad.isfinite().all()


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
        tf_kd_reg_loss(rows, label, 0.99, 20.0)
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        zipf_loss(rows, rows, label, 1.0)


TEACHERS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]] = {
    "byot_logits": (lambda z, t: soft_cross_entropy(z, t, 4.0), logits(0), logits(1)),
    "byot_features": (byot_feature_loss, features(0), features(1)),
    "ps_kd": (lambda z, t: ps_kd_loss(z, labels(), t, 0.8), logits(0), logits(1).softmax(-1)),
    "tf_kd_self": (lambda z, t: tf_kd_self_loss(z, t, 4.0), logits(0), logits(1)),
    "attention": (attention_transfer_loss, maps(0), maps(1)),
    "zipf": (lambda z, t: zipf_loss(z, t, labels(), 1.0), logits(0), logits(1)),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_the_student_alone_learns(name: str) -> None:
    loss, student, teacher = TEACHERS[name]
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().max() > 0


def test_targets_have_no_gradient() -> None:
    rows, feature = logits().requires_grad_(), features().requires_grad_()
    weight, bias = normal(3, CLASSES, CHANNELS).requires_grad_(), normal(4, CLASSES)
    assert not bake_targets(rows, feature, 0.5, 4.0).requires_grad
    assert not zipf_targets(rows, labels(), 1.0).requires_grad
    assert not dense_votes(maps().requires_grad_(), weight, bias, True).requires_grad


@pytest.mark.parametrize("name", TEACHERS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    loss, student, teacher = TEACHERS[name]
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher), student.clone().requires_grad_())


def test_other_gradients_agree_with_finite_differences() -> None:
    rows, feature = logits().requires_grad_(), features().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tf_kd_reg_loss(z, labels(), 0.99, 20.0), rows)
    for kind in ("scalar", "linear"):
        assert torch.autograd.gradcheck(
            lambda f, k=kind: mean_discrepancy(f, features(1), k), feature
        )


def bake_loss(z: Tensor) -> Tensor:
    return distillation_kl_to_probs(z, bake_targets(z, z, 0.9, 4.0), 4.0)


#: Losses of one batch of logits, with the teacher made from the same.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft_cross_entropy": lambda z: soft_cross_entropy(z, z.flip(1), 4.0),
    "soft_cross_entropy_cold": lambda z: soft_cross_entropy(z, z.flip(1), 0.1),
    "byot_features": lambda z: byot_feature_loss(z, z.flip(1)),
    "ps_kd": lambda z: ps_kd_loss(z, labels(), z.flip(1).softmax(-1), 0.8),
    "tf_kd_self": lambda z: tf_kd_self_loss(z, z.flip(1), 20.0),
    "tf_kd_reg": lambda z: tf_kd_reg_loss(z, labels(), 0.99, 20.0),
    "bake": bake_loss,
    "scalar": lambda z: mean_discrepancy(z, 2 * z.flip(1), "scalar"),
    "linear": lambda z: mean_discrepancy(z, z.flip(1), "linear"),
    "attention": lambda z: attention_transfer_loss(
        z[:, :, None, None].expand(-1, -1, 2, 3), z.flip(0)[:, None, :6].reshape(BATCH, 1, 2, 3)
    ),
    "zipf": lambda z: zipf_loss(z, z, labels(), 1.0),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [200.0, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_are_finite(name: str, size: float, dtype: torch.dtype) -> None:
    extreme = (logits(4).sign() * size).to(dtype).requires_grad_()
    loss = LOSSES[name](extreme)
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gives_float32_losses(name: str, dtype: torch.dtype) -> None:
    low = logits().to(dtype)
    loss = LOSSES[name](low)
    assert loss.dtype == torch.float32
    assert loss.ndim == 0
    if name != "ps_kd":  # its memory is made by the caller, here in low precision
        assert torch.equal(loss, LOSSES[name](low.float()))


def test_low_precision_gives_float32_targets() -> None:
    low, feature = logits().bfloat16(), features().bfloat16()
    weight, bias = normal(3, CLASSES, CHANNELS).float(), normal(4, CLASSES).float()
    for target in (
        bake_targets(low, feature, 0.5, 4.0),
        zipf_targets(low, labels(), 1.0),
        attention_map(maps().bfloat16()),
        dense_votes(maps().bfloat16(), weight, bias, True),
    ):
        assert target.dtype == torch.float32
        assert target.isfinite().all()
    expected = bake_targets(low.float(), feature.float(), 0.5, 4.0)
    assert torch.equal(bake_targets(low, feature, 0.5, 4.0), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_single_and_double_precision_agree(name: str) -> None:
    double = LOSSES[name](logits())
    assert double.dtype == torch.float64
    single = LOSSES[name](logits().float()).item()
    assert single == pytest.approx(double.item(), rel=3e-5, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_not_hidden(name: str) -> None:
    broken = logits()
    broken[2, 3] = torch.nan
    assert LOSSES[name](broken).isnan()


def test_nan_in_a_teacher_is_not_hidden() -> None:
    for loss, student, teacher in TEACHERS.values():
        broken = teacher.clone()
        broken[2, 3] = torch.nan
        assert loss(student, broken).isnan()


examples = settings(max_examples=60, deadline=None)
temperatures = st.floats(0.3, 20)
powers = st.floats(0, 3)


@st.composite
def batches(draw: st.DrawFn, *, num: int = 2, limit: float = 50) -> list[Tensor]:
    """Several batches of one shape."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 7)))
    numbers = st.floats(-limit, limit, width=64)
    return [torch.from_numpy(draw(arrays("float64", shape, elements=numbers))) for _ in range(num)]


def some_labels(rows: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, rows.shape[1], rows.shape[:1], generator=generator)


@examples
@given(batches(), temperatures, powers, st.floats(0, 1), st.integers(0, 99))
def test_losses_are_not_negative(
    rows: list[Tensor], temperature: float, power: float, share: float, seed: int
) -> None:
    student, teacher = rows
    label = some_labels(student, seed)
    for loss in (
        soft_cross_entropy(student, teacher, temperature),
        byot_feature_loss(student, teacher),
        ps_kd_loss(student, label, teacher.softmax(-1), share),
        tf_kd_self_loss(student, teacher, temperature),
        tf_kd_reg_loss(student, label, share, temperature),
        zipf_loss(student, teacher, label, power),
    ):
        assert loss >= -1e-12 * temperature**2


@examples
@given(batches(), temperatures)
def test_soft_cross_entropy_exceeds_the_divergence_by_the_entropy(
    rows: list[Tensor], temperature: float
) -> None:
    student, teacher = rows
    entropy = torch.special.entr((teacher / temperature).softmax(-1)).sum(dim=-1).mean()
    torch.testing.assert_close(
        soft_cross_entropy(student, teacher, temperature),
        distillation_kl(student, teacher, temperature) + temperature**2 * entropy,
        rtol=1e-9,
        atol=1e-9,
    )


@examples
@given(batches(), st.floats(0, 0.99), temperatures)
def test_targets_of_bake_are_probabilities(
    rows: list[Tensor], omega: float, temperature: float
) -> None:
    logits_BK, features_BC = rows
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-6)):
        target = bake_targets(logits_BK.to(dtype), features_BC.to(dtype), omega, temperature)
        assert target.dtype == dtype
        assert (target >= 0).all()
        assert (target.sum(dim=-1) - 1).abs().max() < tolerance


@examples
@given(batches(), st.floats(0, 0.95), st.integers(0, 99))
def test_bake_knows_no_order(rows: list[Tensor], omega: float, seed: int) -> None:
    logits_BK, features_BC = rows
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(len(logits_BK), generator=generator)
    classes = torch.randperm(logits_BK.shape[1], generator=generator)
    expected = bake_targets(logits_BK, features_BC, omega, 4.0)[images][:, classes]
    received = bake_targets(logits_BK[images][:, classes], features_BC[images], omega, 4.0)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)


@examples
@given(batches(), st.floats(0, 1e-9), temperatures)
def test_as_omega_goes_to_0_bake_predicts_for_itself(
    rows: list[Tensor], omega: float, temperature: float
) -> None:
    logits_BK, features_BC = rows
    received = bake_targets(logits_BK, features_BC, omega, temperature)
    own = (logits_BK / temperature).softmax(-1)
    torch.testing.assert_close(received, own, rtol=0, atol=1e-8)


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
@given(arrays("float64", (2, 3, 2, 4), elements=st.floats(0.1, 50)), st.floats(0.1, 10))
def test_attention_has_length_1_and_no_scale(feature: Array, scale: float) -> None:
    feature_BCHW = torch.from_numpy(feature)
    attention = attention_map(feature_BCHW)
    assert attention.shape == (2, 8)
    torch.testing.assert_close(attention.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(attention_map(scale * feature_BCHW), attention)
    mixed = feature_BCHW[:, [2, 0, 1]]
    assert attention_transfer_loss(feature_BCHW, mixed).item() == pytest.approx(0, abs=1e-20)
    assert attention_transfer_loss(feature_BCHW, feature_BCHW.flip(3)) <= 2 / 8


@examples
@given(batches(num=1, limit=1e4), temperatures, powers)
def test_float32_losses_and_gradients_are_finite(
    rows: list[Tensor], temperature: float, power: float
) -> None:
    student = rows[0].float().requires_grad_()
    teacher, label = -rows[0].float(), some_labels(rows[0], 0)
    target = bake_targets(student, student, 0.9, temperature)
    loss = (
        soft_cross_entropy(student, teacher, temperature)
        + ps_kd_loss(student, label, teacher.softmax(-1), 0.8)
        + tf_kd_reg_loss(student, label, 0.99, temperature)
        + distillation_kl_to_probs(student, target, temperature)
        + zipf_loss(student, teacher, label, power)
    )
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()

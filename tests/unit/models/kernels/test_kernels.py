"""Our own operations against torch's in float64: both types, all shapes, and odd cases."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skdtune.models.kernels.native import Kernels, kernels_for
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import Conv3x3, PointwiseConv2d
from skdtune.models.layers.depthwise import DepthwiseConv2d
from skdtune.models.layers.gate import gated

#: Largest relative error that one rounding to the type allows, with room for the sums.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 4e-3}

DTYPES = st.sampled_from(list(TOLERANCE))
SIDES = st.integers(1, 9)
WIDE = st.sampled_from([16, 32, 48, 64, 80, 112])

many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_map(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(shape, generator=generator) * 2 + 1).to(dtype)
    return values.contiguous(memory_format=torch.channels_last)


def error(ours: Tensor, exact: Tensor) -> float:
    """Return the relative error in the Euclidean norm."""
    difference = (ours.double() - exact).detach().norm()
    return float(difference / exact.detach().norm().clamp(min=1e-12))


def gradients(
    output: Callable[..., Tensor], inputs: list[Tensor], parameters: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return an output, and the gradients of inputs and parameters for a fixed random one."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    result = output(*leaves)
    # Of another seed than any input: the gradient of an input along itself is zero.
    generator = torch.Generator().manual_seed(12345)
    upstream = torch.randn(result.shape, generator=generator).to(inputs[0].dtype).to(result.dtype)
    return result.detach(), list(torch.autograd.grad(result, [*leaves, *parameters], upstream))


@many
@given(
    dtype=DTYPES,
    batch=st.integers(2, 5),
    channels=st.sampled_from([3, 4, 8, 16, 24, 48, 64, 80, 512]),
    height=SIDES,
    width=SIDES,
    relu=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_batch_norm_act_in_training(
    kernels: Kernels,
    dtype: torch.dtype,
    batch: int,
    channels: int,
    height: int,
    width: int,
    relu: bool,
    residual: bool,
    seed: int,
) -> None:
    # Of a few values the gradient is a difference of nearly equal numbers, in any arithmetic.
    assume(batch * height * width >= 24)
    torch.manual_seed(seed)
    layer = BatchNormAct2d(channels, relu=relu)
    nn.init.uniform_(layer.weight, -1, 2)
    nn.init.normal_(layer.bias)
    exact = copy.deepcopy(layer).double()
    inputs = [random_map(batch, channels, height, width, dtype=dtype, seed=seed)]
    if residual:
        inputs.append(random_map(batch, channels, height, width, dtype=dtype, seed=seed + 1))
    output, found = gradients(layer, inputs, list(layer.parameters()))

    # ReLU is not differentiable at zero: where rounding decides the sign, follow what was decided.
    def same_sign(*maps: Tensor) -> Tensor:
        normal = nn.BatchNorm2d.forward(exact, maps[0])
        total = normal + maps[1] if residual else normal
        return total * (output > 0) if relu else total

    expected, wanted = gradients(
        same_sign, [each.double() for each in inputs], list(exact.parameters())
    )
    allowed = TOLERANCE[dtype]
    assert output.dtype == dtype
    assert error(output, expected) < allowed
    for ours, theirs in zip(found, wanted, strict=True):
        scale = max(float(theirs.norm()), 1e-2 * float(wanted[-1].norm()), 1e-6)
        assert float((ours.double() - theirs).norm()) < 10 * allowed * scale
    for name in ("running_mean", "running_var"):
        ours, theirs = getattr(layer, name).double(), getattr(exact, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert layer.num_batches_tracked == 1


@many
@given(
    dtype=DTYPES,
    channels=st.sampled_from([8, 16, 96]),
    side=SIDES,
    relu=st.booleans(),
    residual=st.booleans(),
)
def test_batch_norm_act_in_evaluation(
    kernels: Kernels, dtype: torch.dtype, channels: int, side: int, relu: bool, residual: bool
) -> None:
    layer = BatchNormAct2d(channels, relu=relu).eval()
    for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
        nn.init.uniform_(values, 0.5, 2)
    maps = [random_map(2, channels, side, side, dtype=dtype, seed=s) for s in range(1 + residual)]
    with torch.inference_mode():
        output = layer(*maps)
    exact = nn.BatchNorm2d.forward(copy.deepcopy(layer).double(), maps[0].double())
    exact = exact + maps[1].double() if residual else exact
    assert error(output, exact.relu() if relu else exact) < TOLERANCE[dtype]
    assert layer.num_batches_tracked == 0


def test_a_large_common_value_costs_no_digits(kernels: Kernels) -> None:
    layer = BatchNormAct2d(16, relu=False)
    feature_BCHW = random_map(32, 16, 8, 8) * 0.01 + 1000
    exact = F.batch_norm(feature_BCHW.double(), None, None, training=True)
    assert error(layer(feature_BCHW), exact) < 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_what_is_not_finite_stays_not_finite(
    kernels: Kernels, dtype: torch.dtype, bad: float
) -> None:
    layer = BatchNormAct2d(32)
    feature_BCHW = random_map(4, 32, 4, 4, dtype=dtype)
    feature_BCHW[2, 5, 1, 3] = bad
    output_BCHW = layer(feature_BCHW)
    assert bool(output_BCHW[:, 5].isnan().any())
    assert bool(output_BCHW[:, [4, 6]].isfinite().all())
    assert bool(layer.running_mean[5].isfinite()) is False
    depthwise = DepthwiseConv2d(32, 1)
    assert not bool(depthwise(feature_BCHW)[2, 5].isfinite().all())
    assert bool(depthwise(feature_BCHW)[1].isfinite().all())
    assert not bool(gated(feature_BCHW, feature_BCHW, align_corners=True)[2, 5].isfinite().all())


def test_a_single_value_per_channel_is_refused_as_torch_does(kernels: Kernels) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNormAct2d(16)(random_map(1, 16, 1, 1))


@many
@given(
    dtype=DTYPES,
    batch=st.integers(1, 4),
    channels=WIDE,
    height=SIDES,
    width=SIDES,
    stride=st.sampled_from([1, 2]),
)
def test_depthwise(
    kernels: Kernels,
    dtype: torch.dtype,
    batch: int,
    channels: int,
    height: int,
    width: int,
    stride: int,
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(channels, stride)
    exact = copy.deepcopy(layer).double()
    feature_BCHW = random_map(batch, channels, height, width, dtype=dtype)
    assert kernels_for(feature_BCHW) is kernels
    output, found = gradients(layer, [feature_BCHW], [layer.weight])
    expected, wanted = gradients(
        lambda x: nn.Conv2d.forward(exact, x), [feature_BCHW.double()], [exact.weight]
    )
    assert output.dtype == dtype
    assert output.shape == expected.shape
    for ours, theirs in zip([output, *found], [expected, *wanted], strict=True):
        assert error(ours, theirs) < TOLERANCE[dtype]


@many
@given(
    dtype=DTYPES,
    channels=WIDE,
    small=st.tuples(SIDES, SIDES),
    large=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_gate(
    kernels: Kernels,
    dtype: torch.dtype,
    channels: int,
    small: tuple[int, int],
    large: tuple[int, int],
    align_corners: bool,
    scale: float,
) -> None:
    maps = [random_map(3, channels, *large, dtype=dtype), random_map(3, channels, *small)]
    maps[1] = (maps[1] * scale).to(dtype)

    def composed(feature: Tensor, gate: Tensor) -> Tensor:
        up = F.interpolate(gate, size=large, mode="bilinear", align_corners=align_corners)
        return up.sigmoid() * feature

    output, found = gradients(lambda *m: gated(*m, align_corners=align_corners), maps, [])
    expected, wanted = gradients(composed, [each.double() for each in maps], [])
    assert error(output, expected) < 5 * TOLERANCE[dtype]
    for ours, theirs in zip(found, wanted, strict=True):
        scale_of = max(float(theirs.norm()), 1e-3 * float(expected.norm()))
        assert float((ours.double() - theirs).norm()) < 20 * TOLERANCE[dtype] * scale_of


@pytest.mark.parametrize(
    ("in_channels", "channels", "side", "stride"),
    [(256, 64, 4, 1), (256, 48, 3, 1), (256, 32, 8, 2), (256, 32, 7, 2), (300, 20, 1, 1)],
)
def test_a_convolution_as_a_product(
    monkeypatch: pytest.MonkeyPatch, in_channels: int, channels: int, side: int, stride: int
) -> None:
    monkeypatch.setattr("skdtune.models.layers.convolution._has_amx", lambda: True)
    layer = Conv3x3(in_channels, channels, stride)
    exact = copy.deepcopy(layer).double()
    feature_BCHW = random_map(3, in_channels, side, side, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer._is_better_as_product(feature_BCHW)
        output, found = gradients(layer, [feature_BCHW], [layer.weight])
    expected, wanted = gradients(
        lambda x: nn.Conv2d.forward(exact, x), [feature_BCHW.double()], [exact.weight]
    )
    assert output.shape == expected.shape
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert found[1].dtype == torch.float32
    for ours, theirs in zip([output, *found], [expected, *wanted], strict=True):
        assert error(ours, theirs) < 8e-3


@pytest.mark.parametrize(("in_channels", "channels"), [(16, 24), (128, 40), (200, 128)])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_pointwise_convolution(dtype: torch.dtype, in_channels: int, channels: int) -> None:
    layer = PointwiseConv2d(in_channels, channels)
    exact = copy.deepcopy(layer).double()
    feature_BCHW = random_map(3, in_channels, 5, 2, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        output, found = gradients(layer, [feature_BCHW], [layer.weight])
    expected, wanted = gradients(
        lambda x: nn.Conv2d.forward(exact, x), [feature_BCHW.double()], [exact.weight]
    )
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip([output, *found], [expected, *wanted], strict=True):
        assert error(ours, theirs) < 2 * TOLERANCE[dtype]


def test_a_convolution_is_a_product_only_where_that_is_faster() -> None:
    layer = Conv3x3(256, 256, 1)
    assert not layer._is_better_as_product(random_map(2, 256, 4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        large = random_map(2, 256, 5, 5, dtype=torch.bfloat16)
        assert not layer._is_better_as_product(large)
        assert not Conv3x3(64, 64, 1)._is_better_as_product(large[:, :64, :4, :4])


@pytest.mark.parametrize("num_threads", [2, 3])
def test_any_number_of_threads_computes_the_same(kernels: Kernels, num_threads: int) -> None:
    feature_BCHW = random_map(7, 48, 5, 6)
    results = []
    for threads in (1, num_threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        layer, depthwise = BatchNormAct2d(48), DepthwiseConv2d(48, 2)
        parameters = [*layer.parameters(), *depthwise.parameters()]
        output, found = gradients(
            lambda x, y, d=depthwise, n=layer: gated(n(x, y), d(x), align_corners=False),
            [feature_BCHW, feature_BCHW.flip(0)],
            parameters,
        )
        results.append([output, *found])
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(one, several, rtol=1e-4, atol=1e-5)


def test_two_runs_are_equal_bit_by_bit(kernels: Kernels) -> None:
    feature_BCHW = random_map(4, 32, 6, 6, dtype=torch.bfloat16)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        layer = BatchNormAct2d(32)
        output, found = gradients(layer, [feature_BCHW], list(layer.parameters()))
        runs.append([output, *found, layer.running_var])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))

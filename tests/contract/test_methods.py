"""What every method promises, on every family of backbones."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from method_cases import (
    CASES,
    DEFAULTS,
    LABEL_TERMS,
    PLAINLY,
    SWITCHED_OFF,
    VARIANTS,
    together,
    with_teachers,
)
from method_training import Start, Training, is_statistic, networks_for, require_fit, same
from network_cases import NETWORKS, SMALLEST
from torch import Tensor

from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import networks
from skdtune.describe.config import MethodConfig

#: Networks that look to a method like one of the smallest.
LARGER = sorted(NETWORKS.keys() - set(SMALLEST))

every_method = pytest.mark.parametrize("method", CASES)
#: Each promise is tried with every method and on every family; each method meets each family
#: in one of the promises at least. All three together are the full product.
every_method_and_family = pytest.mark.product(method=CASES, network=SMALLEST)


def test_every_method_and_network_of_the_catalogues_is_tried() -> None:
    tried = {variant.method for variant in VARIANTS.values()}
    assert tried == set(METHODS)
    assert set(NETWORKS) == set(networks())


def test_what_is_no_label_term_can_be_switched_off_by_its_weights() -> None:
    assert set(METHODS) - set(SWITCHED_OFF) <= set(LABEL_TERMS)


@every_method
def test_a_method_fits_one_of_the_small_networks(method: str) -> None:
    assert networks_for(method)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start_training(start_training: Start) -> Start:
    """Start a training, where the method takes the network at all."""

    def start(method: MethodConfig | str, network: str, *, seed: int = 0) -> Training:
        try:
            require_fit(method, network)
        except ValueError as error:
            pytest.skip(f"refused before anything is trained: {error}")
        return start_training(method, network, seed=seed)

    return start


def require_finite_gradients(training: Training) -> None:
    for index in range(2):
        losses = training.backward(index)
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        for part in (training.network, training.terms):
            for name, parameter in part.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name


@every_method_and_family
def test_losses_and_gradients_are_finite(start_training: Start, method: str, network: str) -> None:
    require_finite_gradients(start_training(method, network))


full = pytest.mark.full


def each_once(cases: Iterable[str]) -> list[Any]:
    """Pair cases with larger networks: each meets one at least, the full product on demand."""
    names = list(cases)
    return [
        pytest.param(
            name, network, marks=() if i % len(LARGER) == j or j % len(names) == i else full
        )
        for i, name in enumerate(names)
        for j, network in enumerate(LARGER)
    ]


@pytest.mark.parametrize(("method", "network"), each_once(PLAINLY))
def test_losses_and_gradients_are_finite_on_larger_networks(
    start_training: Start, method: str, network: str
) -> None:
    require_finite_gradients(start_training(method, network))


@every_method_and_family
def test_loss_names_stay_the_same(start_training: Start, method: str, network: str) -> None:
    training = start_training(method, network)
    first, second = training.losses(0), training.losses(1)
    assert list(first) == list(second)
    assert {loss.dtype for loss in (*first.values(), *second.values())} == {torch.float32}
    zeros = {name for name, loss in second.items() if not loss > 0}
    if method in VARIANTS:
        # A choice does not change which losses a trial reports, but it may switch one off.
        variant = VARIANTS[method]
        assert list(first) == list(start_training(variant.method, network).losses(0))
        assert len(zeros) <= sum(value is False for _, value in variant.changed)
    else:
        assert not zeros


@every_method
def test_training_lowers_the_label_loss(start_training: Start, method: str) -> None:
    # Taught almost only by an untrained network, nothing is learned from labels.
    teachable = with_teachers(CASES[method], {"weight": 0.3})
    training = start_training(teachable, networks_for(method)[0])
    before = training.label_loss(0)
    for _ in range(16):
        training.steps(range(1))
    assert training.label_loss(0) < before / 2


@every_method_and_family
def test_same_seed_same_numbers(start_training: Start, method: str, network: str) -> None:
    first = start_training(method, network, seed=5).steps(range(2))
    assert first == start_training(method, network, seed=5).steps(range(2))
    assert first != start_training(method, network, seed=6).steps(range(2))


@every_method_and_family
def test_a_resumed_training_goes_on_bit_by_bit(
    start_training: Start, method: str, network: str
) -> None:
    undisturbed = start_training(method, network)
    undisturbed.steps(range(2))
    state = undisturbed.state()
    expected = undisturbed.steps(range(2, 4))
    resumed = start_training(method, network, seed=99)
    resumed.restore(state)
    assert resumed.steps(range(2, 4)) == expected
    assert same(resumed.network.state_dict(), undisturbed.network.state_dict())


def without_memory(
    training: Training, start_training: Start, method: str, network: str
) -> Training:
    """Make a twin with the same weights, which remembers nothing."""
    twin = start_training(method, network)
    twin.network.load_state_dict(training.network.state_dict())
    trained = dict(training.terms.named_parameters()) | {
        name: value for name, value in training.terms.named_buffers() if is_statistic(name)
    }
    twin.terms.load_state_dict({**twin.terms.state_dict(), **trained})
    return twin


def beginning(training: Training) -> tuple[Any, dict[str, Tensor]]:
    """Begin the second epoch: what the terms have in their state then, and the first losses."""
    training.start_epoch(1)
    # The state may hold the very tensors that the next step changes.
    state = copy.deepcopy(dict(training.terms.state_dict()))
    # Images that were seen before: what is remembered of some matters.
    return state, training.losses(0, epoch=1)


@every_method_and_family
def test_a_new_epoch_needs_what_is_declared_and_nothing_else(
    start_training: Start, method: str, network: str
) -> None:
    """A term that remembers across epochs has it in its state, and all that is there counts."""
    training = start_training(method, network)
    training.steps(range(2))
    twin = without_memory(training, start_training, method, network)
    restored = start_training(method, network, seed=99)
    restored.restore(training.state())
    state, losses = beginning(training)
    assert same(beginning(restored), (state, losses))
    forgetful_state, forgetful_losses = beginning(twin)
    assert same(forgetful_losses, losses) == same(forgetful_state, state)


@pytest.mark.parametrize(
    ("off", "network"),
    [*itertools.product(SWITCHED_OFF, SMALLEST), *each_once(SWITCHED_OFF)],
)
def test_terms_of_weight_zero_leave_the_baseline_as_it_is(
    start_training: Start, off: str, network: str
) -> None:
    nothing = SWITCHED_OFF[off].config
    assert nothing.batch_plan == "plain"
    plain, switched_off = start_training(MethodConfig(), network), start_training(nothing, network)
    num_steps = range(3 if network in SMALLEST else 1)
    assert plain.steps(num_steps) == switched_off.steps(num_steps)
    assert same(plain.network.state_dict(), switched_off.network.state_dict())


@pytest.mark.parametrize("label", LABEL_TERMS)
def test_all_of_them_switched_off_leave_a_label_term_as_it_is(
    start_training: Start, label: str
) -> None:
    distilling = [off for name, off in SWITCHED_OFF.items() if name not in LABEL_TERMS]
    everything = together([DEFAULTS[label], *distilling])
    network = networks_for(everything)[0]
    plain, switched_off = start_training(label, network), start_training(everything, network)
    assert plain.steps(range(3)) == switched_off.steps(range(3))
    assert same(plain.network.state_dict(), switched_off.network.state_dict())


@every_method
def test_what_a_method_remembers_holds_no_graph(start_training: Start, method: str) -> None:
    training = start_training(method, networks_for(method)[0])
    training.steps(range(2))
    for name, value in training.terms.state_dict().items():
        inner = value.values() if isinstance(value, dict) else [value]
        for tensor in inner:
            assert not isinstance(tensor, Tensor) or tensor.grad_fn is None, name


@every_method_and_family
def test_bfloat16_is_close_to_float32(start_training: Start, method: str, network: str) -> None:
    single, low = start_training(method, network), start_training(method, network)
    for index in range(2):
        expected, received = single.losses(index), low.losses(index, bfloat16=True)
        assert list(received) == list(expected)
        for name, loss in received.items():
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, expected[name], rtol=0.08, atol=0.02)


@every_method
def test_gradients_in_bfloat16_are_finite(start_training: Start, method: str) -> None:
    training = start_training(method, networks_for(method)[0])
    totals = training.steps(range(3), bfloat16=True)
    assert all(torch.tensor(totals).isfinite())
    assert all(
        parameter.dtype == torch.float32
        and parameter.grad is not None
        and bool(parameter.grad.isfinite().all())
        for parameter in (*training.network.parameters(), *training.terms.parameters())
    )

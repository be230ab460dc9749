from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict
from skdtune.errors import CheckpointError
from skdtune.methods.base import Step, Term
from skdtune.training.checkpoint import CheckpointOwner, TrialCheckpoints
from skdtune.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
MakeRecorder = Callable[..., Any]

METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "ls": {"method__label": {"name": "label_smoothing"}},
    "drg": {"method__drg": {"stages": [1, 2]}},
    "dsr": {"method__dsr": {}},
    "drg-dsr": {"method__drg": {}, "method__dsr": {}},
    # These go into an epoch with what they remember of the one before.
    "ps-kd": {"method__label": {"name": "ps_kd"}},
    "dlb": {"method__dlb": {}},
}

TRAININGS: dict[str, dict[str, Any]] = {
    **METHODS,
    "no-momentum": {"optimizer__momentum": 0.0},
    "cosine": {"optimizer__schedule": "cosine", "optimizer__warmup_epochs": 1.5},
    "bfloat16": {**METHODS["drg-dsr"], "model__precision": "bfloat16"},
    # What is dropped is drawn from the global generator; stages of tokens.
    "dropout": {"model__name": "mobilenet_v2", "model__width": 4, "method__drg": {}},
    "tokens": {"model__name": "vit_tiny", "model__width": 8, "method__drg": {}},
    # Wide enough for all kernels of our own.
    "wide": {**METHODS["drg-dsr"], "model__precision": "bfloat16", "model__width": 16},
}

OWNER = CheckpointOwner("digits", "0123456789abcdef" * 2, 12, "f" * 64)
STEPS_PER_EPOCH = 5


def same(left: Any, right: Any) -> bool:
    """Compare two states bit by bit, tensors with their memory layout."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.stride() == right.stride() and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def copied(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take a state through a file, read as carefully as a stranger's."""
    path = folder / "state"
    torch.save(state, path)
    read: dict[str, Any] = torch.load(path, weights_only=True)
    return read


def set_global_seeds(seed: int) -> None:
    """Be another process: leave all global generators in a state of their own."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class Keeper:
    """Writes a checkpoint after every epoch, as a worker does.

    Args:
        trainer: Whose state is written.
        checkpoints: Where to.
        reports: The epochs that are done already.
        interrupt_at: Interrupt when asked for the so-manieth time, counted from 1.
    """

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: TrialCheckpoints,
        reports: list[EpochReport],
        interrupt_at: int | None,
    ) -> None:
        self.reports = reports
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._asked = itertools.count(1)
        self._interrupt_at = interrupt_at

    def epoch_finished(self, report: EpochReport) -> Verdict:
        self.reports.append(report)
        curve = [dataclasses.asdict(entry) for entry in self.reports]
        self._checkpoints.save(len(curve), self._trainer.state(), curve)
        return Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        return next(self._asked) == self._interrupt_at


def attempt(
    number: int, make: Callable[[], Trainer], url: str, interrupt_at: int | None = None
) -> tuple[Trainer, Keeper, Verdict]:
    """Do what a worker does with a trial: build it, load its newest checkpoint, train on."""
    set_global_seeds(number)
    checkpoints = TrialCheckpoints(url, OWNER, number)
    trainer = make()
    reports: list[EpochReport] = []
    found = checkpoints.load(pytest.fail)
    if found is not None:
        trainer.load_state(found.state)
        reports = [EpochReport(**entry) for entry in found.curve]
    keeper = Keeper(trainer, checkpoints, reports, interrupt_at)
    return trainer, keeper, trainer.run(keeper, first_epoch=len(reports))


def curve_of(reports: list[EpochReport]) -> list[EpochReport]:
    """All that was reported, without the clock."""
    return [dataclasses.replace(report, seconds=0.0) for report in reports]


def without_random_states(trainer: Trainer) -> dict[str, Any]:
    return {name: part for name, part in trainer.state().items() if name != "random"}


@pytest.mark.parametrize("training", TRAININGS)
def test_a_training_that_goes_on_after_any_epoch_is_bit_equal_to_one_without_a_break(
    training: str, make_trainer: MakeTrainer, make_recorder: MakeRecorder, tmp_path: Path
) -> None:
    def make() -> Trainer:
        return make_trainer(**TRAININGS[training], budget__epochs=4)

    whole, undisturbed = make(), make_recorder()
    states: list[dict[str, Any]] = []

    class Copier(NullReporter):
        def epoch_finished(self, report: EpochReport) -> Verdict:
            states.append(copied(whole.state(), tmp_path))
            verdict: Verdict = undisturbed.epoch_finished(report)
            return verdict

    whole.run(Copier())
    assert len({report.val_loss for report in undisturbed.reports}) == 4, "it does train"
    for epochs, state in enumerate(states, start=1):
        set_global_seeds(epochs)
        trainer, recorder = make(), make_recorder()
        trainer.load_state(state)
        assert trainer.run(recorder, first_epoch=epochs) is Verdict.CONTINUE
        assert recorder.curve == undisturbed.curve[epochs:]
        assert same(without_random_states(trainer), without_random_states(whole)), epochs


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_was_killed_five_times_is_bit_equal_to_one_that_was_not(
    method: str, make_trainer: MakeTrainer, make_recorder: MakeRecorder, tmp_path: Path
) -> None:
    def make() -> Trainer:
        return make_trainer(**METHODS[method], budget__epochs=6)

    whole, undisturbed = make(), make_recorder()
    whole.run(undisturbed)
    # Before the first checkpoint, in the middle of an epoch, before one's first and last step,
    # and twice in the same epoch.
    kills = [4, STEPS_PER_EPOCH + 3, 2 * STEPS_PER_EPOCH + 1, STEPS_PER_EPOCH, 2]
    known = []
    for number, interrupt_at in enumerate(kills, start=1):
        _, keeper, verdict = attempt(number, make, str(tmp_path), interrupt_at)
        assert verdict is Verdict.INTERRUPT
        known.append(len(keeper.reports))
    assert known == [0, 1, 3, 3, 3]
    trainer, keeper, verdict = attempt(6, make, str(tmp_path))
    assert verdict is Verdict.CONTINUE
    assert curve_of(keeper.reports) == curve_of(undisturbed.reports)
    assert same(without_random_states(trainer), without_random_states(whole))


def test_an_epoch_that_was_left_in_its_middle_is_trained_again_from_its_start(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder, tmp_path: Path
) -> None:
    def make() -> Trainer:
        return make_trainer(**METHODS["drg-dsr"], budget__epochs=3)

    whole, undisturbed = make(), make_recorder()
    whole.run(undisturbed)
    left, keeper, _ = attempt(1, make, str(tmp_path), interrupt_at=STEPS_PER_EPOCH + 4)
    assert len(keeper.reports) == 1
    found = TrialCheckpoints(str(tmp_path), OWNER, 2).load(pytest.fail)
    assert found is not None
    assert found.epochs == 1
    assert not same(found.state["network"], left.state()["network"]), "steps were lost"
    trainer, keeper, _ = attempt(2, make, str(tmp_path))
    assert curve_of(keeper.reports) == curve_of(undisturbed.reports)
    assert same(without_random_states(trainer), without_random_states(whole))


class Noise(Term):
    """A loss that draws from every global generator, as a library might."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, ...]] = []

    def forward(self, step: Step) -> dict[str, Tensor]:
        self.drawn.append(
            # The normal generators remember every second number.
            (float(torch.randn(())), np.random.rand(), np.random.randn(), random.gauss(0, 1))
        )
        return {"noise": torch.tensor(sum(self.drawn[-1]))}


def test_the_global_random_generators_go_on_where_they_were(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def make(seed: int) -> tuple[Trainer, Noise]:
        set_global_seeds(seed)
        trainer, noise = make_trainer(budget__epochs=2), Noise()
        trainer.terms["noise"] = noise
        return trainer, noise

    first, heard = make(1)
    keeper = Keeper(first, TrialCheckpoints(str(tmp_path), OWNER, 1), [], None)
    first.run(keeper)
    # The last of the two checkpoints was written after the last epoch.
    newest, before = sorted(tmp_path.glob("**/*.ckpt"), reverse=True)
    newest.unlink()
    assert before.name.startswith("epoch-00001")
    second, again = make(2)
    found = TrialCheckpoints(str(tmp_path), OWNER, 2).load(pytest.fail)
    assert found is not None
    second.load_state(found.state)
    second.run(NullReporter(), first_epoch=1)
    assert len(heard.drawn) == 2 * STEPS_PER_EPOCH
    assert again.drawn == heard.drawn[STEPS_PER_EPOCH:]


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for pair in value.items() for part in pair for leaf in leaves(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


@pytest.mark.parametrize("training", TRAININGS)
def test_a_state_is_plain_data_and_tensors(
    training: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(**TRAININGS[training])
    trainer.run(NullReporter())
    state = trainer.state()
    assert {type(leaf) for leaf in leaves(state)} <= {
        *(Tensor, torch.nn.Parameter, str, int, float, bool),
        type(None),
    }
    assert same(copied(state, tmp_path), state)


def test_weights_and_momentum_come_back_in_the_layout_they_had(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first, second = (make_trainer(**METHODS["drg"], budget__epochs=1) for _ in range(2))
    first.run(NullReporter())
    second.load_state(copied(first.state(), tmp_path))

    def layouts(trainer: Trainer) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        momenta = trainer._optimizer.state
        parameters = [*trainer.network.parameters(), *trainer.terms.parameters()]
        return [(p.stride(), momenta[p]["momentum_buffer"].stride()) for p in parameters]

    assert layouts(second) == layouts(first)
    for trainer in (first, second):
        kernels = [p for p in trainer.network.parameters() if p.dim() == 4]
        assert kernels
        for kernel in kernels:
            momentum = trainer._optimizer.state[kernel]["momentum_buffer"]
            for tensor in (kernel, momentum):
                assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_two_trainings_from_one_state_in_memory_do_not_disturb_each_other(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder, tmp_path: Path
) -> None:
    def make() -> Trainer:
        return make_trainer(**METHODS["drg-dsr"], budget__epochs=2)

    origin = make()
    origin.run(make_recorder(prune_after=1))
    state = copied(origin.state(), tmp_path)
    before = copied(state, tmp_path)
    curves = []
    for _ in range(2):
        trainer, recorder = make(), make_recorder()
        trainer.load_state(state)
        trainer.run(recorder, first_epoch=1)
        curves.append(recorder.curve)
    assert curves[0] == curves[1]
    assert same(state, before)


@pytest.mark.parametrize(
    ("written", "read", "reason"),
    [
        ({"model__width": 8}, {}, "size mismatch"),
        ({"model__name": "resnet20"}, {}, "Unexpected key"),
        ({}, {"model__name": "resnet20"}, "Missing key"),
        (METHODS["drg"], {}, "Unexpected key"),
        ({}, METHODS["drg"], "Missing key"),
        ({"method__drg": {"stages": [1]}}, {"method__drg": {"stages": [2]}}, "Missing key"),
        (METHODS["dsr"], {}, "Unexpected key"),
        ({}, METHODS["dsr"], "Missing key"),
        (METHODS["ls"], METHODS["drg-dsr"], "Missing key"),
    ],
)
def test_the_state_of_another_training_is_refused_and_the_difference_named(
    written: dict[str, Any],
    read: dict[str, Any],
    reason: str,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    state = copied(make_trainer(**written).state(), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        make_trainer(**read).load_state(state)
    message = str(caught.value)
    assert message.startswith("the state does not fit this training: ")
    assert reason in message
    assert "\n" not in message
    assert len(message) < 300
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("part", ["network", "terms", "optimizer", "random"])
@pytest.mark.parametrize("wrong", [None, [], {}, "text", math.nan, torch.zeros(2), {"torch": 1}])
def test_a_state_with_a_part_that_is_none_is_refused(
    part: str, wrong: object, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(**METHODS["drg-dsr"])
    with pytest.raises(CheckpointError, match="does not fit this training"):
        trainer.load_state({**trainer.state(), part: wrong})


@pytest.mark.parametrize("part", ["network", "terms", "optimizer", "random"])
def test_a_state_without_one_of_its_parts_is_refused(part: str, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    state = {name: value for name, value in trainer.state().items() if name != part}
    with pytest.raises(CheckpointError, match=f"KeyError: '{part}'"):
        trainer.load_state(state)


def test_a_full_device_says_nothing_against_a_state(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()

    def full(state: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer._optimizer, "load_state_dict", full)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.load_state(trainer.state())

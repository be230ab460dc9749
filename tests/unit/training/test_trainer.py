from __future__ import annotations

import ast
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import skdtune.training
from skdtune.data.batches import DeviceImages, val_batches
from skdtune.describe.config import MethodConfig, TrialConfig
from skdtune.describe.epoch_report import NullReporter, Verdict
from skdtune.errors import NonFiniteLossError
from skdtune.methods.base import Step, Term
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig
from skdtune.models.backbone import ImageClassifier
from skdtune.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
MakeRecorder = Callable[..., Any]

METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "ls": {"method__label": {"name": "label_smoothing"}},
    "drg": {"method__drg": {"stages": [1, 2]}},
    "dsr": {"method__dsr": {}},
    "drg-dsr": {"method__drg": {}, "method__dsr": {}},
}


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def count_steps(trainer: Trainer) -> list[int]:
    """Return a list that grows by one at every step of the optimiser."""
    steps: list[int] = []
    trainer._optimizer.register_step_post_hook(lambda *_: steps.append(len(steps)))
    return steps


@pytest.mark.parametrize("method", METHODS)
def test_the_same_configuration_gives_the_same_curve_bit_for_bit(
    method: str, make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    first, second = make_recorder(), make_recorder()
    one, two = (make_trainer(**METHODS[method]) for _ in range(2))
    assert one.run(first) is Verdict.CONTINUE
    torch.rand(7)
    assert two.run(second) is Verdict.CONTINUE
    assert len(first.curve) == 2
    assert first.curve == second.curve
    assert equal(weights(one), weights(two))


def test_another_seed_gives_another_curve(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    first, second = make_recorder(), make_recorder()
    make_trainer(seed=1, budget__epochs=1).run(first)
    make_trainer(seed=2, budget__epochs=1).run(second)
    assert first.curve != second.curve


def test_all_methods_with_one_seed_start_from_the_same_network(make_trainer: MakeTrainer) -> None:
    baseline = weights(make_trainer(seed=5))
    for settings in METHODS.values():
        assert equal(weights(make_trainer(seed=5, **settings)), baseline)
    assert not equal(weights(make_trainer(seed=6)), baseline)


def test_all_methods_with_one_seed_see_the_same_batches(make_trainer: MakeTrainer) -> None:
    def indices(settings: dict[str, Any]) -> list[list[int]]:
        batches = make_trainer(seed=5, **settings)._batches
        return [batch.indices_B.tolist() for batch in batches.epoch(1)]

    baseline = indices({})
    assert all(indices(settings) == baseline for settings in METHODS.values())


def random_states() -> list[object]:
    numpy_state: Any = np.random.get_state(legacy=True)
    return [torch.get_rng_state().tolist(), numpy_state[1].tolist(), random.getstate()]


def test_the_global_random_states_are_left_alone(make_trainer: MakeTrainer) -> None:
    torch.manual_seed(11)
    before = random_states()
    make_trainer(**METHODS["drg-dsr"], budget__epochs=1).run(NullReporter())
    assert random_states() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"method__dsr": {"weight": 0.0}},
        {"method__drg": {"weight": 0.0, "aux_ce_weight": 0.0, "stages": [1, 2]}},
        {"method__drg": {"weight": 0.0, "aux_ce_weight": 0.0}, "method__dsr": {"weight": 0.0}},
    ],
    ids=["dsr", "drg", "both"],
)
def test_a_term_of_weight_zero_changes_no_bit_of_the_baseline(
    settings: dict[str, Any], make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    plain, other = make_recorder(), make_recorder()
    baseline, trainer = make_trainer(), make_trainer(**settings)
    baseline.run(plain)
    trainer.run(other)
    assert [r.val_accuracy for r in plain.reports] == [r.val_accuracy for r in other.reports]
    assert [r.val_loss for r in plain.reports] == [r.val_loss for r in other.reports]
    assert [r.losses["cross_entropy"] for r in plain.reports] == [
        r.losses["cross_entropy"] for r in other.reports
    ]
    assert equal(weights(baseline), weights(trainer))


@pytest.mark.parametrize("method", ["drg", "dsr"])
def test_a_term_with_weight_changes_the_curve(
    method: str, make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    plain, other = make_recorder(), make_recorder()
    make_trainer().run(plain)
    make_trainer(**METHODS[method]).run(other)
    assert [r.val_loss for r in plain.reports] != [r.val_loss for r in other.reports]


def test_every_epoch_is_reported_once_with_its_rate_and_its_losses_by_name(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder, make_config: Callable[..., TrialConfig]
) -> None:
    config = make_config(
        **METHODS["drg-dsr"],
        budget__epochs=3,
        optimizer__schedule="cosine",
        optimizer__warmup_epochs=1.0,
    )
    recorder = make_recorder()
    trainer = make_trainer(config)
    trainer.run(recorder)
    assert [report.epoch for report in recorder.reports] == [0, 1, 2]
    assert recorder.reports[0].lr == pytest.approx(0.05)
    assert 0 < recorder.reports[2].lr < recorder.reports[1].lr < 0.05
    for report in recorder.reports:
        assert list(report.losses) == ["cross_entropy", "drg", "aux_ce", "dsr"]
        assert all(math.isfinite(loss) and loss > 0 for loss in report.losses.values())
        assert 0 <= report.val_accuracy <= 1
        assert report.val_loss > 0
        assert report.seconds > 0


def test_the_reported_loss_is_the_mean_over_the_steps(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(budget__epochs=1), make_recorder()
    seen: list[float] = []
    (term,) = trainer.terms.values()
    term.register_forward_hook(
        lambda _module, _inputs, losses: seen.append(losses["cross_entropy"].item())
    )
    trainer.run(recorder)
    assert len(seen) == len(trainer._batches) == 5
    assert recorder.reports[0].losses["cross_entropy"] == pytest.approx(sum(seen) / 5)


def test_the_learning_rate_of_the_schedule_is_the_one_that_steps(
    make_trainer: MakeTrainer,
) -> None:
    trainer = make_trainer(
        budget__epochs=4, optimizer__milestones=[0.5], optimizer__warmup_epochs=1.0
    )
    used: list[float] = []
    trainer._optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
    )
    trainer.run(NullReporter())
    warm = [0.05 * (step + 1) / 5 for step in range(5)]
    assert used == pytest.approx([*warm, *[0.05] * 5, *[0.005] * 10])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["baseline", "drg-dsr"])
def test_training_lowers_the_loss_in_both_precisions(
    precision: str, method: str, make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer = make_trainer(
        **METHODS[method],
        model__precision=precision,
        budget__epochs=10,
        optimizer__schedule="cosine",
        data__flip=False,
    )
    assert trainer.dtype is (torch.bfloat16 if precision == "bfloat16" else None)
    recorder = make_recorder()
    trainer.run(recorder)
    losses = [report.losses["cross_entropy"] for report in recorder.reports]
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.dtype is torch.float32 for p in trainer.network.parameters())


def test_bfloat16_really_computes_otherwise_than_float32(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    exact, coarse = make_recorder(), make_recorder()
    make_trainer(budget__epochs=1).run(exact)
    make_trainer(budget__epochs=1, model__precision="bfloat16").run(coarse)
    a, b = exact.reports[0].losses["cross_entropy"], coarse.reports[0].losses["cross_entropy"]
    assert a != b
    assert a == pytest.approx(b, rel=0.05)


def test_the_validation_accuracy_is_a_count_image_by_image(
    make_trainer: MakeTrainer,
    make_recorder: MakeRecorder,
    digits: tuple[DeviceImages, DeviceImages],
) -> None:
    trainer, recorder = make_trainer(), make_recorder()
    trainer.run(recorder)
    _, val = digits
    network = ImageClassifier(trainer.network).eval()
    with torch.no_grad():
        correct = sum(
            int(network(batch.images_BCHW).argmax()) == int(batch.labels_B)
            for batch in val_batches(val, batch_size=1)
        )
    assert len(val) == 60
    assert recorder.reports[-1].val_accuracy == correct / 60


def test_a_validation_changes_nothing_in_the_training(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder, digits: Any
) -> None:
    trainer, other = make_trainer(), make_trainer()
    one, two = make_recorder(), make_recorder()
    trainer.score(digits[1])
    trainer.run(one)
    other.run(two)
    assert one.curve == two.curve


def test_pruning_ends_the_training_after_that_epoch(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(budget__epochs=4), make_recorder(prune_after=2)
    steps = count_steps(trainer)
    assert trainer.run(recorder) is Verdict.PRUNE
    assert len(recorder.reports) == 2
    assert len(steps) == 2 * len(trainer._batches)


@pytest.mark.parametrize(("asked", "steps_done", "epochs_done"), [(1, 0, 0), (4, 3, 0), (7, 6, 1)])
def test_an_interruption_ends_the_training_between_two_steps(
    asked: int,
    steps_done: int,
    epochs_done: int,
    make_trainer: MakeTrainer,
    make_recorder: MakeRecorder,
) -> None:
    trainer, recorder = make_trainer(), make_recorder(interrupt_at=asked)
    steps = count_steps(trainer)
    assert trainer.run(recorder) is Verdict.INTERRUPT
    assert len(steps) == steps_done
    assert len(recorder.reports) == epochs_done


def test_the_reporter_is_told_before_every_step_how_far_the_epoch_is(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(), make_recorder()
    trainer.run(recorder)
    assert recorder.progress == [0.0, 0.2, 0.4, 0.6, 0.8] * 2


def test_a_training_can_begin_at_a_later_epoch(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(budget__epochs=3), make_recorder()
    steps = count_steps(trainer)
    assert trainer.run(recorder, first_epoch=2) is Verdict.CONTINUE
    assert [report.epoch for report in recorder.reports] == [2]
    assert len(steps) == len(trainer._batches)
    assert trainer.run(recorder, first_epoch=3) is Verdict.CONTINUE
    assert len(recorder.reports) == 1, "nothing is left to do"


def test_a_learning_rate_that_explodes_raises_with_the_name_of_the_loss(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    recorder = make_recorder()
    with pytest.raises(
        NonFiniteLossError, match=r"the loss .*cross_entropy.* non-finite in epoch"
    ):
        make_trainer(optimizer__lr=1e25, budget__epochs=3).run(recorder)
    assert all(math.isfinite(report.losses["cross_entropy"]) for report in recorder.reports)


class Poisoned(Term):
    """A loss that turns bad in one epoch and never touches the weights."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, step: Step) -> dict[str, Tensor]:
        value = self.bad if step.epoch == 1 else 1.0
        return {"poisoned": torch.tensor(value)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_any_non_finite_loss_ends_the_training_in_its_epoch(
    bad: float, make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(budget__epochs=3), make_recorder()
    trainer.terms["poisoned"] = Poisoned(bad)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.run(recorder)
    assert str(caught.value) == "the loss poisoned became non-finite in epoch 2"
    assert [report.epoch for report in recorder.reports] == [0]


def test_the_terms_are_told_of_every_epoch_before_its_first_step(
    make_trainer: MakeTrainer,
) -> None:
    told: list[str] = []

    class Listener(Term):
        def start_epoch(self, epoch: int) -> None:
            told.append(f"start {epoch}")

        def forward(self, step: Step) -> dict[str, Tensor]:
            assert self.training
            told.append(f"step {step.epoch}")
            return {}

    trainer = make_trainer()
    trainer.terms["listener"] = Listener()
    trainer.run(NullReporter())
    assert told == ["start 0", *["step 0"] * 5, "start 1", *["step 1"] * 5]


def test_auxiliary_modules_are_trained(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(**METHODS["drg"], budget__epochs=1)
    before = [p.clone() for p in trainer.terms.parameters()]
    trainer.run(NullReporter())
    assert before
    assert not any(
        torch.equal(old, new) for old, new in zip(before, trainer.terms.parameters(), strict=True)
    )


SOURCES = sorted(Path(skdtune.training.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_source_names_no_method(source: Path) -> None:
    terms = {*MethodConfig.model_fields, LabelSmoothingConfig().name} - {"label"}
    assert {"drg", "dsr"} <= terms
    text = source.read_text(encoding="utf-8")
    assert not [n for n in terms if re.search(rf"(?<![a-z]){n}(?![a-z])", text, re.IGNORECASE)]
    imported = {
        node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    shared = {"skdtune.methods.base", "skdtune.methods.catalogue", "skdtune.methods.functional"}
    assert {name for name in imported if name.startswith("skdtune.methods")} <= shared


def test_the_first_and_the_last_report_have_a_profile_and_the_last_one_scores(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder
) -> None:
    trainer, recorder = make_trainer(budget__epochs=3), make_recorder()
    trainer.run(recorder)
    first, middle, last = recorder.reports
    assert (first.scores, middle.scores, middle.profile) == (None, None, None)
    assert first.profile is not None
    assert last.profile is not None
    assert len(first.profile) == len(last.profile) == 10
    assert last.profile == sorted(last.profile, reverse=True)
    assert last.scores is not None
    assert set(last.scores) == {"top5", "ece", "nll"}
    assert last.scores["nll"] == last.val_loss
    assert last.val_accuracy is not None
    assert last.scores["top5"] >= last.val_accuracy


def test_scores_change_nothing_in_the_curve(
    make_trainer: MakeTrainer, make_recorder: MakeRecorder, digits: Any
) -> None:
    """The last epoch of one training is an epoch like any other, but for its scores."""
    trainer, recorder = make_trainer(budget__epochs=2), make_recorder()
    trainer.run(recorder)
    found = trainer.measure(digits[1])
    assert (found.accuracy, found.loss) == (
        recorder.reports[-1].val_accuracy,
        recorder.reports[-1].val_loss,
    )


def test_a_training_without_validation_reports_its_loss_and_learns_the_same(
    make_trainer: MakeTrainer,
    make_recorder: MakeRecorder,
    make_config: Any,
    digits: Any,
) -> None:
    judged, alone = make_recorder(), make_recorder()
    make_trainer().run(judged)
    Trainer(make_config(), digits[0], None, 10, torch.device("cpu")).run(alone)
    for one, other in zip(judged.reports, alone.reports, strict=True):
        assert (other.val_accuracy, other.val_loss) == (None, None)
        assert (other.scores, other.profile) == (None, None)
        assert other.losses == one.losses
        assert other.value == pytest.approx(sum(one.losses.values()))
        assert one.value == one.val_accuracy

"""What every method keeps to in a whole training: it goes on exactly, and starts as all do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from method_cases import DEFAULTS, PLAINLY, with_teachers
from method_training import is_statistic, same
from network_cases import NetworkCase, watch_images

from skdtune.data.batches import Batch
from skdtune.describe.config import MethodConfig
from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict
from skdtune.describe.method_config import PLAIN_LABEL
from skdtune.methods.base import Term
from skdtune.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
MakeRecorder = Callable[..., Any]
MakeMethod = Callable[..., Trainer]

#: Images to train on, and in a step of a plain epoch; see the configuration of ``make_config``.
NUM_TRAIN, BATCH = 180, 32

#: What every other method is compared with.
BASELINE = PLAIN_LABEL

every_method = pytest.mark.parametrize("method", PLAINLY)
#: What a term does before its first step it does beside others, too.
each_alone = pytest.mark.parametrize("method", DEFAULTS)


@pytest.fixture
def make(make_trainer: MakeTrainer, make_config: Any, tmp_path: Path) -> MakeMethod:
    """Make a trainer of a method by the name of its case."""

    def make(method: str, **changes: Any) -> Trainer:
        config, chosen = make_config(**changes), PLAINLY[method]
        if chosen.teachers:
            chosen = with_teachers(
                chosen, NetworkCase(config.model, (1, 8, 8)).write_teacher(tmp_path)
            )
        return make_trainer(config.model_copy(update={"method": chosen}))

    return make


def anchors(method: MethodConfig) -> int:
    """Count the images of a step that are there for their own sake."""
    return BATCH // (1 + method.companions)


def curve(reports: list[EpochReport]) -> list[EpochReport]:
    """All that was reported, without the clock."""
    return [replace(report, seconds=0.0) for report in reports]


class Copier(NullReporter):
    """Keeps the state after every epoch, as a file holds it, and what was reported."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.states: list[dict[str, Any]] = []
        self.reports: list[EpochReport] = []
        self._trainer = trainer
        self._path = folder / "state"

    def epoch_finished(self, report: EpochReport) -> Verdict:
        torch.save(self._trainer.state(), self._path)
        self.states.append(torch.load(self._path, weights_only=True))
        self.reports.append(report)
        return Verdict.CONTINUE


# Going on


@every_method
def test_a_training_goes_on_after_any_epoch_bit_by_bit(
    make: MakeMethod, make_recorder: MakeRecorder, tmp_path: Path, method: str
) -> None:
    whole = make(method, budget__epochs=3)
    undisturbed = Copier(whole, tmp_path)
    whole.run(undisturbed)
    assert len({report.val_loss for report in undisturbed.reports}) == 3, "it does train"
    for epochs in (1, 2):
        torch.manual_seed(epochs)
        trainer, recorder = make(method, budget__epochs=3), make_recorder()
        trainer.load_state(undisturbed.states[epochs - 1])
        assert trainer.run(recorder, first_epoch=epochs) is Verdict.CONTINUE
        assert curve(recorder.reports) == curve(undisturbed.reports[epochs:])
        for mine, other in (
            (trainer.network.state_dict(), whole.network.state_dict()),
            (trainer.terms.state_dict(), whole.terms.state_dict()),
        ):
            assert same(mine, other), epochs


def remembered(trainer: Trainer, terms: dict[str, Any]) -> Any:
    """Return what the terms know of an epoch, when the next one begins."""
    trainer.terms.load_state_dict(terms)
    for term in trainer.terms.values():
        assert isinstance(term, Term)
        term.start_epoch(1)
    return copy.deepcopy(dict(trainer.terms.state_dict()))


@every_method
def test_only_what_remembers_would_miss_its_memory(
    make: MakeMethod, make_recorder: MakeRecorder, tmp_path: Path, method: str
) -> None:
    whole = make(method)
    undisturbed = Copier(whole, tmp_path)
    whole.run(undisturbed)
    forgetful, recorder = make(method), make_recorder()
    state, fresh = undisturbed.states[0], forgetful.terms.state_dict()
    parameters = dict(whole.terms.named_parameters())
    kept = {
        name: value
        for name, value in state["terms"].items()
        if name in parameters or is_statistic(name)
    }
    forgotten = {**fresh, **kept}
    forgetful.load_state({**state, "terms": forgotten})
    forgetful.run(recorder, first_epoch=1)
    differs = curve(recorder.reports) != curve(undisturbed.reports[1:])
    other = make(method)
    assert differs != same(remembered(other, state["terms"]), remembered(other, forgotten))


@pytest.mark.parametrize("method", ["ps_kd", "dlb", "dsr"])
def test_a_training_that_is_pruned_was_planned_for_all_its_epochs(
    make: MakeMethod, make_recorder: MakeRecorder, method: str
) -> None:
    whole, pruned = make_recorder(), make_recorder(prune_after=3)
    make(method, budget__epochs=6).run(whole)
    assert make(method, budget__epochs=6).run(pruned) is Verdict.PRUNE
    assert curve(pruned.reports) == curve(whole.reports[:3])


# Starting


@each_alone
def test_a_report_says_how_many_images_the_epoch_had(
    make: MakeMethod, make_recorder: MakeRecorder, method: str
) -> None:
    trainer, recorder = make(method, budget__epochs=2), make_recorder()
    of_step, config = anchors(PLAINLY[method]), PLAINLY[method]
    expected = NUM_TRAIN // of_step * of_step * config.images_per_anchor
    seen: list[int] = []
    watch_images(trainer.network, seen)
    trainer.run(recorder)
    assert [report.images for report in recorder.reports] == [expected] * 2
    assert trainer.images_per_epoch == expected
    # Those are what the network is shown; of a plan with second images, those of one step may
    # wait for a next one.
    has_second = first_batch(trainer).second_BCHW is not None
    assert 2 * expected - sum(seen) in ((0, BATCH) if has_second else (0,))


@each_alone
def test_a_method_starts_from_the_network_of_the_baseline(make: MakeMethod, method: str) -> None:
    baseline, other = make(BASELINE, seed=5), make(method, seed=5)
    assert same(other.network.state_dict(), baseline.network.state_dict())
    assert not same(make(method, seed=6).network.state_dict(), baseline.network.state_dict())


def first_batch(trainer: Trainer, epoch: int = 0) -> Batch:
    return next(trainer._batches.epoch(epoch))


@each_alone
def test_a_method_sees_the_images_of_the_baseline_in_their_order(
    make: MakeMethod, method: str
) -> None:
    for epoch in (0, 1):
        expected = first_batch(make(BASELINE, seed=5), epoch)
        received = first_batch(make(method, seed=5), epoch)
        assert len(expected.indices_B) == BATCH
        # What comes after the anchors of a step are companions.
        of_step, plan = anchors(PLAINLY[method]), PLAINLY[method].batch_plan
        assert torch.equal(received.indices_B[:of_step], expected.indices_B[:of_step])
        if plan not in ("groups", "two_views_joint"):
            # Augmented in the same way, too.
            assert torch.equal(received.images_BCHW, expected.images_BCHW)
            assert torch.equal(received.labels_B, expected.labels_B)

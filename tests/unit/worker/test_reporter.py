from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.describe.spec import StudySpec
from skdtune.errors import CheckpointError, LeaseLostError, StorageAwayError
from skdtune.queue import events, leases, schema, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.stored_study import StoredStudy, create_study, load_study
from skdtune.queue.trial_attributes import CURVES, PROFILE, FinalScores, describe_epochs
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import StopRequest
from skdtune.training.checkpoint import CheckpointOwner, TrialCheckpoints
from skdtune.worker.departure import Departure
from skdtune.worker.heartbeat import Heartbeat
from skdtune.worker.hooks.hook import Hook
from skdtune.worker.reporter import TrialReporter


class Spy(BasePruner):
    """Prunes at one epoch and remembers the curves it was shown."""

    def __init__(self, prune_at: int | None = None) -> None:
        self.shown: list[dict[int, float]] = []
        self._prune_at = prune_at

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.shown.append(dict(trial.intermediate_values))
        return trial.last_step == self._prune_at


class Training:
    """What a reporter needs of a trainer."""

    def __init__(self) -> None:
        self.loaded: list[Any] = []
        self.epochs = 0

    def state(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        if state == {"epochs": -1}:
            raise CheckpointError("the state does not fit")
        self.loaded.append(state)


class Listener(Hook):
    """Notes the epochs that it is told of."""

    def __init__(self, told: list[int]) -> None:
        self._told = told

    def reported(self, report: EpochReport) -> None:
        self._told.append(report.epoch)


@dataclasses.dataclass
class Desk:
    """Makes reporters for the attempts of one trial, as a worker does."""

    stored: StoredStudy
    folder: Path
    stop: StopRequest = dataclasses.field(default_factory=StopRequest)
    patience: Patience = dataclasses.field(default_factory=lambda: Patience(sleep=lambda _: None))
    told: list[int] = dataclasses.field(default_factory=list)

    def claim(self) -> Claim:
        claimed = leases.claim(
            self.stored.engine, self.stored.study_id, WorkerIdentity(device="cpu")
        )
        assert claimed is not None
        return claimed

    def claim_sampled(self) -> Claim:
        """Claim a trial that may be pruned: not the published setting, nor one of a person's."""
        while (claimed := self.claim()).number < 2:
            pass
        return claimed

    def reporter(self, claimed: Claim, training: Any = None) -> TrialReporter:
        queue = TrialQueue(self.stored, self.patience)
        history = TrialHistory(queue)
        history.begin(claimed, RandomSampler())
        heartbeat = Heartbeat(queue, claimed, lambda: None)
        owner = CheckpointOwner("tiny", self.stored.lineage, claimed.number, "hash")
        reporter = TrialReporter(
            queue=queue,
            claim=claimed,
            history=history,
            checkpoints=TrialCheckpoints(str(self.folder), owner, claimed.attempt),
            heartbeat=heartbeat,
            departure=Departure(self.stop, heartbeat, grace_s=0),
            hooks=[Listener(self.told)],
        )
        assert reporter.resume(training or Training()) is Verdict.CONTINUE
        return reporter

    def train(self, claimed: Claim, accuracy: float, until: int = 9) -> TrialReporter | Verdict:
        """Report epochs of one accuracy; the reporter where the trial went on to the last."""
        reporter = self.reporter(claimed)
        for epoch in range(len(reporter.epochs), until):
            if (verdict := reporter.epoch_finished(report(epoch, accuracy))) is Verdict.PRUNE:
                return verdict
        return reporter

    def complete(self, claimed: Claim, accuracy: float) -> None:
        """Train a trial to its end."""
        assert self.train(claimed, accuracy) is not Verdict.PRUNE
        ended = (TrialState.COMPLETE, EventKind.COMPLETE)
        trial_writes.finish(self.stored.engine, claimed, *ended, value=accuracy, epochs=9)

    def marks(self, claimed: Claim) -> dict[str, float]:
        """Return what the pruner left at its rungs."""
        system = self.stored.storage.get_trial(claimed.trial_id).system_attrs
        return {k: v for k, v in system.items() if k.startswith("completed_rung")}

    def curve(self, number: int = 0) -> dict[int, float]:
        return self.stored.storage.get_all_trials(self.stored.study_id)[number].intermediate_values

    def events(self, claimed: Claim) -> list[events.Event]:
        return events.story(self.stored.engine, claimed.study_id, claimed.trial_id)

    def story(self, claimed: Claim) -> list[str]:
        return [event.kind for event in self.events(claimed)]


ASHA = "{name: asha, min_epochs: 2, reduction_factor: 3}"


@pytest.fixture
def pruner() -> str:
    """The pruner of the study; a test may name another one."""
    return ASHA


@pytest.fixture
def desk(
    sqlite_url: str, make_spec: Callable[..., StudySpec], tmp_path: Path, pruner: str
) -> Iterator[Desk]:
    spec = make_spec(
        "budget.epochs=9",
        f"pruner={pruner}",
        "objective.window_epochs=3",
        "enqueue=[{optimizer.lr: 0.05}]",
    )
    create_study(spec, storage=sqlite_url)
    opened = load_study(spec.name, storage=sqlite_url)
    yield Desk(opened, tmp_path / "kept")
    opened.close()


def report(epoch: int, accuracy: float = 0.5) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        val_accuracy=accuracy,
        val_loss=1 / 3,
        losses={"cross_entropy": 2 / 3, "drg": 0.0},
        lr=0.1,
        seconds=1.23456789,
    )


def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the storage not answer to reports, until the returned function is called."""
    real = trial_writes.write_report

    def refuse(*arguments: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("gone"))

    monkeypatch.setattr(trial_writes, "write_report", refuse)
    return lambda: monkeypatch.setattr(trial_writes, "write_report", real)


def test_every_epoch_is_stored_and_the_pruner_is_asked_at_the_rungs_only(desk: Desk) -> None:
    spy = desk.stored.study.pruner = Spy()
    reporter = desk.reporter(desk.claim())
    for epoch in range(9):
        assert reporter.epoch_finished(report(epoch, epoch / 10)) is Verdict.CONTINUE
    assert desk.curve() == {e: e / 10 for e in range(9)}
    assert [len(curve) for curve in spy.shown] == [2, 6]
    assert desk.told == list(range(9))


def test_the_pruners_word_ends_the_trial(desk: Desk) -> None:
    desk.stored.study.pruner = Spy(prune_at=1)
    reporter = desk.reporter(desk.claim_sampled())
    verdicts = [reporter.epoch_finished(report(epoch)) for epoch in range(2)]
    assert verdicts == [Verdict.CONTINUE, Verdict.PRUNE]
    assert reporter.pruned_because == "after epoch 2 with 50.00%"


def test_a_stop_is_passed_on_after_the_epoch_was_stored(desk: Desk) -> None:
    reporter = desk.reporter(desk.claim())
    assert not reporter.interrupted(0.5)
    desk.stop.interrupt()
    assert reporter.interrupted(0.5)
    assert reporter.epoch_finished(report(0)) is Verdict.INTERRUPT
    assert desk.curve() == {0: 0.5}


def test_a_stop_at_the_last_epoch_finishes_the_trial(desk: Desk) -> None:
    reporter = desk.reporter(desk.claim())
    for epoch in range(8):
        reporter.epoch_finished(report(epoch))
    desk.stop.interrupt()
    assert reporter.epoch_finished(report(8)) is Verdict.CONTINUE


def test_an_attempt_that_lost_its_trial_writes_neither_epoch_nor_checkpoint(desk: Desk) -> None:
    claimed = desk.claim()
    reporter = desk.reporter(claimed)
    reporter.epoch_finished(report(0))
    before = sorted(desk.folder.glob("**/*.ckpt"))
    assert leases.release(desk.stored.engine, claimed)
    with pytest.raises(LeaseLostError):
        reporter.epoch_finished(report(1))
    assert desk.curve() == {0: 0.5}
    assert not reporter.heartbeat.beat()
    with pytest.raises(LeaseLostError):
        reporter.epoch_finished(report(2))
    # The first write found out; from then on no checkpoint is written either.
    assert len(sorted(desk.folder.glob("**/*.ckpt"))) <= len(before) + 1
    assert not list(desk.folder.glob("**/epoch-00003*"))


def test_the_next_attempt_goes_on_after_the_checkpoint(desk: Desk) -> None:
    first, training = desk.claim(), Training()
    reporter = desk.reporter(first, training)
    for epoch in range(4):
        training.epochs = epoch + 1
        reporter.epoch_finished(report(epoch, epoch / 10))
    leases.release(desk.stored.engine, first)
    second, resumed = desk.claim(), Training()
    again = desk.reporter(second, resumed)
    assert resumed.loaded == [{"epochs": 4}]
    assert again.epochs == [report(epoch, epoch / 10) for epoch in range(4)]
    again.epoch_finished(report(4, 0.4))
    assert desk.curve() == {epoch: epoch / 10 for epoch in range(5)}
    assert desk.story(first) == ["claimed", "preempted", "claimed", "resumed"]


def test_epochs_that_the_storage_missed_come_from_the_checkpoint(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk.claim()
    reporter = desk.reporter(first)
    back = away(monkeypatch)
    for epoch in range(2):
        reporter.epoch_finished(report(epoch, 0.1))
    assert desk.curve() == {}
    back()
    leases.release(desk.stored.engine, first)
    spy = desk.stored.study.pruner = Spy()
    desk.reporter(desk.claim())
    assert desk.curve() == {0: 0.1, 1: 0.1}
    assert spy.shown == [{0: 0.1, 1: 0.1}], "what was not stored was not judged: it is now"


def test_an_epoch_that_was_stored_is_not_judged_twice(desk: Desk) -> None:
    first = desk.claim()
    reporter = desk.reporter(first)
    for epoch in range(2):
        reporter.epoch_finished(report(epoch))
    leases.release(desk.stored.engine, first)
    spy = desk.stored.study.pruner = Spy()
    desk.reporter(desk.claim())
    assert spy.shown == []


def test_an_attempt_without_checkpoint_forgets_the_curve_and_the_rungs_beyond(desk: Desk) -> None:
    first = desk.claim()
    reporter = desk.reporter(first)
    for epoch in range(3):
        reporter.epoch_finished(report(epoch, 0.9))
    marks = desk.stored.storage.get_trial(first.trial_id).system_attrs
    assert marks["completed_rung_0"] == 0.9
    leases.release(desk.stored.engine, first)
    reporter.checkpoints.delete()
    again = desk.reporter(desk.claim())
    assert again.epochs == []
    assert desk.curve() == {}
    assert "completed_rung_0" not in desk.stored.storage.get_trial(first.trial_id).system_attrs
    for epoch in range(2):
        again.epoch_finished(report(epoch, 0.3))
    marks = desk.stored.storage.get_trial(first.trial_id).system_attrs
    assert marks["completed_rung_0"] == 0.3
    assert desk.story(first) == ["claimed", "preempted", "claimed", "restarted"]


def test_while_the_storage_is_away_epochs_wait_in_their_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = desk.stored.study.pruner = Spy()
    reporter = desk.reporter(desk.claim())
    back = away(monkeypatch)
    for epoch in range(3):
        assert reporter.epoch_finished(report(epoch, epoch / 10)) is Verdict.CONTINUE
    assert (desk.curve(), spy.shown) == ({}, [])
    back()
    assert reporter.settle() is Verdict.CONTINUE
    assert desk.curve() == {0: 0.0, 1: 0.1, 2: 0.2}
    assert spy.shown == [{0: 0.0, 1: 0.1}], "judged by the epochs up to the rung"


def test_epochs_trained_after_a_rung_that_ends_the_trial_do_not_count(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.stored.study.pruner = Spy(prune_at=1)
    reporter = desk.reporter(desk.claim_sampled())
    back = away(monkeypatch)
    for epoch in range(4):
        reporter.epoch_finished(report(epoch))
    back()
    assert reporter.settle() is Verdict.PRUNE
    assert desk.curve(2) == {0: 0.5, 1: 0.5}
    assert len(reporter.epochs) == 2


def test_a_storage_that_stays_away_at_the_end_is_an_error_and_nothing_is_forgotten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.patience = Patience(outage_s=0, sleep=lambda _: None)
    reporter = desk.reporter(desk.claim())
    back = away(monkeypatch)
    reporter.epoch_finished(report(0))
    with pytest.raises(StorageAwayError):
        reporter.settle()
    back()
    reporter.settle()
    assert desk.curve() == {0: 0.5}


def test_a_checkpoint_that_cannot_be_written_is_said_once_and_the_trial_goes_on(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.folder.write_text("no folder")
    claimed = desk.claim()
    reporter = desk.reporter(claimed)
    for epoch in range(3):
        assert reporter.epoch_finished(report(epoch)) is Verdict.CONTINUE
    assert caplog.text.count("WITHOUT new checkpoints") == 1
    desk.folder.unlink()
    reporter.epoch_finished(report(3))
    assert caplog.text.count("checkpoints are written again") == 1
    assert desk.story(claimed) == ["claimed", "noted", "noted"]
    assert len(list(desk.folder.glob("**/*.ckpt"))) == 1


def test_a_checkpoint_of_no_use_can_be_left_aside(desk: Desk) -> None:
    first, training = desk.claim(), Training()
    training.epochs = -1
    desk.reporter(first, training).epoch_finished(report(0))
    leases.release(desk.stored.engine, first)
    with pytest.raises(CheckpointError):
        desk.reporter(desk.claim())


def test_the_value_is_the_mean_of_the_last_epochs_never_the_best(desk: Desk) -> None:
    reporter = desk.reporter(desk.claim())
    for epoch, accuracy in enumerate([0.9, 0.9, 0.1, 0.2, 0.6]):
        reporter.epoch_finished(report(epoch, accuracy))
    assert reporter.value() == pytest.approx(0.3)


def test_the_record_of_the_epochs_is_left_on_the_trial(desk: Desk) -> None:
    claimed = desk.claim()
    reporter = desk.reporter(claimed)
    for epoch in range(2):
        reporter.epoch_finished(report(epoch))
    user, system = describe_epochs(reporter.epochs)
    trial_writes.finish(
        desk.stored.engine,
        claimed,
        TrialState.COMPLETE,
        EventKind.COMPLETE,
        value=0.5,
        epochs=2,
        user=user,
        system=system,
    )
    trial = desk.stored.study.trials[0]
    curves = trial.system_attrs[CURVES]
    assert curves["epoch_seconds"] == [1.2346, 1.2346]
    assert curves["val_loss"] == [0.33333, 0.33333]
    assert curves["losses"] == [{"cross_entropy": 0.66667, "drg": 0.0}] * 2
    assert trial.user_attrs["epoch_seconds"] == 1.235
    assert trial.user_attrs["val_loss"] == 0.33333
    assert trial.user_attrs["losses"] == {"cross_entropy": 0.66667, "drg": 0.0}
    with desk.stored.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.leases)) == 0


def test_a_rung_that_was_stored_but_not_judged_is_judged_on_resume(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk.claim()
    reporter = desk.reporter(first)
    monkeypatch.setattr(reporter, "_judge", lambda epoch, queue: Verdict.CONTINUE)
    for epoch in range(3):
        reporter.epoch_finished(report(epoch, epoch / 10))
    leases.release(desk.stored.engine, first)
    spy = desk.stored.study.pruner = Spy()
    desk.reporter(desk.claim())
    assert spy.shown == [{0: 0.0, 1: 0.1}], "by the curve up to the rung"


def test_a_pruning_whose_end_was_cut_off_is_decided_again(desk: Desk) -> None:
    first = desk.claim_sampled()
    desk.stored.study.pruner = Spy(prune_at=1)
    reporter = desk.reporter(first)
    reporter.epoch_finished(report(0))
    assert reporter.epoch_finished(report(1)) is Verdict.PRUNE
    leases.release(desk.stored.engine, first)
    second = desk.claim()
    assert second.number == first.number
    with pytest.raises(AssertionError):
        desk.reporter(second)  # it expects to go on, and is told to prune


def test_a_judgement_that_the_storage_cut_off_is_made_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = desk.reporter(desk.claim())
    reporter.epoch_finished(report(0, 0.1))
    real = TrialHistory._read

    def away(history: TrialHistory) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(TrialHistory, "_read", away)
    assert reporter.epoch_finished(report(1, 0.2)) is Verdict.CONTINUE, "training goes on"
    assert desk.curve() == {0: 0.1, 1: 0.2}
    monkeypatch.setattr(TrialHistory, "_read", real)
    assert reporter.settle() is Verdict.CONTINUE
    marks = desk.stored.storage.get_trial(reporter.claim.trial_id).system_attrs
    assert marks["completed_rung_0"] == 0.2
    assert marks["skdtune:judged_epochs"] == 2


# Trials that are never pruned

PRUNERS = {
    "none": "{name: none}",
    "median": "{name: median, num_startup_trials: 1, warmup_epochs: 2}",
    "asha": ASHA,
    "hyperband": "{name: hyperband, min_epochs: 2, reduction_factor: 3}",
}


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_what_others_are_compared_with_is_judged_and_never_pruned(desk: Desk, pruner: str) -> None:
    spec = desk.stored.spec
    rungs = sorted(spec.effective_pruner.judged_epochs(9))
    published, enqueued = desk.claim(), desk.claim()
    desk.stored.study.enqueue_trial({"optimizer.lr": 0.02})
    sampled = [desk.claim() for _ in range(3)]
    outside = desk.claim()
    assert outside.number == 5
    desk.complete(sampled[0], 0.9)
    spared: list[events.Event] = []
    for claimed, why in (
        (published, "the published setting"),
        (enqueued, "it was queued by hand"),
        (outside, "it was queued by hand"),
    ):
        reporter = desk.train(claimed, 0.1)
        assert not isinstance(reporter, Verdict), why
        assert (desk.curve(claimed.number), reporter.pruned_because) == (
            dict.fromkeys(range(9), 0.1),
            "",
        )
        told = [event for event in desk.events(claimed) if event.kind == "spared"]
        spared += told
        for event in told:
            assert not event.final
            assert event.epochs in rungs
            place = f"would have been pruned after epoch {event.epochs} with 10.00%: place "
            assert event.detail.startswith(place)
            assert event.detail.endswith(f"; is never pruned: {why}")
    # Each once; a trial that Hyperband deals into a bracket of its own is the best one there.
    num_spared = {"none": (0,), "hyperband": (1, 2, 3)}.get(spec.pruner.name, (3,))
    assert len(spared) in num_spared
    if spec.pruner.name == "asha":
        assert desk.train(sampled[1], 0.05) is Verdict.PRUNE, "as all others are"
        assert desk.marks(published) == {"completed_rung_0": 0.1, "completed_rung_1": 0.1}
        # Two of six pass the first rung, and one of five the second: the spared ones count.
        assert desk.train(sampled[2], 0.2) is Verdict.PRUNE
        assert desk.marks(sampled[2]) == {"completed_rung_0": 0.2, "completed_rung_1": 0.2}


def test_a_spared_trial_is_spared_on_resume_and_after_an_outage_and_it_is_told_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = desk.claim()
    desk.complete(desk.claim_sampled(), 0.9)
    reporter = desk.reporter(published)
    monkeypatch.setattr(reporter, "_judge", lambda epoch, queue: Verdict.CONTINUE)
    for epoch in range(3):
        reporter.epoch_finished(report(epoch, 0.1))
    leases.release(desk.stored.engine, published)
    resumed = desk.claim()
    assert resumed.number == 0
    # The rung at which it was cut off is judged now.
    again = desk.reporter(resumed)
    assert desk.marks(resumed) == {"completed_rung_0": 0.1}
    back = away(monkeypatch)
    for epoch in range(3, 8):
        assert again.epoch_finished(report(epoch, 0.1)) is Verdict.CONTINUE
    back()
    assert again.settle() is Verdict.CONTINUE
    assert len(again.epochs) == 8, "what was trained during the outage counts"
    assert desk.marks(resumed) == {"completed_rung_0": 0.1, "completed_rung_1": 0.1}
    assert desk.story(resumed).count("spared") == 1


# Scores, cost, and final evaluations

LAST = {"top5": 0.987654321, "ece": 0.0123456789, "nll": 1 / 3}


def test_scores_and_profiles_go_through_a_checkpoint(desk: Desk) -> None:
    first = desk.claim()
    reporter = desk.reporter(first)
    told = dataclasses.replace(report(0), images=7, profile=[0.6, 0.4], scores=LAST)
    reporter.epoch_finished(told)
    leases.release(desk.stored.engine, first)
    assert desk.reporter(desk.claim()).epochs == [told]


def test_without_validation_the_training_loss_is_stored_and_the_test_is_the_value(
    desk: Desk,
) -> None:
    reporter = desk.reporter(desk.claim())
    for epoch in range(2):
        unjudged = dataclasses.replace(report(epoch), val_accuracy=None, val_loss=None)
        reporter.epoch_finished(unjudged)
    assert desk.curve() == {0: 2 / 3, 1: 2 / 3}
    scores = FinalScores(accuracy=0.123456789, top5=0.5, ece=0.1, nll=2.5, profile=[0.7, 0.3])
    tested = dataclasses.replace(scores, num_images=450, fingerprint="abc")
    reporter.test_finished(tested)
    assert reporter.value() == 0.123456789
    user, system = reporter.attributes()
    assert user["test_accuracy"] == 0.123456789
    assert (user["test_top5"], user["test_ece"], user["test_nll"]) == (0.5, 0.1, 2.5)
    assert (user["num_test_images"], user["data_fingerprint"]) == (450, "abc")
    assert system[PROFILE] == {"last": [0.7, 0.3]}
    assert "val_loss" not in user
    assert system[CURVES]["val_loss"] == []

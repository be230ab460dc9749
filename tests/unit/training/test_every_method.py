"""What every method keeps to in a whole training: it goes on exactly, and starts as all do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from skdtune.data.batches import Batch
from skdtune.describe.config import MethodConfig, ModelConfig
from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict
from skdtune.models.backbone import build_backbone
from skdtune.models.network_file import NetworkInfo, write_network
from skdtune.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
MakeRecorder = Callable[..., Any]
MakeMethod = Callable[..., Trainer]

METHODS: dict[str, dict[str, Any]] = {
    "ce": {},
    "ls": {"label": {"name": "label_smoothing"}},
    "drg": {"drg": {}},
    "dsr": {"dsr": {}},
    "drg-dsr": {"drg": {}, "dsr": {}},
    "byot": {"byot": {}},
    "cs-kd": {"cs_kd": {}},
    "ps-kd": {"label": {"name": "ps_kd"}},
    "dlb": {"dlb": {}},
    "tfkd-self": {"tf_kd_self": {"weight": 0.5}},
    "tfkd-reg": {"tf_kd_reg": {}},
    "bake": {"bake": {}},
    "ddgsd": {"ddgsd": {}},
    "frskd": {"frskd": {"width": 1, "depth": 1}},
    "zipf": {"zipf": {}},
    "ps-kd-drg-dsr-zipf": {"label": {"name": "ps_kd"}, "drg": {}, "dsr": {}, "zipf": {}},
    "dlb-byot": {"dlb": {}, "byot": {}},
}

#: 180 images to train on, of which a plain epoch has 5 steps of 32.
PLAIN = 160
IMAGES = dict.fromkeys(METHODS, PLAIN) | {
    "cs-kd": 2 * PLAIN,
    "dlb": 2 * PLAIN,
    "dlb-byot": 2 * PLAIN,
    "ddgsd": 2 * PLAIN,
    # 8 anchors a step, with three companions each.
    "bake": 22 * 32,
}

#: What a training would lose if it began a later epoch without its memory.
REMEMBERING = {"ps-kd", "dlb", "ps-kd-drg-dsr-zipf", "dlb-byot"}

every_method = pytest.mark.parametrize("method", METHODS)


def test_every_term_is_tried() -> None:
    tried = {name for settings in METHODS.values() for name in settings}
    assert tried == set(MethodConfig.model_fields)


def write_teacher(folder: Path, model: ModelConfig) -> dict[str, str]:
    """Write a network for TF-KD's student, once, and return what names it."""
    path = folder / "teacher.safetensors"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(7)
            network = build_backbone(
                model.name, width=model.width, in_channels=1, image_size=(8, 8), num_classes=10
            )
        info = NetworkInfo(
            model=model.name,
            width=model.width or 0,
            in_channels=1,
            height=8,
            image_width=8,
            class_names=tuple("0123456789"),
            mean=(0.3,),
            std=(0.3,),
            data_fingerprint="x",
            trained_on="train",
            config={},
            study="baseline",
            trial=0,
            accuracy=0.5,
            precision="float32",
            environment={},
        )
        path.write_bytes(write_network(info, network.state_dict()))
    return {
        "teacher": str(path),
        "teacher_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@pytest.fixture
def make(make_trainer: MakeTrainer, make_config: Any, tmp_path: Path) -> MakeMethod:
    """Make a trainer of a method by its name here."""

    def make(method: str, **changes: Any) -> Trainer:
        settings = METHODS[method]
        if "tf_kd_self" in settings:
            named = write_teacher(tmp_path, make_config().model)
            settings = {"tf_kd_self": {**settings["tf_kd_self"], **named}}
        return make_trainer(method=settings, **changes)

    return make


def equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Compare the states of two modules bit by bit."""
    return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return equal(left, right)
    return bool(left == right)


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
            assert equal(mine, other), epochs


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
    running = ("running_mean", "running_var", "num_batches_tracked")
    kept = {
        name: value
        for name, value in state["terms"].items()
        if name in parameters or name.endswith(running)
    }
    forgetful.load_state({**state, "terms": {**fresh, **kept}})
    forgetful.run(recorder, first_epoch=1)
    differs = curve(recorder.reports) != curve(undisturbed.reports[1:])
    assert differs == (method in REMEMBERING)


@pytest.mark.parametrize("method", ["ps-kd", "dlb", "drg-dsr"])
def test_a_training_that_is_pruned_was_planned_for_all_its_epochs(
    make: MakeMethod, make_recorder: MakeRecorder, method: str
) -> None:
    whole, pruned = make_recorder(), make_recorder(prune_after=3)
    make(method, budget__epochs=6).run(whole)
    assert make(method, budget__epochs=6).run(pruned) is Verdict.PRUNE
    assert curve(pruned.reports) == curve(whole.reports[:3])


# Starting


@every_method
def test_a_report_says_how_many_images_the_epoch_had(
    make: MakeMethod, make_recorder: MakeRecorder, method: str
) -> None:
    trainer, recorder = make(method, budget__epochs=2), make_recorder()
    seen: list[int] = []
    trainer.network.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0])) if module.training else None
    )
    trainer.run(recorder)
    assert [report.images for report in recorder.reports] == [IMAGES[method]] * 2
    assert trainer.images_per_epoch == IMAGES[method]
    # Those are what the network is shown; in its first step, DLB has nothing to show again.
    missing = 32 if "dlb" in method else 0
    assert sum(seen) == 2 * IMAGES[method] - missing


@every_method
def test_a_method_starts_from_the_network_of_the_baseline(make: MakeMethod, method: str) -> None:
    baseline, other = make("ce", seed=5), make(method, seed=5)
    assert equal(other.network.state_dict(), baseline.network.state_dict())
    assert not equal(make(method, seed=6).network.state_dict(), baseline.network.state_dict())


def first_batch(trainer: Trainer, epoch: int = 0) -> Batch:
    return next(trainer._batches.epoch(epoch))


@every_method
def test_a_method_sees_the_images_of_the_baseline_in_their_order(
    make: MakeMethod, method: str
) -> None:
    for epoch in (0, 1):
        expected = first_batch(make("ce", seed=5), epoch)
        found = first_batch(make(method, seed=5), epoch)
        assert len(expected.indices_B) == 32
        # A step of BAKE has fewer anchors; what comes after them are companions.
        anchors = 8 if method == "bake" else 32
        assert torch.equal(found.indices_B[:anchors], expected.indices_B[:anchors])
        if method not in ("bake", "ddgsd"):
            # Augmented in the same way, too.
            assert torch.equal(found.images_BCHW, expected.images_BCHW)
            assert torch.equal(found.labels_B, expected.labels_B)

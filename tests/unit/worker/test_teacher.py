"""A frozen teacher must not know what its student is judged on, and must be the one that was
named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from skdtune.data.store import DataStore
from skdtune.describe.config import ModelConfig
from skdtune.describe.kinds.final_evaluation import EvaluationConfig
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.errors import DataError
from skdtune.methods.base import BuildContext
from skdtune.methods.tf_kd_self.settings import TfKdSelfConfig
from skdtune.methods.tf_kd_self.term import TfKdSelf
from skdtune.models.backbone import build_backbone
from skdtune.models.description import StageShape
from skdtune.models.network_file import NetworkInfo, write_network
from skdtune.worker.preparation import prepare_study
from skdtune.worker.teacher import require_honest_teacher

FINGERPRINT = "0123456789ab"
STUDENT = ModelConfig(name="resnet8", width=8)

WriteTeacher = Callable[..., Path]


@pytest.fixture
def write_teacher(tmp_path: Path) -> WriteTeacher:
    """Write a network as `skdtune export` does."""

    def write(model: ModelConfig = STUDENT, num_classes: int = 10, **changes: Any) -> Path:
        torch.manual_seed(0)
        network = build_backbone(
            model.name,
            width=model.width,
            in_channels=1,
            image_size=(8, 8),
            num_classes=num_classes,
        )
        described: dict[str, Any] = {
            "model": model.name,
            "width": model.width,
            "in_channels": 1,
            "height": 8,
            "image_width": 8,
            "class_names": tuple(map(str, range(num_classes))),
            "mean": (0.3,),
            "std": (0.3,),
            "data_fingerprint": FINGERPRINT,
            "trained_on": "train",
            "config": {},
            "study": "digits-baseline",
            "trial": 4,
            "accuracy": 0.9,
            "precision": "float32",
            "environment": {},
        }
        path = tmp_path / "model.safetensors"
        info = NetworkInfo.model_validate({**described, **changes})
        path.write_bytes(write_network(info, network.state_dict()))
        return path

    return write


def taught_by(path: Path, *overrides: str) -> StudySpec:
    return load_spec(
        "digits-tfkd-self", overrides=[f"method.tf_kd_self.teacher={path}", *overrides]
    )


def evaluation_of(spec: StudySpec) -> StudySpec:
    content = spec.model_dump()
    content |= {
        "name": f"{spec.name}.test",
        "search": {},
        "pruner": {"name": "none"},
        "evaluation": EvaluationConfig(
            source=spec.name, lineage="", digest=spec.digest, trials=(0,), params=({},)
        ).model_dump(),
    }
    return StudySpec.model_validate(content)


def refusal(spec: StudySpec, fingerprint: str = FINGERPRINT) -> str:
    with pytest.raises(DataError) as raised:
        require_honest_teacher(spec, fingerprint)
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_study_without_a_teacher_passes() -> None:
    require_honest_teacher(load_spec("digits-drg"), FINGERPRINT)


def test_a_teacher_of_the_same_training_images_passes(write_teacher: WriteTeacher) -> None:
    require_honest_teacher(taught_by(write_teacher()), FINGERPRINT)


def test_a_teacher_that_learned_from_validation_images_is_refused(
    write_teacher: WriteTeacher,
) -> None:
    path = write_teacher(trained_on="train+val")
    assert refusal(taught_by(path)) == (
        f"the teacher {path} (trial 4 of digits-baseline) learned from training and validation "
        "images together: its student's validation accuracy would say nothing; export one from a "
        "search of a baseline on the same data and split"
    )


def test_a_teacher_of_another_split_is_refused(write_teacher: WriteTeacher) -> None:
    path = write_teacher()
    message = refusal(taught_by(path), "ba9876543210")
    assert message.startswith(f"the teacher {path} (trial 4 of digits-baseline) learned from ")
    assert "from another split, or from other data: its student's validation accuracy" in message


@pytest.mark.parametrize("trained_on", ["train", "train+val"])
@pytest.mark.parametrize("fingerprint", [FINGERPRINT, "ba9876543210"])
def test_a_final_evaluation_takes_any(
    write_teacher: WriteTeacher, trained_on: str, fingerprint: str
) -> None:
    spec = evaluation_of(taught_by(write_teacher(trained_on=trained_on)))
    require_honest_teacher(spec, fingerprint)


@pytest.mark.parametrize("is_evaluation", [False, True])
@pytest.mark.parametrize("damage", ["other", "cut off", "missing", "a folder"])
def test_another_file_than_the_one_that_was_named_is_refused(
    write_teacher: WriteTeacher, damage: str, is_evaluation: bool
) -> None:
    path = write_teacher()
    spec = taught_by(path)
    spec = evaluation_of(spec) if is_evaluation else spec
    if damage == "other":
        write_teacher(accuracy=0.8)
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    message = refusal(spec)
    assert str(path) in message
    settings = spec.method.tf_kd_self
    assert settings is not None
    if damage in ("other", "cut off"):
        assert f"not {settings.teacher_sha256}: it is another file" in message
    else:
        assert "cannot be read: " in message


@pytest.mark.parametrize("content", [b"", b"no network", b"\xff" * 100])
def test_a_file_that_holds_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert refusal(taught_by(path)).startswith(f"{path}: it is no ")


# As workers ask, who know the data


def test_a_worker_asks_before_it_takes_a_trial(
    write_teacher: WriteTeacher, tmp_path: Path
) -> None:
    store = DataStore(tmp_path / "data", tmp_path / "cache", torch.device("cpu"))
    own = store.get(load_spec("digits-drg").data).fingerprint
    with pytest.raises(DataError, match="from another split, or from other data"):
        prepare_study(store, taught_by(write_teacher()))
    good = taught_by(write_teacher(data_fingerprint=own))
    prepare_study(store, good)
    with pytest.raises(DataError, match="from another split, or from other data"):
        prepare_study(store, taught_by(write_teacher(data_fingerprint=own), "data.split_seed=1"))


# As the term reads it

CONTEXT = BuildContext((StageShape(8, 8, 8),), 10, 0, STUDENT)


def build(path: Path, context: BuildContext = CONTEXT, **settings: Any) -> TfKdSelf:
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    given = {"teacher": str(path), "teacher_sha256": checksum, **settings}
    return TfKdSelf(TfKdSelfConfig.model_validate(given), context)


@pytest.mark.parametrize(
    ("model", "num_classes"),
    [
        (ModelConfig(name="resnet20", width=8), 10),
        (ModelConfig(name="resnet18", width=8), 10),
        (ModelConfig(name="resnet8", width=16), 10),
        (STUDENT, 5),
    ],
)
def test_a_teacher_of_another_kind_is_refused(
    write_teacher: WriteTeacher, model: ModelConfig, num_classes: int
) -> None:
    path = write_teacher(model, num_classes)
    with pytest.raises(DataError) as raised:
        build(path)
    assert str(raised.value) == (
        f"the teacher {path} is a {model.name} of width {model.width} for {num_classes} classes, "
        "the network to train a resnet8 of width 8 for 10; export a baseline of the same kind"
    )


def test_a_teacher_is_no_part_of_what_is_trained_or_kept(write_teacher: WriteTeacher) -> None:
    term = build(write_teacher())
    assert list(term.parameters()) == []
    assert list(term.buffers()) == []
    assert term.state_dict() == {"_extra_state": term.settings.teacher_sha256}


def test_the_state_of_a_training_with_another_teacher_is_refused(
    write_teacher: WriteTeacher,
) -> None:
    first = build(write_teacher())
    path = write_teacher(accuracy=0.8)
    second = build(path)
    second.load_state_dict(build(path).state_dict())
    with pytest.raises(ValueError, match="belongs to a training with another teacher"):
        second.load_state_dict(first.state_dict())


def test_a_weight_of_zero_reads_no_teacher(write_teacher: WriteTeacher) -> None:
    path = write_teacher()
    checksum = hashlib.sha256(b"").hexdigest()
    with pytest.raises(DataError, match="it is another file"):
        build(path, teacher_sha256=checksum)
    build(path, teacher_sha256=checksum, weight=0.0)

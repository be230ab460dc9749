"""The term of TF-KD with a teacher: its weight times the formula of its source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from network_cases import network_info
from term_steps import CONTEXT, MODEL, NUM_CLASSES, close, make_network, make_step
from torch import nn

from skdtune.methods.tf_kd_self.formulas import tf_kd_self_loss
from skdtune.methods.tf_kd_self.settings import TfKdSelfConfig
from skdtune.methods.tf_kd_self.term import TfKdSelf
from skdtune.models.backbone import ImageClassifier
from skdtune.models.network_file import write_network


@pytest.fixture
def teacher(tmp_path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Write a frozen network, and return it with what names it."""
    torch.manual_seed(8)
    network = ImageClassifier(make_network())
    network.train()(torch.randn(16, 1, 8, 8))
    info = network_info(
        model=MODEL.name, width=4, height=8, image_width=8, class_names=tuple("abcde")
    )
    content = write_network(info, network.state_dict())
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    return network.eval(), {"teacher": str(path), "teacher_sha256": checksum}


@pytest.mark.parametrize(("multiplier", "factor"), [(None, NUM_CLASSES / 2), (7.0, 7.0)])
def test_tf_kd_self_learns_from_the_frozen_network(
    teacher: tuple[nn.Module, dict[str, str]], multiplier: float | None, factor: float
) -> None:
    network, named = teacher
    settings = TfKdSelfConfig(**named, weight=0.9, temperature=3.0, multiplier=multiplier)
    term, step = TfKdSelf(settings, CONTEXT), make_step()
    assert term.label_weight == pytest.approx(0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        teacher_BK = network(step.batch.images_BCHW)
    for _ in range(2):
        # In evaluation mode: what it saw before changes nothing.
        losses = term.train()(step)
        assert list(losses) == ["tf_kd_self"]
        expected = 0.9 * factor * tf_kd_self_loss(step.logits_BK, teacher_BK, 3.0)
        assert close(losses["tf_kd_self"], expected)
    losses["tf_kd_self"].backward()
    assert step.logits_BK.grad is not None
    (kept,) = term._teacher
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())

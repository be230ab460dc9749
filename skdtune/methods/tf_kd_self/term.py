"""Teacher-free distillation, self-training (TF-KD self): a trained baseline teaches.

Source: *Revisiting Knowledge Distillation via Label Smoothing Regularization* (arXiv 1909.11723),
https://arxiv.org/abs/1909.11723; public code
github.com/yuanli2333/Teacher-free-Knowledge-Distillation.

    L = (1 - weight) CE(z, y) + weight * multiplier * T^2 KLmean_T(t -> z)
    published for ResNet-18 and 100 classes: weight 0.95, T = 6, multiplier 50

t are the logits of a frozen network of the same kind that was trained with cross-entropy, in
evaluation mode, without gradient. KLmean divides by B and by K; half the classes as multiplier is
what was published for 100 of them.

What differs from the published code: the teacher is an input with a checksum, and one of another
architecture is refused.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skdtune.errors import DataError
from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.tf_kd_self.formulas import tf_kd_self_loss
from skdtune.methods.tf_kd_self.settings import TfKdSelfConfig
from skdtune.models.network_file import read_network_file


class TfKdSelf(Term):
    """The divergence from a frozen teacher, which is no part of what is trained.

    State: the checksum of the teacher, to refuse another one.
    """

    def __init__(self, settings: TfKdSelfConfig, context: BuildContext) -> None:
        """Read the teacher from its file.

        Raises:
            DataError: if the file is missing, is another one than the checksum says, or holds a
                network of another kind.
        """
        super().__init__()
        self.settings = settings
        self.multiplier = settings.multiplier or context.num_classes / 2
        # A tuple hides the teacher from nn.Module: it is not trained, saved or exported.
        self._teacher: tuple[nn.Module, ...] = ()
        if settings.weight:
            self._teacher = (_read_teacher(settings, context),)

    @property
    def label_weight(self) -> float:
        """The share of the labels, ``1 - weight``."""
        return 1 - self.settings.weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``tf_kd_self``; a weight of 0 skips everything.

        See :func:`~skdtune.methods.tf_kd_self.formulas.tf_kd_self_loss`.
        """
        settings = self.settings
        if settings.weight == 0:
            return {"tf_kd_self": no_loss(step.logits_BK)}
        (teacher,) = self._teacher
        if next(teacher.parameters()).device != step.logits_BK.device:
            teacher.to(step.logits_BK.device)
        with torch.no_grad():
            teacher_BK = teacher(step.batch.images_BCHW)
        with outside_autocast(step.logits_BK):
            loss = tf_kd_self_loss(step.logits_BK, teacher_BK, settings.temperature)
        return {"tf_kd_self": settings.weight * self.multiplier * loss}

    def get_extra_state(self) -> str:
        """Hand the identity of the teacher to the state dict."""
        return self.settings.teacher_sha256

    def set_extra_state(self, state: str) -> None:
        """Refuse the state of a training with another teacher."""
        if state != self.settings.teacher_sha256:
            raise ValueError("the state belongs to a training with another teacher")


def _read_teacher(settings: TfKdSelfConfig, context: BuildContext) -> nn.Module:
    network_file = read_network_file(settings.teacher, settings.teacher_sha256)
    wanted, info = context.model, network_file.info
    if wanted is not None:
        width = wanted.channels
        kind = (info.model, info.width, info.num_classes)
        if kind != (wanted.name, width, context.num_classes):
            raise DataError(
                f"the teacher {settings.teacher} is a {info.model} of width {info.width} for "
                f"{info.num_classes} classes, the network to train a {wanted.name} of width "
                f"{width} for {context.num_classes}; export a baseline of the same kind"
            )
    teacher = network_file.build().requires_grad_(False).eval()
    return teacher.to(memory_format=torch.channels_last)

"""A method in training, with the least that a trainer has to do: no method is known by name."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from method_cases import CASES, with_teachers
from network_cases import NETWORKS, NUM_CLASSES, SMALLEST, without_draws
from torch import Tensor, nn

from skdtune.data.batches import Batch
from skdtune.describe.config import DataConfig, MethodConfig
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.catalogue import build_terms, required_stages
from skdtune.models.backbone import Backbone

BATCH = 8
NUM_TRAIN = 64
PLANNED_EPOCHS = 4
DATA = DataConfig(name="digits", batch_size=BATCH)

#: Starts the training of a method, or of a case by its name, on a network by its name.
Start = Callable[..., "Training"]


@dataclass
class Training:
    """Network, terms and optimiser, with batches as the method's plan would make them."""

    network: Backbone
    terms: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    image_shape: tuple[int, int, int]
    method: MethodConfig

    def each_term(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    def start_epoch(self, epoch: int) -> None:
        for term in self.each_term():
            term.start_epoch(epoch)

    def batch(self, index: int) -> Batch:
        """Make a batch as the method's plan would, from a seed."""
        generator = torch.Generator().manual_seed(100 + index)

        def images() -> Tensor:
            return torch.randn(BATCH, *self.image_shape, generator=generator)

        labels_B = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
        indices_B = torch.randperm(NUM_TRAIN, generator=generator)[:BATCH]
        plan = self.method.batch_plan
        if plan == "groups":
            # Anchors with their companions, all of the anchor's class.
            size = 1 + self.method.companions
            labels_B = labels_B[: BATCH // size].repeat(size)
        if plan == "two_views_joint":
            labels_B, indices_B = labels_B[:4].repeat(2), indices_B[:4].repeat(2)
        main_BCHW = images()
        second_BCHW = images() if plan in ("class_pairs", "two_views") else None
        return Batch(main_BCHW, labels_B, indices_B, second_BCHW)

    def losses(self, index: int, *, bfloat16: bool = False, epoch: int = 0) -> dict[str, Tensor]:
        batch = self.batch(index)
        losses: dict[str, Tensor] = {}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            label_weight = math.prod(term.label_weight_of(batch) for term in self.each_term())
            outputs = self.network(batch.images_BCHW, required_stages(self.terms))
            step = Step(
                batch=batch,
                logits_BK=outputs.logits_BK,
                stage_features=outputs.stage_features,
                pooled_BC=outputs.pooled_BC,
                network=self.network,
                epoch=epoch,
                planned_epochs=PLANNED_EPOCHS,
                label_weight=label_weight,
            )
            for term in self.each_term():
                made = term(step)
                assert not made.keys() & losses.keys()
                losses |= made
        return losses

    def label_loss(self, index: int) -> float:
        batch = self.batch(index)
        with torch.no_grad():
            logits_BK = self.network(batch.images_BCHW).logits_BK
        return F.cross_entropy(logits_BK, batch.labels_B).item()

    def backward(self, index: int, *, bfloat16: bool = False) -> dict[str, Tensor]:
        self.optimizer.zero_grad()
        losses = self.losses(index, bfloat16=bfloat16)
        sum(losses.values(), torch.zeros(())).backward()
        return losses

    def steps(self, indices: range, *, bfloat16: bool = False) -> list[float]:
        totals = []
        for index in indices:
            losses = self.backward(index, bfloat16=bfloat16)
            self.optimizer.step()
            totals.append(sum(losses.values(), torch.zeros(())).item())
        return totals

    def state(self) -> bytes:
        parts = (self.network, self.terms, self.optimizer)
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in parts], buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        loaded = torch.load(io.BytesIO(state), weights_only=True)
        for part, values in zip((self.network, self.terms, self.optimizer), loaded, strict=True):
            part.load_state_dict(values)


def method_of(method: MethodConfig | str) -> MethodConfig:
    """Return a method, or that of a case by its name."""
    return CASES[method] if isinstance(method, str) else method


def require_fit(method: MethodConfig | str, network: str) -> None:
    """Raise the ValueError by which a method refuses a network before anything is trained."""
    for name, term in method_of(method).terms().items():
        term.require_fit(name, DATA, NETWORKS[network].model)


def networks_for(method: MethodConfig | str) -> list[str]:
    """Return those of the smallest networks that a method does not refuse."""
    taken = []
    for network in SMALLEST:
        with contextlib.suppress(ValueError):
            require_fit(method, network)
            taken.append(network)
    return taken


def start_in(folder: Path) -> Start:
    """Return what starts trainings, and writes their teachers into a folder.

    A network that the method refuses is an error.
    """

    def start(method: MethodConfig | str, network: str, *, seed: int = 0) -> Training:
        case, chosen = NETWORKS[network], method_of(method)
        require_fit(chosen, network)
        if chosen.teachers:
            chosen = with_teachers(chosen, case.write_teacher(folder))
        torch.manual_seed(seed)
        built = without_draws(case.build())
        context = BuildContext(case.stage_shapes(built), NUM_CLASSES, NUM_TRAIN, case.model)
        terms = build_terms(chosen, context)
        parameters = [*built.parameters(), *terms.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        training = Training(built, terms, optimizer, case.image_shape, chosen)
        training.start_epoch(0)
        return training

    return start


def outputs_after(training: Training, loss: str) -> list[Tensor]:
    """Return the logits ``[B, K]`` of all forwards of a step, with their gradients by one loss."""
    seen: list[Tensor] = []

    def record(_classifier: nn.Module, _inputs: object, logits_BK: Tensor) -> None:
        if logits_BK.requires_grad:
            logits_BK.retain_grad()
        seen.append(logits_BK)

    with training.network.classifier.register_forward_hook(record):
        training.losses(1)[loss].backward()
    return seen


def require_untaught(training: Training, loss: str, teacher: nn.Module) -> None:
    """Require that a loss reaches something, and nothing of a module that teaches by it."""
    training.losses(0)[loss].backward()
    own = list(teacher.parameters())
    assert own
    assert all(parameter.grad is None for parameter in own)
    everything = (*training.network.parameters(), *training.terms.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in everything)


def require_detached_teacher(logits_BK: Tensor) -> None:
    """Require that softened outputs learn, and that those they learn from do not.

    A gradient of T (p - q) / B has no sum over the classes; one from a teacher would have.
    """
    assert logits_BK.grad is not None
    assert logits_BK.grad.any()
    expected = torch.zeros(len(logits_BK))
    torch.testing.assert_close(logits_BK.grad.sum(dim=1), expected, atol=1e-5, rtol=0)


def is_statistic(name: str) -> bool:
    """Tell what batch normalization gathers, which no training loss depends on."""
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def same(left: Any, right: Any) -> bool:
    """Compare states bit by bit, however they are nested."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)

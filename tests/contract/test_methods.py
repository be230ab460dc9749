"""What every method promises, on every family of backbones."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skdtune.catalogues.models import MODELS, networks
from skdtune.data.batches import Batch
from skdtune.describe.config import MethodConfig, ModelConfig
from skdtune.methods.bake.settings import BakeConfig
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.byot.settings import ByotConfig
from skdtune.methods.catalogue import METHODS as REGISTERED
from skdtune.methods.catalogue import build_terms, required_stages
from skdtune.methods.cs_kd.settings import CsKdConfig
from skdtune.methods.ddgsd.settings import DdgsdConfig
from skdtune.methods.dlb.settings import DlbConfig
from skdtune.methods.drg.settings import DrgConfig
from skdtune.methods.dsr.settings import DsrConfig
from skdtune.methods.frskd.settings import FrskdConfig
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig
from skdtune.methods.ps_kd.settings import PsKdConfig
from skdtune.methods.tf_kd_reg.settings import TfKdRegConfig
from skdtune.methods.tf_kd_self.settings import TfKdSelfConfig
from skdtune.methods.zipf.settings import ZipfConfig
from skdtune.models.backbone import Backbone, Outputs, build_backbone
from skdtune.models.description import describe_network
from skdtune.models.network_file import NetworkInfo, write_network

NUM_CLASSES = 10
BATCH = 8
NUM_TRAIN = 64
PLANNED_EPOCHS = 4

#: Stands for the frozen network of TF-KD self, which a test writes for its backbone.
TEACHER = TfKdSelfConfig(teacher="written by the test", teacher_sha256="0" * 64)

METHODS = {
    "cross_entropy": MethodConfig(),
    "label_smoothing": MethodConfig(label=LabelSmoothingConfig()),
    "drg": MethodConfig(drg=DrgConfig()),
    "drg_two_stages": MethodConfig(drg=DrgConfig(stages=(1, 2), align_corners="published")),
    "drg_mean_logits": MethodConfig(drg=DrgConfig(stages=(1, 2), teacher="mean_logits")),
    "dsr": MethodConfig(dsr=DsrConfig()),
    "dsr_batch_mean": MethodConfig(dsr=DsrConfig(pairing="batch_mean")),
    "drg_dsr": MethodConfig(drg=DrgConfig(), dsr=DsrConfig()),
    "smooth_drg_dsr": MethodConfig(
        label=LabelSmoothingConfig(), drg=DrgConfig(stages=(1,)), dsr=DsrConfig()
    ),
    "byot": MethodConfig(byot=ByotConfig()),
    "byot_one_stage": MethodConfig(byot=ByotConfig(stages=(1,), match_features=False)),
    "cs_kd": MethodConfig(cs_kd=CsKdConfig()),
    "ps_kd": MethodConfig(label=PsKdConfig()),
    "dlb": MethodConfig(dlb=DlbConfig()),
    "tf_kd_self": MethodConfig(tf_kd_self=TEACHER),
    "tf_kd_reg": MethodConfig(tf_kd_reg=TfKdRegConfig()),
    "bake": MethodConfig(bake=BakeConfig()),
    "ddgsd": MethodConfig(ddgsd=DdgsdConfig()),
    "ddgsd_linear": MethodConfig(ddgsd=DdgsdConfig(discrepancy="linear")),
    "frskd": MethodConfig(frskd=FrskdConfig()),
    "frskd_small": MethodConfig(frskd=FrskdConfig(width=1, depth=1, match_attention=False)),
    "zipf": MethodConfig(zipf=ZipfConfig()),
    "zipf_sparse": MethodConfig(zipf=ZipfConfig(dense=False)),
    "ps_kd_drg_dsr_zipf": MethodConfig(
        label=PsKdConfig(), drg=DrgConfig(), dsr=DsrConfig(), zipf=ZipfConfig()
    ),
    "cs_kd_byot": MethodConfig(cs_kd=CsKdConfig(), byot=ByotConfig()),
    "dlb_frskd": MethodConfig(dlb=DlbConfig(), frskd=FrskdConfig(width=1, depth=1)),
}

#: Every term switched off by its weights, alone.
SWITCHED_OFF = {
    "ps_kd": MethodConfig(label=PsKdConfig(weight=0.0)),
    "drg": MethodConfig(drg=DrgConfig(weight=0.0, aux_ce_weight=0.0, stages=(1, 2))),
    "dsr": MethodConfig(dsr=DsrConfig(weight=0.0)),
    "byot": MethodConfig(byot=ByotConfig(weight=0.0, aux_ce_weight=0.0, feature_weight=0.0)),
    "cs_kd": MethodConfig(cs_kd=CsKdConfig(weight=0.0)),
    "dlb": MethodConfig(dlb=DlbConfig(weight=0.0)),
    "tf_kd_self": MethodConfig(tf_kd_self=TEACHER.model_copy(update={"weight": 0.0})),
    "tf_kd_reg": MethodConfig(tf_kd_reg=TfKdRegConfig(weight=0.0)),
    "bake": MethodConfig(bake=BakeConfig(weight=0.0)),
    "ddgsd": MethodConfig(ddgsd=DdgsdConfig(weight=0.0)),
    "frskd": MethodConfig(frskd=FrskdConfig(weight=0.0, aux_ce_weight=0.0, attention_weight=0.0)),
    "zipf": MethodConfig(zipf=ZipfConfig(weight=0.0)),
}

#: The networks on which everything is tried, the smallest of each family; the deeper ones repeat
#: their blocks.
FAMILIES = tuple(name for family in MODELS for name in list(MODELS[family].networks)[:3])

#: Shapes of images on which networks are tried; others get images of 16 x 16.
IMAGE_SHAPES = {"resnet8": (1, 8, 8), "resnet18": (3, 32, 32), "resnet34": (3, 17, 17)}


def small(name: str) -> tuple[ModelConfig, tuple[int, int, int]]:
    """Choose the least width that is worth trying, and a shape of images, for a network."""
    chosen = None if networks()[name].width is None else 8 if name in FAMILIES else 4
    return ModelConfig(name=name, width=chosen), IMAGE_SHAPES.get(name, (3, 16, 16))


def build(config: ModelConfig, image_shape: tuple[int, int, int]) -> Backbone:
    channels, height, width = image_shape
    return build_backbone(
        config.name,
        width=config.width,
        in_channels=channels,
        image_size=(height, width),
        num_classes=NUM_CLASSES,
    )


#: Methods for which the last epoch matters to the next one.
REMEMBER_ACROSS_EPOCHS = {"ps_kd", "ps_kd_drg_dsr_zipf", "dlb", "dlb_frskd"}

BACKBONES = {name: small(name) for name in networks()}

every_method = pytest.mark.parametrize("method", METHODS)
#: Each promise is tried with every method and on every family; each method meets each family
#: in one of the promises at least. All three together are the full product.
every_method_and_family = pytest.mark.product(method=METHODS, backbone=FAMILIES)


def test_every_registered_method_is_tried() -> None:
    for methods in (METHODS, SWITCHED_OFF):
        tried = {type(term) for method in methods.values() for term in method.terms().values()}
        plain = {
            type(term)
            for name in ("cross_entropy", "label_smoothing")
            for term in METHODS[name].terms().values()
        }
        assert tried | plain == set(REGISTERED)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Training:
    """The least a trainer has to do: no method is known by name."""

    network: Backbone
    terms: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    image_shape: tuple[int, int, int]
    method: MethodConfig

    def each_term(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    def batch(self, index: int) -> Batch:
        """Make a batch as the method's plan would, from a seed."""
        generator = torch.Generator().manual_seed(100 + index)

        def images() -> Tensor:
            return torch.randn(BATCH, *self.image_shape, generator=generator)

        labels_B = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
        indices_B = torch.randperm(NUM_TRAIN, generator=generator)[:BATCH]
        plan = self.method.batch_plan
        if plan == "groups":
            # Two anchors with three companions each, all of the anchor's class.
            labels_B = labels_B[:2].repeat(4)
        if plan == "two_views_joint":
            labels_B, indices_B = labels_B[:4].repeat(2), indices_B[:4].repeat(2)
        main_BCHW = images()
        second_BCHW = images() if plan in ("class_pairs", "two_views") else None
        return Batch(main_BCHW, labels_B, indices_B, second_BCHW)

    def losses(self, index: int, *, bfloat16: bool = False, epoch: int = 0) -> dict[str, Tensor]:
        batch = self.batch(index)
        losses: dict[str, Tensor] = {}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            label_weight = math.prod(term.label_weight for term in self.each_term())
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


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TfKdSelfConfig]:
    """Write a frozen network for every backbone."""
    folder = tmp_path_factory.mktemp("teachers")
    written = {}
    for name, (config, (channels, height, width)) in BACKBONES.items():
        torch.manual_seed(11)
        teacher = build(config, (channels, height, width)).eval()
        content = write_network(
            network_info(config, channels, height, width), teacher.state_dict()
        )
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        written[name] = TfKdSelfConfig(teacher=str(path), teacher_sha256=checksum)
    return written


def network_info(config: ModelConfig, channels: int, height: int, width: int) -> NetworkInfo:
    return NetworkInfo(
        model=config.name,
        width=config.channels,
        in_channels=channels,
        height=height,
        image_width=width,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        data_fingerprint="0" * 12,
        trained_on="train",
        config={},
        study="baseline",
        trial=0,
        accuracy=0.5,
        precision="float32",
        environment={},
    )


Start = Callable[..., Training]


@pytest.fixture
def start(teachers: dict[str, TfKdSelfConfig]) -> Start:
    def start(method: MethodConfig | str, backbone: str, *, seed: int = 0) -> Training:
        config, image_shape = BACKBONES[backbone]
        chosen = METHODS[method] if isinstance(method, str) else method
        if chosen.tf_kd_self is not None and chosen.tf_kd_self.weight:
            written = teachers[backbone].model_dump(include={"teacher", "teacher_sha256"})
            teacher = chosen.tf_kd_self.model_copy(update=written)
            chosen = chosen.model_copy(update={"tf_kd_self": teacher})
        torch.manual_seed(seed)
        network = build(config, image_shape)
        shapes = describe_network(network, image_shape, has_maps=config.has_maps).stage_shapes
        context = BuildContext(shapes, NUM_CLASSES, NUM_TRAIN, config)
        terms = build_terms(chosen, context)
        parameters = [*network.parameters(), *terms.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        training = Training(network, terms, optimizer, image_shape, chosen)
        for term in training.each_term():
            term.start_epoch(0)
        return training

    return start


@pytest.mark.product(method=METHODS, backbone=BACKBONES)
def test_losses_and_gradients_are_finite(start: Start, method: str, backbone: str) -> None:
    training = start(method, backbone)
    for index in range(2):
        losses = training.backward(index)
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        for part in (training.network, training.terms):
            for name, parameter in part.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name


@every_method_and_family
def test_loss_names_stay_the_same(start: Start, method: str, backbone: str) -> None:
    training = start(method, backbone)
    first, second = training.losses(0), training.losses(1)
    assert list(first) == list(second)
    assert {loss.dtype for loss in (*first.values(), *second.values())} == {torch.float32}
    unused = {"byot_one_stage": "byot_features", "frskd_small": "frskd_attention"}.get(method)
    assert all((loss > 0) == (name != unused) for name, loss in second.items())


@every_method
def test_training_lowers_the_label_loss(start: Start, method: str) -> None:
    # Taught almost only by an untrained network, nothing is learned from labels.
    teachable = MethodConfig(tf_kd_self=TEACHER.model_copy(update={"weight": 0.3}))
    training = start(teachable if method == "tf_kd_self" else method, "resnet8")
    before = training.label_loss(0)
    for _ in range(16):
        training.steps(range(1))
    assert training.label_loss(0) < before / 2


@every_method_and_family
def test_same_seed_same_numbers(start: Start, method: str, backbone: str) -> None:
    first = start(method, backbone, seed=5).steps(range(2))
    assert first == start(method, backbone, seed=5).steps(range(2))
    assert first != start(method, backbone, seed=6).steps(range(2))


@every_method_and_family
def test_a_resumed_training_goes_on_bit_by_bit(start: Start, method: str, backbone: str) -> None:
    undisturbed = start(method, backbone)
    undisturbed.steps(range(2))
    state = undisturbed.state()
    expected = undisturbed.steps(range(2, 4))
    resumed = start(method, backbone, seed=99)
    resumed.restore(state)
    assert resumed.steps(range(2, 4)) == expected
    for mine, other in zip(
        resumed.network.state_dict().values(),
        undisturbed.network.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(mine, other)


def forgotten(training: Training, start: Start, method: str, backbone: str) -> Training:
    """Make a twin with the same weights, which remembers nothing."""
    twin = start(method, backbone)
    twin.network.load_state_dict(training.network.state_dict())
    for mine, other in zip(twin.terms.parameters(), training.terms.parameters(), strict=True):
        mine.data.copy_(other.data)
    for one in (training, twin):
        for term in one.each_term():
            term.start_epoch(1)
    return twin


@pytest.mark.product(method=sorted(METHODS.keys() - REMEMBER_ACROSS_EPOCHS), backbone=FAMILIES)
def test_a_new_epoch_needs_no_memory(start: Start, method: str, backbone: str) -> None:
    training = start(method, backbone)
    training.steps(range(2))
    twin = forgotten(training, start, method, backbone)
    first, second = training.losses(2, epoch=1), twin.losses(2, epoch=1)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", sorted(REMEMBER_ACROSS_EPOCHS))
def test_what_is_remembered_across_epochs_has_an_effect(start: Start, method: str) -> None:
    training = start(method, "resnet8")
    training.steps(range(16))
    twin = forgotten(training, start, method, "resnet8")
    first, second = training.losses(2, epoch=1), twin.losses(2, epoch=1)
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.product(off=SWITCHED_OFF, backbone=BACKBONES)
def test_terms_of_weight_zero_leave_the_baseline_as_it_is(
    start: Start, off: str, backbone: str
) -> None:
    assert SWITCHED_OFF[off].batch_plan == "plain"
    plain, switched_off = start("cross_entropy", backbone), start(SWITCHED_OFF[off], backbone)
    num_steps = range(3 if backbone in FAMILIES else 1)
    assert plain.steps(num_steps) == switched_off.steps(num_steps)
    for mine, other in zip(
        plain.network.state_dict().values(),
        switched_off.network.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(mine, other)


def test_all_of_them_switched_off_leave_label_smoothing_as_it_is(start: Start) -> None:
    terms = {
        name: term
        for off in SWITCHED_OFF.values()
        for name, term in off.terms().items()
        if name != "label"
    }
    nothing = MethodConfig(label=LabelSmoothingConfig()).model_copy(update=terms)
    plain, switched_off = start("label_smoothing", "resnet8"), start(nothing, "resnet8")
    plain.steps(range(3))
    switched_off.steps(range(3))
    for mine, other in zip(
        plain.network.parameters(), switched_off.network.parameters(), strict=True
    ):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("method", "loss", "teacher"),
    [
        ("drg_two_stages", "drg", "terms.drg."),
        ("byot", "byot", "network.classifier."),
        ("byot", "byot_features", "network.stages.2."),
        ("frskd", "frskd", "terms.frskd."),
        ("frskd", "frskd_attention", "terms.frskd."),
    ],
)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_modules_that_teach_learn_nothing_from_it(
    start: Start, method: str, loss: str, teacher: str, backbone: str
) -> None:
    training = start(method, backbone)
    training.losses(0)[loss].backward()
    teacher = teacher.replace("stages.2.", f"stages.{training.network.num_stages - 1}.")
    parts = nn.ModuleDict({"network": training.network, "terms": training.terms})
    grads = {name: parameter.grad for name, parameter in parts.named_parameters()}
    of_teacher = {name: grad for name, grad in grads.items() if name.startswith(teacher)}
    assert of_teacher
    assert all(grad is None for grad in of_teacher.values())
    assert any(grad is not None and bool(grad.any()) for grad in grads.values())


@every_method
def test_what_a_method_remembers_holds_no_graph(start: Start, method: str) -> None:
    training = start(method, "resnet8")
    training.steps(range(2))
    for name, value in training.terms.state_dict().items():
        inner = value.values() if isinstance(value, dict) else [value]
        for tensor in inner:
            assert not isinstance(tensor, Tensor) or tensor.grad_fn is None, name


@pytest.mark.parametrize("method", ["cs_kd", "dlb", "ddgsd", "bake", "tf_kd_self", "zipf"])
def test_teachers_without_modules_are_detached(start: Start, method: str) -> None:
    """Softened outputs that teach: the sum over the classes of a gradient at them would be 0."""
    training = start(method, "resnet8")
    training.steps(range(1))
    seen: list[Tensor] = []
    original = training.network.forward

    def forward(images_BCHW: Tensor, stages: tuple[int, ...] = ()) -> Outputs:
        outputs = original(images_BCHW, stages)
        if outputs.logits_BK.requires_grad:
            outputs.logits_BK.retain_grad()
        seen.append(outputs.logits_BK)
        return outputs

    training.network.forward = forward  # type: ignore[assignment, method-assign]
    losses = training.losses(1)
    losses[method].backward()
    if method == "cs_kd":
        main, partner = seen
        assert main.grad is not None
        assert not partner.requires_grad
    elif method == "dlb":
        # The main forward teaches only in the next step, and the last one is remembered.
        main, again = seen
        assert main.grad is None or not main.grad.any()
        assert again.grad is not None
        assert again.grad.any()
    else:
        (main,) = seen
        assert main.grad is not None
        assert main.grad.any()
        # A gradient of T (p - q) / B, and so of no sum, has no part from a teacher.
        torch.testing.assert_close(main.grad.sum(dim=1), torch.zeros(len(main)), atol=1e-5, rtol=0)


@every_method_and_family
def test_bfloat16_is_close_to_float32(start: Start, method: str, backbone: str) -> None:
    single, low = start(method, backbone), start(method, backbone)
    for index in range(2):
        expected, received = single.losses(index), low.losses(index, bfloat16=True)
        assert list(received) == list(expected)
        for name, loss in received.items():
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, expected[name], rtol=0.08, atol=0.02)


@every_method
def test_gradients_in_bfloat16_are_finite(start: Start, method: str) -> None:
    training = start(method, "resnet8")
    totals = training.steps(range(3), bfloat16=True)
    assert all(torch.tensor(totals).isfinite())
    assert all(
        parameter.dtype == torch.float32
        and parameter.grad is not None
        and bool(parameter.grad.isfinite().all())
        for parameter in (*training.network.parameters(), *training.terms.parameters())
    )

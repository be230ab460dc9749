"""How fast a trial trains: skdtune's trainer beside a plain loop, and beside the hardware.

    python benchmarks/training.py [--models resnet18 resnet20 resnet8] [--device cpu|cuda]
                                  [--rounds 5] [--workers 2 4] [--compile MODE ...]
                                  [--profile] [--json]

Everything is measured in one run, in turn, in processes of its own: a round gives each contender
one window of some steps, ratios are taken within a round, and medians over the rounds are printed.

- ``plain``: the published recipe as a plain loop, written here from its description: PIL images,
  random resized crop and flip in a DataLoader of 4 workers, float32, channels first, SGD, loss and
  accuracy read from the device in every step; DRG + DSR.
- ``solo``: skdtune's trainer through ``Trainer.run``, one process with all cores, for each method.
- ``torch alone``: ``solo`` without our own kernels (``SKDTUNE_NATIVE=0``); on the CPU only.
- ``packed``: one single-threaded process per core, DRG + DSR; on a GPU so many processes on it.
- ``compiled MODE``: ``solo`` under ``torch.compile``; ``reduce-overhead`` replays CUDA graphs. How
  long the first window took tells what compiling costs.
- ``bare``: the operations of ``solo`` in a loop without a trainer.
- ``ceiling``: nothing but the network's dense convolutions, forward and backward, in the type and
  layout that the trainer uses, each as oneDNN's (or cuDNN's) or as the layer's own matrix product,
  whichever is faster here; what is left is the price of everything else. ``library`` takes
  oneDNN's for all, as a trainer without products would have to.

All but ``plain`` get their memory as the workers of ``skdtune launch`` do. Images are random:
nothing here depends on what they show.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

METHODS = {
    "ce": {},
    "dsr": {"dsr": {}},
    "drg": {"drg": {}},
    "drg+dsr": {"drg": {}, "dsr": {}},
}
BATCH = 128
#: Steps of one window, so that it takes seconds and not minutes on two cores; of others two.
STEPS = {"resnet18": 4, "resnet20": 16, "resnet8": 32}
OTHER_STEPS = 2
GPU_STEPS = 200
NUM_CLASSES = 100


@dataclass(frozen=True)
class Contender:
    """What runs in some processes at once."""

    kind: str
    method: str
    processes: int
    threads: int
    compile_mode: str = ""

    @property
    def label(self) -> str:
        count = f" x {self.processes}" if self.processes > 1 else ""
        mode = f" {self.compile_mode}" if self.compile_mode else ""
        return f"{self.kind}{mode} {self.method}{count}"


def contenders(device: str, workers: list[int], modes: list[str]) -> list[Contender]:
    from skdtune.cores import num_cores

    cores = num_cores()
    packs = workers if device != "cpu" else [cores]
    return [
        Contender("plain", "drg+dsr", 1, cores),
        *(Contender("solo", method, 1, cores) for method in METHODS),
        *([Contender("torch alone", "drg+dsr", 1, cores)] if device == "cpu" else []),
        *(Contender("compiled", "drg+dsr", 1, cores, mode) for mode in modes),
        Contender("bare", "drg+dsr", 1, cores),
        Contender("ceiling", "drg+dsr", 1, cores),
        Contender("library", "drg+dsr", 1, cores),
        *(Contender("packed", "drg+dsr", n, max(1, cores // n)) for n in packs if n > 1),
        *(Contender("ceiling", "drg+dsr", n, max(1, cores // n)) for n in packs if n > 1),
        *(Contender("library", "drg+dsr", n, max(1, cores // n)) for n in packs if n > 1),
    ]


# --- in a process of its own --------------------------------------------------------------------


def serve(connection: Connection, contender: Contender, model: str, device: str) -> None:
    """Build a contender, then run one window for every message; answer with its seconds."""
    import torch

    torch.set_num_threads(contender.threads)
    os.environ["SKDTUNE_COMPILE"] = contender.compile_mode
    if contender.kind == "torch alone":
        os.environ["SKDTUNE_NATIVE"] = "0"
    steps = STEPS.get(model, OTHER_STEPS) if device == "cpu" else GPU_STEPS
    window = WINDOWS[contender.kind](contender, model, device, steps)
    start = time.perf_counter()
    window()
    connection.send(time.perf_counter() - start)
    while connection.recv() == "go":
        start = time.perf_counter()
        window()
        if device != "cpu":
            torch.cuda.synchronize()
        connection.send(time.perf_counter() - start)
    connection.send(peak_mb(device))


def peak_mb(device: str) -> float:
    """Peak of the device's memory, on the CPU of the process."""
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def trial_config(model: str, method: str) -> Any:
    from skdtune.describe.config import DataConfig, MethodConfig, ModelConfig, TrialConfig

    return TrialConfig(
        data=DataConfig(name="cifar100", batch_size=BATCH, crop="resized"),
        model=ModelConfig(name=model),  # type: ignore[arg-type]
        method=MethodConfig.model_validate(METHODS[method]),
    )


def random_images(number: int) -> Any:
    import numpy as np

    from skdtune.data.images import image_set

    generator = np.random.default_rng(0)
    return image_set(
        generator.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8),
        generator.integers(0, NUM_CLASSES, number),
        tuple(map(str, range(NUM_CLASSES))),
    )


def build_trainer(model: str, method: str, device: str, steps: int) -> Any:
    import numpy as np
    import torch

    from skdtune.data.batches import DeviceImages
    from skdtune.training.trainer import Trainer

    target = torch.device(device)
    half = np.full(3, 0.5, np.float32)
    train, val = (
        DeviceImages(random_images(number), half, half, target) for number in (steps * BATCH, 2)
    )
    return Trainer(trial_config(model, method), train, val, NUM_CLASSES, target)


def trainer_window(
    contender: Contender, model: str, device: str, steps: int
) -> Callable[[], object]:
    """One epoch of the trainer; its validation set has two images."""
    from skdtune.describe.epoch_report import EpochReport, NullReporter, Verdict

    class OneEpoch(NullReporter):
        def epoch_finished(self, report: EpochReport) -> Verdict:
            return Verdict.INTERRUPT

    trainer = build_trainer(model, contender.method, device, steps)
    return lambda: trainer.run(OneEpoch())


def bare_window(contender: Contender, model: str, device: str, steps: int) -> Callable[[], None]:
    """The same modules, losses and optimiser, without schedule, reporter, sums and validation."""
    import torch

    from skdtune.data.batches import TrainBatches
    from skdtune.methods.base import Step
    from skdtune.training.device import autocast
    from skdtune.training.optimizer import build_optimizer

    trainer = build_trainer(model, contender.method, device, steps)
    network, terms = trainer.network, list(trainer.terms.values())
    stages = tuple(sorted({stage for term in terms for stage in term.stages}))
    optimizer = build_optimizer(trainer.config.optimizer, network, trainer.terms)
    batches = TrainBatches(trainer._batches._images, trainer.config.data, 0)

    def window() -> None:
        network.train()
        for batch in batches.epoch(0):
            with autocast(trainer.dtype, torch.device(device)):
                logits, features, _ = network(batch.images_BCHW, stages)
                step = Step(
                    batch=batch,
                    logits_BK=logits,
                    stage_features=features,
                    network=network,
                    epoch=0,
                    planned_epochs=1,
                )
                losses = [loss for term in terms for loss in term(step).values()]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return window


def plain_window(contender: Contender, model: str, device: str, steps: int) -> Callable[[], None]:
    """The published recipe, step by step as it is described."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from skdtune.methods.dsr.formulas import ranked
    from skdtune.methods.functional import distillation_kl

    os.environ["SKDTUNE_NATIVE"] = "0"
    network, head = plain_modules(model, device)
    modules = torch.nn.ModuleList([network, head])
    optimizer = torch.optim.SGD(modules.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(32),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )
    data = PilImages(random_images(steps * BATCH), recipe)
    loader = DataLoader(
        data, BATCH, shuffle=True, drop_last=True, num_workers=4, persistent_workers=True
    )

    def window() -> None:
        modules.train()
        previous, running_loss, correct = None, 0.0, 0.0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            logits, features, _ = network(images, (2,))
            auxiliary = head(features[2])
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(auxiliary, labels)
            loss = loss + 0.2 * distillation_kl(logits, auxiliary, 4.0)
            shape = ranked(logits)
            if previous is not None:
                loss = loss + distillation_kl(shape, previous, 4.0)
            previous = shape.detach()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (logits.argmax(1) == labels).float().mean().item()

    return window


def plain_modules(model: str, device: str) -> tuple[Any, Any]:
    from skdtune.models.backbone import build_backbone
    from skdtune.models.description import describe_network
    from skdtune.models.heads.auxiliary import AuxiliaryClassifier

    network = build_backbone(model, in_channels=3, image_size=(32, 32), num_classes=NUM_CLASSES)
    shapes = describe_network(network, (3, 32, 32)).stage_shapes
    head = AuxiliaryClassifier(shapes, 2, NUM_CLASSES, align_corners=True)
    return network.to(device), head.to(device)


class PilImages:
    """Images as PIL files would be, transformed one by one."""

    def __init__(self, images: Any, transform: Callable[[Any], Any]) -> None:
        self._images_NHWC = images.images_NCHW.transpose(0, 2, 3, 1)
        self._labels_N = images.labels_N
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels_N)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self._images_NHWC[index])
        return self._transform(image), int(self._labels_N[index])


def ceiling_window(
    contender: Contender, model: str, device: str, steps: int
) -> Callable[[], None]:
    """All dense convolutions of one step, forward and backward, with nothing in between."""
    import torch

    trainer = build_trainer(model, contender.method, device, 1)
    dtype = trainer.dtype or torch.float32
    forms = "library" if contender.kind == "library" else "faster"
    calls = [convolution(*shape, dtype, device, forms) for shape in convolutions(trainer)]

    def window() -> None:
        for _ in range(steps):
            for call in calls:
                call()

    return window


def convolutions(trainer: Any, *, grouped: bool = False) -> list[tuple[Any, Any]]:
    """Record the dense convolutions of a step, or all, with the shapes of their inputs."""
    import torch

    seen: list[tuple[Any, Any]] = []
    modules = [*trainer.network.modules(), *trainer.terms.modules()]
    hooks = [
        module.register_forward_hook(lambda m, inputs, _: seen.append((m, inputs[0].shape)))
        for module in modules
        if isinstance(module, torch.nn.Conv2d) and (grouped or module.groups == 1)
    ]
    trainer._train_epoch(0, SilentReporter())
    for hook in hooks:
        hook.remove()
    return seen


class SilentReporter:
    def interrupted(self, progress: float) -> bool:
        return False


def convolution(
    module: Any, shape: Any, dtype: Any, device: str, forms: str
) -> Callable[[], None]:
    import torch

    from skdtune.training.device import autocast

    def random(*size: int) -> Any:
        made = torch.randn(*size, dtype=dtype, device=device)
        return made.contiguous(memory_format=torch.channels_last)

    image, weight = random(*shape), random(*module.weight.shape)
    stride, padding = list(module.stride), list(module.padding)
    # The first one has no gradient to hand on.
    mask = [shape[1] != 3, True, False]
    geometry = (stride, padding, [1, 1], False, [0, 0], module.groups)
    gradient = torch.randn_like(torch.convolution(image, weight, None, *geometry))

    def library() -> None:
        torch.convolution(image, weight, None, *geometry)
        torch.ops.aten.convolution_backward(gradient, image, weight, None, *geometry, mask)

    leaf = image.clone(memory_format=torch.channels_last).requires_grad_()
    target = torch.device(device)

    def layer() -> None:
        with autocast(None if dtype == torch.float32 else dtype, target):
            output = module(leaf)
        torch.autograd.grad(output, [leaf, module.weight], gradient)

    if forms == "library" or type(module) is torch.nn.Conv2d:
        return library
    return min(library, layer, key=seconds_of)


def seconds_of(call: Callable[[], None]) -> float:
    """Time a call, the best of five."""
    import torch

    times = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


WINDOWS = {
    "plain": plain_window,
    "solo": trainer_window,
    "compiled": trainer_window,
    "torch alone": trainer_window,
    "packed": trainer_window,
    "bare": bare_window,
    "ceiling": ceiling_window,
    "library": ceiling_window,
}


# --- the referee --------------------------------------------------------------------------------


@contextlib.contextmanager
def malloc_of(contender: Contender, device: str) -> Iterator[None]:
    """Give new processes the memory settings that ``launch`` gives its workers; none to plain."""
    from skdtune.engines.local_slots import MALLOC_VARIABLE, plan_slots

    before = os.environ.get(MALLOC_VARIABLE)
    if device == "cpu" and contender.kind != "plain":
        os.environ[MALLOC_VARIABLE] = plan_slots("none", 1)[0].environment[MALLOC_VARIABLE]
    try:
        yield
    finally:
        os.environ.pop(MALLOC_VARIABLE, None)
        if before is not None:
            os.environ[MALLOC_VARIABLE] = before


class Team:
    """The processes of one contender, which wait between their windows."""

    def __init__(self, contender: Contender, model: str, device: str) -> None:
        self.contender = contender
        steps = STEPS.get(model, OTHER_STEPS) if device == "cpu" else GPU_STEPS
        self._images = steps * BATCH
        context = multiprocessing.get_context("spawn")
        self._ends, self._processes = [], []
        for _ in range(contender.processes):
            ours, theirs = context.Pipe()
            # Not a daemon: the plain loop has children of its own.
            process = context.Process(target=serve, args=(theirs, contender, model, device))
            with malloc_of(contender, device):
                process.start()
            self._ends.append(ours)
            self._processes.append(process)
        self.first_s = max(float(end.recv()) for end in self._ends)

    def window(self) -> float:
        """Run one window in all processes at once; images per second of all of them."""
        for end in self._ends:
            end.send("go")
        # By the slowest: who ends first leaves the machine to the others.
        seconds = max(float(end.recv()) for end in self._ends)
        return len(self._ends) * self._images / seconds

    def stop(self) -> float:
        """End the processes; the largest peak of memory in MB."""
        for end in self._ends:
            end.send("stop")
        peak = max(float(end.recv()) for end in self._ends)
        for process in self._processes:
            process.join()
        return peak


def measure(
    model: str, device: str, rounds: int, workers: list[int], modes: list[str]
) -> dict[str, Any]:
    teams = [Team(each, model, device) for each in contenders(device, workers, modes)]
    rates: dict[str, list[float]] = {team.contender.label: [] for team in teams}
    for number in range(rounds):
        print(f"{model}: round {number + 1} of {rounds}", file=sys.stderr)
        for team in teams:
            rates[team.contender.label].append(team.window())
    first = {team.contender.label: round(team.first_s, 1) for team in teams}
    memory = {team.contender.label: round(team.stop()) for team in teams}
    return {"model": model, "memory_mb": memory, "first_window_s": first, **compare(rates)}


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Take medians, and ratios round by round."""

    def ratio(one: str, other: str) -> list[float]:
        pairs = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        return [round(value, 3) for value in (statistics.median(pairs), min(pairs), max(pairs))]

    best, packed = "solo drg+dsr", [label for label in rates if label.startswith("packed")]
    compiled = [label for label in rates if label.startswith(("compiled", "torch alone"))]
    return {
        "images_per_second": {
            label: [round(v, 1) for v in (statistics.median(r), min(r), max(r))]
            for label, r in rates.items()
        },
        "ratio_to_plain": {
            label: ratio(label, "plain drg+dsr") for label in [best, *packed, *compiled, "solo ce"]
        },
        "ratio_to_one_process": {label: ratio(label, best) for label in [*packed, *compiled]},
        "share_of_ceiling": {
            label: ratio(label, label.replace("packed", "ceiling").replace("solo", "ceiling"))
            for label in [best, *packed]
        },
        "share_of_library": {
            label: ratio(label, label.replace("packed", "library").replace("solo", "library"))
            for label in [best, *packed]
        },
        "cost_over_ce": {
            method: ratio("solo ce", f"solo {method}") for method in METHODS if method != "ce"
        },
        "overhead_over_bare": {best: ratio("bare drg+dsr", best)},
    }


def profile(model: str, device: str) -> list[tuple[str, float]]:
    """Say where the time of one training step goes, by kind of operation, in shares."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    torch.set_num_threads(1)
    trainer = build_trainer(model, "drg+dsr", device, 4)
    trainer._train_epoch(0, SilentReporter())
    on_gpu = device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch_profile(activities=activities) as found:
        trainer._train_epoch(1, SilentReporter())
    kinds = {
        "convolution, backward": ("convolution_backward",),
        "convolution, forward": ("mkldnn_convolution", "cudnn_convolution"),
        "convolution as a product, and classifiers": ("aten::mm", "aten::addmm", "aten::flip"),
        "batch norm, sum, ReLU, backward": ("FusedBatchNormActBackward", "batch_norm_backward"),
        "batch norm, sum, ReLU, forward": ("FusedBatchNormAct", "batch_norm"),
        "auxiliary: depth-wise and gate": ("Depthwise", "Gate"),
        "sums of gradients": ("=aten::add_", "=aten::add"),
        "copies, casts and windows of products": ("copy_",),
        "optimiser": ("fused_sgd", "Optimizer", "foreach"),
        "augmentation": ("grid_sampler", "index", "addcmul", "where", "flip"),
    }
    shares: dict[str, float] = dict.fromkeys([*kinds, "everything else"], 0.0)
    for event in found.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = next(
            (k for k, words in kinds.items() if any(matches(event.key, w) for w in words)),
            "everything else",
        )
        shares[kind] += spent
    total = sum(shares.values())
    return [(kind, round(spent / total, 3)) for kind, spent in shares.items()]


def matches(key: str, word: str) -> bool:
    """Tell whether an operation is meant: exactly by a word that begins with ``=``."""
    return key == word[1:] if word.startswith("=") else word in key


def machine(device: str) -> dict[str, Any]:
    import torch

    from skdtune.models.kernels.native import load_kernels

    name = torch.cuda.get_device_name() if device != "cpu" else processor()
    return {
        "device": name,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernels": load_kernels() is not None,
    }


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines())
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        flags = fields.get("flags", "").split()
        has = [name for name in ("avx2", "avx512_bf16", "amx_bf16") if name in flags]
        model = f"family {fields.get('cpu family')}, model {fields.get('model')}"
        return f"{fields.get('model name', platform.machine())} ({model}; {', '.join(has)})"
    except (OSError, ValueError):
        return platform.processor() or platform.machine()


def print_table(found: dict[str, Any]) -> None:
    print(f"\n{found['model']}, batch {BATCH}: median [least, most] over the rounds")
    for label, (median, least, most) in found["images_per_second"].items():
        memory, first = found["memory_mb"][label], found["first_window_s"][label]
        print(
            f"  {label:<24} {median:>9.1f} images/s [{least:.1f}, {most:.1f}]  {memory} MB, "
            f"first window {first} s"
        )
    for title in (
        "ratio_to_plain",
        "ratio_to_one_process",
        "share_of_ceiling",
        "share_of_library",
        "cost_over_ce",
        "overhead_over_bare",
    ):
        print(f"  {title.replace('_', ' ')}")
        for label, (median, least, most) in found[title].items():
            print(f"    {label:<22} {median:>9.3f} [{least}, {most}]")


def print_profile(model: str, shares: Iterable[tuple[str, float]]) -> None:
    print(f"\n{model}, DRG + DSR: where one step's time goes, one thread")
    for kind, share in shares:
        print(f"  {kind:<34} {share:6.1%}")


def main() -> None:
    from skdtune.catalogues.models import networks

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", choices=list(networks()), default=list(STEPS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[2, 4], help="processes that share a GPU"
    )
    parser.add_argument(
        "--compile",
        nargs="+",
        default=[],
        choices=["default", "reduce-overhead", "max-autotune"],
        help="measure torch.compile, too",
    )
    parser.add_argument("--profile", action="store_true", help="say where a step's time goes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(options.device)}
    if options.profile:
        shares = {model: profile(model, options.device) for model in options.models}
        results["profile"] = shares
    else:
        found = [
            measure(model, options.device, options.rounds, options.workers, options.compile)
            for model in options.models
        ]
        results["models"] = found
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(", ".join(f"{key}: {value}" for key, value in results["machine"].items()))
    for each in results.get("models", []):
        print_table(each)
    for model, parts in results.get("profile", {}).items():
        print_profile(model, parts)


if __name__ == "__main__":
    main()

"""The folder of one training: what it is, how far it came, what it came to.

config.yaml            what is trained, to be given to ``skdtune train`` again
run.json               what the folder is known by, and what its images come from
curve.csv              a row for each finished epoch
checkpoints/           the newest ones, to go on from
network.safetensors    the trained network, with its model card in README.md
result.json            what it came to; its presence says that the training is over
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from skdtune.describe import dotted
from skdtune.describe.data_source import DataSource
from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.settings import canonical
from skdtune.describe.study_file import YAML_ERRORS, load_yaml
from skdtune.errors import InputError, SkdtuneError
from skdtune.runs.plan import RunPlan
from skdtune.training.files import reason_of, write_file

CONFIG, RUN, CURVE, RESULT = "config.yaml", "run.json", "curve.csv", "result.json"
CHECKPOINTS, NETWORK, CARD = "checkpoints", "network.safetensors", "README.md"
_LOCK = ".lock"
_FORMAT = 1


class RunFolder:
    """The folder of one training.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def require_for(self, plan: RunPlan) -> dict[str, Any] | None:
        """Refuse a folder that is not this training's; nothing is written.

        Returns:
            What the folder is known by; None if there is nothing in it yet.

        Raises:
            InputError: If something else lies there, or it cannot be read.
        """
        try:
            # The lock, and what a process that was killed had half written.
            names = {p.name for p in self.path.iterdir() if not p.name.startswith(".")}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{self.path} cannot be used: {error.strerror}") from None
        if not names:
            return None
        if RUN not in names:
            raise InputError(f"{self.path} is there and holds no run; choose another --output")
        known = self.read(RUN)
        if known.get("run_hash") != plan.digest:
            raise InputError(
                f"{self.path} holds another run: {self._difference(plan, known)}; choose another "
                "--output"
            )
        return known

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other processes out of it.

        Raises:
            InputError: If one is in it, or it cannot be written.
        """
        lock = FileLock(self.path / _LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Where there are no locks, who starts two processes at one run is not told.
            with contextlib.suppress(NotImplementedError):
                lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another process trains in {self.path}") from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be used: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def begin(self, plan: RunPlan, source: DataSource, attempt: int) -> None:
        """Write down what is trained, at the start of an attempt."""
        known = {
            "format": _FORMAT,
            "name": plan.spec.name,
            "run_hash": plan.digest,
            "seed": plan.spec.seed,
            "all_images": plan.all_images,
            **({"from": dict(plan.origin)} if plan.origin else {}),
            "source": source.to_plain(),
            "attempts": attempt,
        }
        self.write_json(RUN, known)
        self.write(CONFIG, config_text(plan).encode())

    def write_curve(self, epochs: Sequence[EpochReport]) -> None:
        """Write a row for each epoch, counted from 1; all of them, as a checkpoint holds them."""
        names = dict.fromkeys(name for report in epochs for name in report.losses)
        rows = [
            {
                "epoch": report.epoch + 1,
                "val_accuracy": report.val_accuracy,
                "val_loss": report.val_loss,
                "lr": report.lr,
                "seconds": round(report.seconds, 4),
                "images": report.images,
                **{f"loss.{name}": report.losses.get(name) for name in names},
            }
            for report in epochs
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write(CURVE, text.getvalue().encode())

    def result(self) -> dict[str, Any] | None:
        """Return what the training came to; None while it is not over."""
        return self.read(RESULT) if (self.path / RESULT).exists() else None

    def read(self, name: str) -> dict[str, Any]:
        """Read one of the JSON files.

        Raises:
            InputError: If it is missing or damaged.
        """
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            raise InputError(f"{self.path / name} cannot be read: {reason}") from None
        if not isinstance(content, dict):
            raise InputError(f"{self.path / name} cannot be read: it is damaged")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        self.write(name, f"{text}\n".encode())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            SkdtuneError: If it cannot be written.
        """
        try:
            write_file(LocalFileSystem(), str(self.path), name, content)
        except OSError as error:
            raise SkdtuneError(
                f"{self.path / name} cannot be written: {reason_of(error)}"
            ) from error

    def _difference(self, plan: RunPlan, known: Mapping[str, Any]) -> str:
        """Name the first setting that another run has otherwise."""
        if known.get("all_images") is not plan.all_images:
            return (
                "it "
                + ("learns" if known.get("all_images") else "does not learn")
                + (" from all images")
            )
        try:
            read = load_yaml((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, *YAML_ERRORS):
            return "another configuration"
        there = dotted.flatten(read) if isinstance(read, Mapping) else {}
        wanted = dotted.flatten(_plain(plan))
        for path in sorted((there.keys() | wanted.keys()) - {"name", "description"}):
            if there.get(path) != wanted.get(path):
                return f"{path} is {there.get(path)!r} there, not {wanted.get(path)!r}"
        return "another configuration"


def config_text(plan: RunPlan) -> str:
    """Write what is trained as a study file, which makes the same training again."""
    options = " --all-images" if plan.all_images else ""
    return (
        f"# Made by skdtune train; the same training again: skdtune train {CONFIG}{options}\n"
        + yaml.safe_dump(_plain(plan), sort_keys=False, allow_unicode=True)
    )


def _plain(plan: RunPlan) -> dict[str, Any]:
    named = {"name": plan.spec.name, "description": plan.spec.description}
    return named | _without_nulls(canonical(plan.config))


def _without_nulls(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is switched off: it is by itself."""
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in plain.items()
        if value is not None
    }

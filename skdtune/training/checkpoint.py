"""The checkpoints of one trial: whole or not there, checksummed, on any file system.

    <url>/<study>-<lineage>/trial-00012/epoch-00007.attempt-002.ckpt

The study's name is for people: a study that was renamed finds what it wrote before by its lineage.

A file is a magic line, a header line of JSON (whose checkpoint it is, and the checksum of what
follows), and a payload of ``torch.save`` that is only ever read with ``weights_only=True``.

Names carry the attempt: a worker that lost its trial can overwrite nothing of its successor's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fsspec.implementations.local import LocalFileSystem

from skdtune.describe.epoch_report import EpochReport
from skdtune.errors import CheckpointError
from skdtune.home import is_folder_of, shown, study_folder
from skdtune.training.files import (
    absolute,
    listed,
    make_folder,
    open_folder,
    persistently,
    reason_of,
    write_file,
)

#: Newest checkpoints that are kept: if the last one is damaged, the one before is there.
NUM_KEPT = 2

_MAGIC = b"skdtune checkpoint\n"
_FORMAT = 1
_NAME = re.compile(r"epoch-(\d{5,})\.attempt-(\d{3,})\.ckpt")
_TEMPORARY = re.compile(r"\.epoch-(\d{5,})\.attempt-(\d{3,})\.ckpt\.tmp")


@dataclass(frozen=True)
class CheckpointOwner:
    """Whose checkpoint it is; all of it must agree before one is used."""

    study: str
    """Name of the study."""

    lineage: str
    """Random token of the study's creation."""

    number: int
    """Number of the trial."""

    config_hash: str
    """Hash of the trial's full configuration."""

    source: str = ""
    """Digest of what its training images come from."""


@dataclass(frozen=True)
class Checkpoint:
    """A training after a finished epoch."""

    epochs: int
    """Finished epochs."""

    attempt: int
    """The attempt that wrote it."""

    state: dict[str, Any]
    """State of the trainer."""

    curve: list[dict[str, Any]]
    """The report of every finished epoch."""

    def reports(self) -> list[EpochReport]:
        """Return the curve as it was reported.

        Raises:
            CheckpointError: If another version wrote it.
        """
        try:
            return [EpochReport(**entry) for entry in self.curve]
        except TypeError as error:
            raise CheckpointError(f"its curve is of another version: {error}") from error

    @property
    def arithmetic(self) -> Mapping[str, Any]:
        """What it was computed with; empty in a file of a version that left it with the trial."""
        arithmetic = self.state.get("arithmetic")
        return arithmetic if isinstance(arithmetic, dict) else {}


class TrialCheckpoints:
    """The checkpoints of one trial, as one attempt writes and reads them.

    Args:
        url: A folder, or an fsspec URL such as ``s3://bucket/path``.
        owner: Whose checkpoints they are.
        attempt: Number of this attempt, from 1.
        folder: Where they lie below the URL; default the trial's folder in that of its study.
    """

    def __init__(
        self, url: str, owner: CheckpointOwner, attempt: int, folder: str | None = None
    ) -> None:
        self._owner = owner
        self._attempt = attempt
        self._url = absolute(url)
        self._trial = f"trial-{owner.number:05d}"
        self._folder = folder or f"{study_folder(owner.study, owner.lineage)}/{self._trial}"

    def save(self, epochs: int, state: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        """Write a checkpoint, then remove the ones that are not needed any more.

        Raises:
            CheckpointError: If it cannot be written; the ones before stay as they are.
        """
        name = f"epoch-{epochs:05d}.attempt-{self._attempt:03d}.ckpt"
        try:
            files, folder = self._open()
            make_folder(files, folder)
            write_file(files, folder, name, self._pack(epochs, state, curve))
        except Exception as error:
            raise CheckpointError(f"{self._where}/{name}: {reason_of(error)}") from error
        # An old checkpoint that stays is no harm; the new one is there.
        with contextlib.suppress(Exception):
            mine = [entry for entry in self._names(files, folder) if entry[0] <= self._attempt]
            for _, _, older in sorted(mine, reverse=True)[NUM_KEPT:]:
                files.rm_file(f"{folder}/{older}")

    def load(
        self, say: Callable[[str], None], *, trust_nameless: bool = True
    ) -> Checkpoint | None:
        """Read the newest checkpoint that can be used, onto the CPU.

        Args:
            say: Told, in one line, of each checkpoint that cannot.
            trust_nameless: Use one of an earlier release, which does not name its images.

        Returns:
            The checkpoint; None if there is none that can be used.
        """
        try:
            files, own = self._open()
            folders = self._folders(files, own)
            names = [
                (*entry, folder)
                for folder in folders
                for entry in persistently(functools.partial(self._names, files, folder))
            ]
        except Exception as error:
            say(f"the checkpoints in {self._where} cannot be read: {reason_of(error)}")
            return None
        # What a dead writer left is no harm; a writer that is not dead may just have renamed it.
        with contextlib.suppress(Exception):
            for path in (path for folder in folders for path in listed(files, folder)):
                match = _TEMPORARY.fullmatch(path.rpartition("/")[2])
                if match and int(match[2]) <= self._attempt:
                    files.rm_file(path)
        # The newest attempt first: what an older one still wrote after it had lost the trial
        # is not what the storage knows.
        for attempt, epochs, name, folder in sorted(names, reverse=True):
            if attempt > self._attempt:
                continue
            try:
                path = f"{folder}/{name}"
                content = persistently(functools.partial(files.cat_file, path))
                return self._unpack(content, epochs, attempt, trust_nameless)
            except Exception as error:
                say(f"checkpoint {self._where}/{name} is not used: {reason_of(error)}")
        return None

    def delete(self) -> None:
        """Remove all checkpoints of the trial; best effort, and no harm if they are gone."""
        with contextlib.suppress(Exception):
            files, own = self._open()
            for folder in self._folders(files, own):
                with contextlib.suppress(Exception):
                    files.rm(folder, recursive=True)
                with contextlib.suppress(Exception):
                    # The folder of the study, if this was its last trial.
                    if isinstance(files, LocalFileSystem):
                        os.rmdir(os.path.dirname(folder))

    @property
    def _where(self) -> str:
        """The folder as people are told of it."""
        url = shown(self._url)
        return f"{url}{'' if url.endswith('/') else '/'}{self._folder}"

    def _open(self) -> tuple[Any, str]:
        """Return the file system, and the trial's folder on it."""
        files, root = open_folder(self._url)
        return files, f"{root}/{self._folder}"

    def _folders(self, files: Any, own: str) -> list[str]:
        """List the trial's folders: its own first, then those under the study's earlier names."""
        root = own.removesuffix(f"/{self._folder}")
        studies: list[str] = []
        # Who may not list what lies beside its own folder still has that.
        with contextlib.suppress(Exception):
            studies = persistently(lambda: _study_folders(files, root, self._owner.lineage))
        return list(dict.fromkeys([own, *(f"{study}/{self._trial}" for study in studies)]))

    def _pack(self, epochs: int, state: dict[str, Any], curve: list[dict[str, Any]]) -> bytes:
        payload = io.BytesIO()
        torch.save({"state": state, "curve": curve}, payload)
        content = payload.getvalue()
        header = {
            "format": _FORMAT,
            **dataclasses.asdict(self._owner),
            "epochs": epochs,
            "attempt": self._attempt,
            "length": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        return b"".join([_MAGIC, json.dumps(header).encode(), b"\n", content])

    def _unpack(
        self, content: bytes, epochs: int, attempt: int, trust_nameless: bool
    ) -> Checkpoint:
        if not content.startswith(_MAGIC):
            raise CheckpointError("it is damaged, or no checkpoint")
        line, newline, payload = content[len(_MAGIC) :].partition(b"\n")
        try:
            header = json.loads(line)
        except ValueError:
            raise CheckpointError("its header is damaged") from None
        if not newline or not isinstance(header, dict):
            raise CheckpointError("its header is damaged")
        self._require_ours(header, epochs, attempt)
        self._require_same_images(header, trust_nameless)
        if (header.get("length"), header.get("sha256")) != (
            len(payload),
            hashlib.sha256(payload).hexdigest(),
        ):
            raise CheckpointError("it is damaged: the checksum does not agree")
        try:
            read = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # Its own message advises how to execute the file all the same.
            raise CheckpointError("it holds more than plain data and tensors") from None
        state, curve = read["state"], read["curve"]
        if not isinstance(curve, list) or len(curve) != epochs:
            raise CheckpointError("its curve is not that of its epochs")
        return Checkpoint(epochs, attempt, state, curve)

    def _require_ours(self, header: dict[str, Any], epochs: int, attempt: int) -> None:
        if header.get("format") != _FORMAT:
            raise CheckpointError(f"its format is {header.get('format')!r}, not {_FORMAT}")
        expected = {**dataclasses.asdict(self._owner), "epochs": epochs, "attempt": attempt}
        # A release that knew no sources wrote none.
        del expected["source"]
        if self._owner.lineage:
            # What the study was called when it was written says nothing.
            del expected["study"]
        for name, value in expected.items():
            if header.get(name) != value:
                raise CheckpointError(
                    f"it is foreign: its {name} is {header.get(name)!r}, not {value!r}"
                )

    def _require_same_images(self, header: dict[str, Any], trust_nameless: bool) -> None:
        source = header.get("source")
        if source is None and not trust_nameless:
            raise CheckpointError(
                "it is of an earlier release, and nothing proves that it learned from the images "
                "that are there now"
            )
        if source not in (None, self._owner.source):
            raise CheckpointError(
                f"it learned from other images (source {source!r}, not {self._owner.source!r})"
            )

    def _names(self, files: Any, folder: str) -> list[tuple[int, int, str]]:
        entries = []
        for path in listed(files, folder):
            name = path.rpartition("/")[2]
            if match := _NAME.fullmatch(name):
                entries.append((int(match[2]), int(match[1]), name))
        return entries


def trials_with_checkpoints(url: str, study: str, lineage: str) -> list[int]:
    """List the numbers of a study's trials that have checkpoints; none if that cannot be seen.

    Args:
        url: A folder, or an fsspec URL.
        study: Name of the study.
        lineage: Random token of the study's creation.
    """
    try:
        files, root = open_folder(absolute(url))
        own = f"{root}/{study_folder(study, lineage)}"
        folders = dict.fromkeys([own, *_study_folders(files, root, lineage)])
        names = [path for folder in folders for path in listed(files, folder)]
    except Exception:
        return []
    matches = (re.fullmatch(r"trial-(\d{5,})", name.rpartition("/")[2]) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def _study_folders(files: Any, root: str, lineage: str) -> list[str]:
    """List the folders of a study, one for each name that it had while it wrote."""
    paths = (path.rstrip("/") for path in listed(files, root))
    return [path for path in paths if is_folder_of(path.rpartition("/")[2], lineage)]

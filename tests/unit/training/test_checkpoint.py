from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdtune.errors import CheckpointError
from skdtune.training.checkpoint import (
    Checkpoint,
    CheckpointOwner,
    TrialCheckpoints,
    trials_with_checkpoints,
)

LINEAGE = "0123456789abcdef" * 2
OWNER = CheckpointOwner("digits-drg", LINEAGE, 12, "c" * 64)
FOLDER = "digits-drg-01234567/trial-00012"


def state_of(number: int) -> dict[str, Any]:
    """Make a small state with all that a real one has: tensors, layouts, nested plain data."""
    generator = torch.Generator().manual_seed(number)
    kernel = torch.randn(4, 3, 3, 3, generator=generator)
    return {
        "network": {"kernel": kernel.to(memory_format=torch.channels_last)},
        "terms": {"extra": {"previous": None}, "half": torch.ones(3, dtype=torch.bfloat16)},
        "optimizer": {"state": {0: {"momentum": kernel * 2}}, "groups": [{"lr": 0.1}]},
        "random": [1, None, [True, 2.5, "text"], torch.zeros(5, dtype=torch.uint8)],
        "number": number,
    }


def curve_of(epochs: int) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "val_accuracy": epoch / 7, "losses": {"cross_entropy": 1 / (epoch + 3)}}
        for epoch in range(epochs)
    ]


def store(url: object, attempt: int = 1, owner: CheckpointOwner = OWNER) -> TrialCheckpoints:
    return TrialCheckpoints(str(url), owner, attempt)


def save(checkpoints: TrialCheckpoints, epochs: int) -> None:
    checkpoints.save(epochs, state_of(epochs), curve_of(epochs))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return (
            isinstance(right, torch.Tensor)
            and (left.dtype, left.stride()) == (right.dtype, right.stride())
            and torch.equal(left, right)
        )
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def is_what_was_saved(found: Checkpoint | None, epochs: int, attempt: int = 1) -> bool:
    return (
        found is not None
        and (found.epochs, found.attempt) == (epochs, attempt)
        and same(found.state, state_of(epochs))
        and found.curve == curve_of(epochs)
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def name_of(epochs: int, attempt: int = 1) -> str:
    return f"epoch-{epochs:05d}.attempt-{attempt:03d}.ckpt"


def plant(folder: Path, epochs: int, attempt: int, *, owner: CheckpointOwner = OWNER) -> Path:
    """Put a checkpoint where only its attempt would have written it, and leave all others."""
    aside = folder / "aside"
    save(store(aside, attempt, owner), epochs)
    (written,) = aside.glob("**/*.ckpt")
    target = folder / FOLDER / name_of(epochs, attempt)
    target.parent.mkdir(parents=True, exist_ok=True)
    written.rename(target)
    return target


def rewrite(path: Path, payload: bytes | None = None, **header: object) -> None:
    """Change a file as somebody would who knows the format, with a checksum that agrees."""
    magic, line, content = path.read_bytes().split(b"\n", 2)
    content = content if payload is None else payload
    sums = {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    changed = json.dumps({**json.loads(line), **sums, **header}).encode()
    path.write_bytes(b"\n".join([magic, changed, content]))


@pytest.fixture
def memory() -> Iterator[Any]:
    """Return fsspec's file system in memory, emptied before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


PLACES = [
    "{folder}",
    "{folder}/",
    "{folder}/with a space, ümlaut, 100% # ? * [x]",
    "file://{folder}/by url",
    "memory://bucket/prefix",
    "memory://bucket/",
    "memory://",
]


@pytest.mark.parametrize("place", PLACES)
def test_what_is_saved_is_loaded_wherever_it_lies(place: str, tmp_path: Path, memory: Any) -> None:
    url = place.format(folder=tmp_path / "kept")
    assert store(url).load(pytest.fail) is None
    for epochs in (1, 2, 3):
        save(store(url), epochs)
        assert is_what_was_saved(store(url).load(pytest.fail), epochs)
        assert is_what_was_saved(store(url, 7).load(pytest.fail), epochs)
    assert bool(memory.store) == url.startswith("memory://")
    assert (tmp_path / "kept").exists() != url.startswith("memory://")
    store(url).delete()
    assert store(url).load(pytest.fail) is None
    assert not memory.store


def test_a_file_lies_below_its_study_and_its_trial(tmp_path: Path, memory: Any) -> None:
    save(store(tmp_path, 2), 7)
    assert [path for path in tmp_path.glob("**/*") if path.is_file()] == [
        tmp_path / "digits-drg-01234567" / "trial-00012" / "epoch-00007.attempt-002.ckpt"
    ]
    save(store("memory://a/b", 2), 7)
    assert list(memory.store) == [f"/a/b/{FOLDER}/epoch-00007.attempt-002.ckpt"]


def test_a_relative_folder_stays_where_it_was_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = store("kept")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    save(checkpoints, 1)
    assert names(tmp_path / "kept") == [name_of(1)]


def test_a_tilde_is_the_persons_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(store("~/kept"), 1)
    assert names(tmp_path / "kept") == [name_of(1)]


def test_two_colons_in_a_folders_name_are_a_part_of_it(tmp_path: Path) -> None:
    # fsspec would read a chain of URLs, and delete a folder that is somebody else's.
    neighbour = tmp_path / "run" / "precious"
    neighbour.parent.mkdir()
    neighbour.touch()
    checkpoints = store(tmp_path / "run::1")
    save(checkpoints, 1)
    assert names(tmp_path / "run::1") == [name_of(1)]
    checkpoints.delete()
    assert neighbour.exists()


@pytest.mark.parametrize("place", ["{folder}", "memory://bucket"])
def test_the_newest_two_are_kept(place: str, tmp_path: Path, memory: Any) -> None:
    url = place.format(folder=tmp_path)
    files, root = fsspec.core.url_to_fs(url)

    def kept() -> list[str]:
        return sorted(path.rpartition("/")[2] for path in files.ls(f"{root}/{FOLDER}", False))

    for epochs in range(1, 5):
        save(store(url), epochs)
        assert kept() == [name_of(e) for e in range(max(1, epochs - 1), epochs + 1)]
    save(store(url, 3), 5)
    assert kept() == [name_of(4), name_of(5, 3)]
    save(store(url, 3), 6)
    assert kept() == [name_of(5, 3), name_of(6, 3)]


def test_an_attempt_that_starts_over_keeps_its_own_files_before_older_ones(
    tmp_path: Path,
) -> None:
    for epochs in (6, 7):
        save(store(tmp_path, 1), epochs)
    for epochs in (1, 2):
        save(store(tmp_path, 2), epochs)
    assert names(tmp_path) == [name_of(1, 2), name_of(2, 2)]
    assert is_what_was_saved(store(tmp_path, 3).load(pytest.fail), 2, 2)


@pytest.mark.parametrize("place", ["{folder}", "memory://bucket"])
def test_an_attempt_that_lost_its_trial_harms_no_file_of_its_successor(
    place: str, tmp_path: Path, memory: Any
) -> None:
    url = place.format(folder=tmp_path)
    files, root = fsspec.core.url_to_fs(url)

    def successors() -> dict[str, bytes]:
        paths = files.ls(f"{root}/{FOLDER}", detail=False)
        return {path: files.cat_file(path) for path in paths if "attempt-002" in path}

    save(store(url, 1), 3)
    for epochs in (4, 5):
        save(store(url, 2), epochs)
    written = successors()
    assert len(written) == 2
    for epochs in range(4, 9):
        save(store(url, 1), epochs)
    assert successors() == written
    assert is_what_was_saved(store(url, 1).load(pytest.fail), 8, 1)
    assert is_what_was_saved(store(url, 3).load(pytest.fail), 5, 2)


@pytest.mark.parametrize(
    ("there", "own", "expected"),
    [
        ([(1, 5), (1, 6)], 1, (1, 6)),
        ([(1, 5), (1, 6)], 2, (1, 6)),
        ([(1, 9), (2, 6)], 2, (2, 6)),
        ([(1, 9), (2, 6)], 1, (1, 9)),
        ([(1, 9), (2, 6), (2, 7), (3, 1)], 9, (3, 1)),
        ([(2, 6), (3, 7)], 2, (2, 6)),
        ([(2, 6)], 1, None),
        ([(999, 1), (1000, 1)], 1000, (1000, 1)),
        ([(1, 99999), (1, 100000)], 1, (1, 100000)),
    ],
)
def test_the_newest_attempt_counts_more_than_the_last_epoch(
    there: list[tuple[int, int]], own: int, expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    for attempt, epochs in there:
        path = plant(tmp_path, 1, attempt)
        payload = io.BytesIO()
        torch.save({"state": {}, "curve": [{}] * epochs}, payload)
        rewrite(path, payload.getvalue(), epochs=epochs)
        path.rename(path.with_name(name_of(epochs, attempt)))
    found = store(tmp_path, own).load(pytest.fail)
    assert (found and (found.attempt, found.epochs)) == expected


def test_files_of_other_names_are_nobodys_business(tmp_path: Path) -> None:
    save(store(tmp_path), 1)
    others = ["notes.txt", "epoch-1.attempt-1.ckpt", f"{name_of(9)}.old", ".hidden", "a.tmp"]
    for name in others:
        (tmp_path / FOLDER / name).write_text("of a person")
    for epochs in (2, 3):
        save(store(tmp_path), epochs)
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 3)
    assert names(tmp_path) == sorted([*others, name_of(2), name_of(3)])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "another file": lambda content: b"\x89PNG\r\n" + content,
    "magic line only": lambda content: content.split(b"\n")[0] + b"\n",
    "no header": lambda content: b"\n".join(content.split(b"\n", 2)[::2]),
    "a header that is no object": lambda c: b"\n".join([c.split(b"\n")[0], b"[1]", b""]),
    "a header that never ends": lambda c: b"\n".join([c.split(b"\n")[0], b"[" * 99999]),
    "no payload": lambda content: b"\n".join([*content.split(b"\n", 2)[:2], b""]),
    "cut off": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "a bit": lambda content: content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
    "zeros": lambda content: b"\0" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_said_in_one_line_and_the_one_before_is_used(
    damage: str, tmp_path: Path
) -> None:
    for epochs in (1, 2):
        save(store(tmp_path), epochs)
    newest = tmp_path / FOLDER / name_of(2)
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    said: list[str] = []
    assert is_what_was_saved(store(tmp_path, 2).load(said.append), 1)
    (line,) = said
    assert line.startswith(f"checkpoint {newest} is not used: ")
    assert "\n" not in line
    assert newest.exists(), "what happened to it may be worth a look"
    (tmp_path / FOLDER / name_of(1)).write_bytes(b"damaged, too")
    assert store(tmp_path, 2).load(said.append) is None
    assert len(said) == 3


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    save(store(folder), 1)
    return folder


def assert_never_wrong(folder: Path, damaged: bytes) -> None:
    path = folder / FOLDER / name_of(1)
    whole = path.read_bytes()
    said: list[str] = []
    try:
        path.write_bytes(damaged)
        found = store(folder).load(said.append)
    finally:
        path.write_bytes(whole)
    if found is None:
        assert len(said) == 1
    else:
        assert said == []
        assert is_what_was_saved(found, 1)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_no_flipped_byte_is_ever_accepted_with_other_content(
    written: Path, data: st.DataObject
) -> None:
    content = bytearray((written / FOLDER / name_of(1)).read_bytes())
    header_end = content.index(b"\n", content.index(b"\n") + 1)
    # The header is short, and most of what could go wrong is in it.
    within = data.draw(st.sampled_from([header_end, len(content) - 1]))
    position = data.draw(st.integers(0, within))
    content[position] ^= data.draw(st.integers(1, 255))
    assert_never_wrong(written, bytes(content))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_no_cut_or_patched_file_is_ever_accepted_with_other_content(
    written: Path, data: st.DataObject
) -> None:
    content = (written / FOLDER / name_of(1)).read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.sampled_from([start, len(content)]) | st.integers(start, len(content)))
    filling = data.draw(st.binary(max_size=20) | st.just(b"\0" * (end - start)))
    assert_never_wrong(written, content[:start] + filling + content[end:])


FOREIGN = [
    {"lineage": "f" * 32},
    {"lineage": LINEAGE[:8] + "f" * 24},
    {"number": 13},
    {"config_hash": "d" * 64},
]


@pytest.mark.parametrize("place", ["{folder}", "memory://bucket"])
def test_a_study_that_was_renamed_finds_its_checkpoints_and_removes_them(
    place: str, tmp_path: Path, memory: Any
) -> None:
    url = place.format(folder=tmp_path / "kept")
    before, after = OWNER, dataclasses.replace(OWNER, study="now/called ü")
    other = dataclasses.replace(OWNER, lineage="f" * 32)
    for epochs, owner in ((2, before), (1, other)):
        save(store(url, owner=owner), epochs)
    assert trials_with_checkpoints(url, after.study, LINEAGE) == [12]
    renamed = store(url, 2, owner=after)
    assert is_what_was_saved(renamed.load(pytest.fail), 2)
    save(renamed, 3)
    assert is_what_was_saved(store(url, 3, owner=after).load(pytest.fail), 3, attempt=2)
    renamed.delete()
    assert trials_with_checkpoints(url, after.study, LINEAGE) == []
    assert trials_with_checkpoints(url, before.study, LINEAGE) == []
    assert is_what_was_saved(store(url, owner=other).load(pytest.fail), 1)


@pytest.mark.parametrize("difference", FOREIGN)
def test_a_checkpoint_of_another_owner_is_refused_and_the_difference_named(
    difference: dict[str, Any], tmp_path: Path
) -> None:
    path = plant(tmp_path, 3, 1, owner=dataclasses.replace(OWNER, **difference))
    said: list[str] = []
    assert store(tmp_path, 2).load(said.append) is None
    ((field, foreign),) = difference.items()
    own = getattr(OWNER, field)
    assert said == [
        f"checkpoint {path} is not used: it is foreign: its {field} is {foreign!r}, not {own!r}"
    ]


def test_a_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    ours = dataclasses.replace(OWNER, source="aa")
    path = plant(tmp_path, 3, 1, owner=dataclasses.replace(OWNER, source="bb"))
    said: list[str] = []
    assert store(tmp_path, 2, ours).load(said.append) is None
    assert said == [
        f"checkpoint {path} is not used: it learned from other images (source 'bb', not 'aa')"
    ]
    plant(tmp_path, 3, 1, owner=ours)
    assert is_what_was_saved(store(tmp_path, 2, ours).load(pytest.fail), 3)


def test_a_checkpoint_that_names_no_images_is_used_where_they_are_known(tmp_path: Path) -> None:
    path = plant(tmp_path, 3, 1)
    magic, line, content = path.read_bytes().split(b"\n", 2)
    header = json.loads(line)
    # As releases wrote it that knew no sources.
    assert header.pop("source") == ""
    path.write_bytes(b"\n".join([magic, json.dumps(header).encode(), content]))
    ours = store(tmp_path, 2, dataclasses.replace(OWNER, source="aa"))
    assert is_what_was_saved(ours.load(pytest.fail, trust_nameless=True), 3)
    said: list[str] = []
    assert ours.load(said.append, trust_nameless=False) is None
    assert said == [
        f"checkpoint {path} is not used: it is of an earlier release, and nothing proves that it "
        "learned from the images that are there now"
    ]


@pytest.mark.parametrize("renamed", [name_of(4, 1), name_of(3, 2)])
def test_a_file_that_was_renamed_is_refused(renamed: str, tmp_path: Path) -> None:
    path = plant(tmp_path, 3, 1)
    path.rename(path.with_name(renamed))
    said: list[str] = []
    assert store(tmp_path, 2).load(said.append) is None
    assert "it is foreign: its " in said[0]


def test_a_file_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    rewrite(plant(tmp_path, 3, 1), format=2)
    said: list[str] = []
    assert store(tmp_path).load(said.append) is None
    assert said[0].endswith("is not used: its format is 2, not 1")


@pytest.mark.parametrize("curve", [[], [{}], None, 3, "text"])
def test_a_file_whose_curve_is_not_of_its_epochs_is_refused(curve: object, tmp_path: Path) -> None:
    payload = io.BytesIO()
    torch.save({"state": {}, "curve": curve}, payload)
    rewrite(plant(tmp_path, 4, 1), payload.getvalue())
    said: list[str] = []
    assert store(tmp_path).load(said.append) is None
    assert len(said) == 1


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def hostile_payloads(mark: Path) -> dict[str, bytes]:
    content = {"state": {"network": Evil(mark)}, "curve": [{}] * 3}
    modern, legacy = io.BytesIO(), io.BytesIO()
    torch.save(content, modern)
    torch.save(content, legacy, _use_new_zipfile_serialization=False)
    return {
        "modern": modern.getvalue(),
        "legacy": legacy.getvalue(),
        "pickle": pickle.dumps(content),
        "old pickle": pickle.dumps(content, protocol=0),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["modern", "legacy", "pickle", "old pickle"])
def test_a_file_that_would_execute_something_is_refused_and_does_not(
    form: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    payload = hostile_payloads(mark)[form]
    save(store(tmp_path), 2)
    path = plant(tmp_path, 3, 1)
    rewrite(path, payload)
    said: list[str] = []
    assert is_what_was_saved(store(tmp_path).load(said.append), 2)
    assert said == [f"checkpoint {path} is not used: it holds more than plain data and tensors"]
    assert not mark.exists()
    # It is the real thing.
    if form == "modern":
        torch.load(io.BytesIO(payload), weights_only=False)
        assert mark.exists()


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    checkpoints = store(tmp_path)
    save(checkpoints, 1)
    # What is written to this device meets a full disk.
    temporary = tmp_path / FOLDER / f".{name_of(2)}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(CheckpointError) as caught:
        save(checkpoints, 2)
    assert str(caught.value) == f"{tmp_path}/{FOLDER}/{name_of(2)}: No space left on device"
    assert caught.value.exit_code == 1
    assert names(tmp_path) == [name_of(1)]
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 1)
    save(checkpoints, 2)
    assert names(tmp_path) == [name_of(1), name_of(2)]


def test_a_file_that_ends_in_the_middle_of_a_write_is_not_left(tmp_path: Path) -> None:
    checkpoints = store(tmp_path)
    save(checkpoints, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"File too large$"):
            save(checkpoints, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == [name_of(1)]
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 1)


@pytest.mark.parametrize(("call", "succeeds_first"), [("fsync", 0), ("fsync", 1), ("replace", 0)])
def test_a_disk_that_turns_out_full_later_leaves_no_part_of_a_file(
    call: str, succeeds_first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store(tmp_path), 1)
    real, seen = getattr(os, call), []

    def full(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) > succeeds_first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(CheckpointError, match=r"No space left on device$"):
            save(store(tmp_path), 2)
    assert [name for name in names(tmp_path) if name.endswith(".tmp")] == []
    # The second fsync is that of the folder: the file is there then, and whole.
    is_there = succeeds_first == 1
    assert names(tmp_path) == [name_of(1), *[name_of(2)] * is_there]
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 2 if is_there else 1)


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)

        def spy(*arguments: Any, real: Callable[..., Any] = real, call: str = call) -> Any:
            is_folder = call == "fsync" and Path(f"/proc/self/fd/{arguments[0]}").is_dir()
            calls.append(f"{call} folder" if is_folder else call)
            return real(*arguments)

        monkeypatch.setattr(os, call, spy)
    save(store(tmp_path), 1)
    assert calls == ["fsync", "replace", "fsync folder"]


def test_a_state_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        store(tmp_path).save(1, {"network": lambda: None}, curve_of(1))
    assert name_of(1) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("blocked", ["", "digits-drg-01234567", FOLDER])
def test_a_file_where_a_folder_should_be_is_said_and_stays(blocked: str, tmp_path: Path) -> None:
    file = tmp_path / "kept" / blocked
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("of a person")
    checkpoints, said = store(tmp_path / "kept", 2), list[str]()
    with pytest.raises(CheckpointError, match=r": (Not a directory|File exists)$"):
        save(checkpoints, 1)
    assert checkpoints.load(said.append) is None
    assert len(said) <= 1
    if blocked != FOLDER:
        checkpoints.delete()
        assert file.read_text() == "of a person"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense://bucket", "ValueError: Protocol not known: nonsense"),
        # Nobody listens on this port.
        ("ftp://worker:secret@127.0.0.1:1/kept", "Connection refused"),
    ],
)
def test_a_file_system_that_is_not_there_is_said_without_its_password(
    url: str, reason: str
) -> None:
    checkpoints, said = store(url, 2), list[str]()
    with pytest.raises(CheckpointError) as caught:
        save(checkpoints, 1)
    assert str(caught.value).endswith(reason)
    assert checkpoints.load(said.append) is None
    (line,) = said
    assert line.endswith(f"cannot be read: {reason}")
    assert "secret" not in str(caught.value) + line
    checkpoints.delete()


def test_an_object_store_that_fails_is_an_error_with_the_reason_in_one_line(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = store("memory://bucket", 2)
    save(checkpoints, 1)

    def fail(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("SlowDown: reduce your request rate\nRequest ID: 7")

    monkeypatch.setattr(type(memory), "pipe_file", fail)
    with pytest.raises(
        CheckpointError, match=r": RuntimeError: SlowDown: reduce your request rate$"
    ):
        save(checkpoints, 2)
    assert is_what_was_saved(checkpoints.load(pytest.fail), 1, 2)
    monkeypatch.setattr(type(memory), "ls", fail)
    said: list[str] = []
    assert checkpoints.load(said.append) is None
    assert len(said) == 1
    assert said[0].endswith("cannot be read: RuntimeError: SlowDown: reduce your request rate")


def test_a_cut_off_object_is_damaged_and_the_one_before_is_used(memory: Any) -> None:
    for epochs in (1, 2):
        save(store("memory://bucket"), epochs)
    path = f"/bucket/{FOLDER}/{name_of(2)}"
    memory.pipe_file(path, memory.cat_file(path)[:-1])
    said: list[str] = []
    assert is_what_was_saved(store("memory://bucket", 2).load(said.append), 1)
    assert said == [
        f"checkpoint memory://bucket/{FOLDER}/{name_of(2)} is not used: "
        "it is damaged: the checksum does not agree"
    ]


DIE_AT_CALL = """
import os, signal, sys, torch
from skdtune.training.checkpoint import CheckpointOwner, TrialCheckpoints
url, lineage, call = sys.argv[1:]
real, seen = getattr(os, call), []
def die(*arguments):
    seen.append(arguments)
    # The second checkpoint: a file is synchronised, then its folder.
    if len(seen) == (3 if call == "fsync" else 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(os, call, die)
checkpoints = TrialCheckpoints(url, CheckpointOwner("digits-drg", lineage, 12, "c" * 64), 1)
for epochs in (1, 2, 3):
    checkpoints.save(epochs, {"weights": torch.full((1000,), epochs)}, [{}] * epochs)
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_process_that_is_killed_while_it_writes_leaves_the_checkpoint_before(
    call: str, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", DIE_AT_CALL, str(tmp_path), LINEAGE, call]
    assert subprocess.run(arguments, check=False).returncode == -9
    temporary = f".{name_of(2)}.tmp"
    assert names(tmp_path) == [temporary, name_of(1)]
    found = store(tmp_path, 2).load(pytest.fail)
    assert found is not None
    assert torch.equal(found.state["weights"], torch.full((1000,), 1))
    assert names(tmp_path) == [name_of(1)], "what the dead process left is gone"


def test_what_dead_writers_left_is_removed_and_what_a_successor_writes_is_not(
    tmp_path: Path,
) -> None:
    save(store(tmp_path), 1)
    for attempt in (1, 2, 3):
        (tmp_path / FOLDER / f".{name_of(2, attempt)}.tmp").write_bytes(b"half a file")
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 1)
    assert names(tmp_path) == [f".{name_of(2, 3)}.tmp", name_of(1)]
    store(tmp_path, 2).delete()
    assert not (tmp_path / FOLDER).exists()


def test_a_left_over_that_cannot_be_removed_costs_no_checkpoint(tmp_path: Path) -> None:
    save(store(tmp_path), 1)
    (tmp_path / FOLDER / f".{name_of(2)}.tmp").mkdir()
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 1)


def test_old_checkpoints_that_cannot_be_removed_are_no_failure_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(LocalFileSystem, "rm_file", refuse)
    for epochs in (1, 2, 3):
        save(store(tmp_path), epochs)
    assert is_what_was_saved(store(tmp_path, 2).load(pytest.fail), 3)


def test_a_study_folder_that_another_worker_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "digits-drg-01234567"
    real, removed = os.mkdir, list[Any]()

    def mkdir(path: Any, *arguments: Any, **more: Any) -> None:
        if Path(path) == tmp_path / FOLDER and not removed:
            removed.append(path)
            study.rmdir()
        real(path, *arguments, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    save(store(tmp_path), 1)
    assert removed
    assert is_what_was_saved(store(tmp_path).load(pytest.fail), 1)


@pytest.mark.parametrize("place", ["{folder}", "memory://bucket"])
def test_a_trials_checkpoints_can_be_deleted_twice_and_others_stay(
    place: str, tmp_path: Path, memory: Any
) -> None:
    (tmp_path / "kept").mkdir()
    url = place.format(folder=tmp_path / "kept")
    other = dataclasses.replace(OWNER, number=13)
    for owner in (OWNER, other):
        save(store(url, owner=owner), 1)
    for _ in range(2):
        store(url).delete()
        assert store(url).load(pytest.fail) is None
        assert is_what_was_saved(store(url, owner=other).load(pytest.fail), 1)
    store(url, owner=other).delete()
    assert not list((tmp_path / "kept").iterdir())
    assert not memory.store

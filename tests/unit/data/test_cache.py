from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from skdtune.data import atomic_folder, cache
from skdtune.data.atomic_folder import only_builder
from skdtune.data.cache import cached_image_set
from skdtune.data.images import ImageSet, image_set
from skdtune.errors import DataError

MakeImages = Callable[..., ImageSet]

BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from skdtune.data import cache
from skdtune.data.images import image_set

folder, mode = Path(sys.argv[1]), sys.argv[2]

def build(allocate):
    with open(folder / "log", "a") as log:
        log.write("built\\n")
    if mode == "hang":
        time.sleep(60)
    time.sleep(0.5)
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    return image_set(images, np.arange(24) % 3, ("class0", "class1", "class2"))

def half_write(filling, images):
    (filling / "images.npy").write_bytes(b"half")
    (folder / "writing").touch()
    time.sleep(60)

if mode == "half":
    cache._write = half_write
print(cache.cached_image_set(folder / "cache", "some-key", build).fingerprint)
"""


def start_builder(folder: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(folder), mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def never(_: object) -> NoReturn:
    raise AssertionError("built although the cache is there")


def test_the_second_time_it_is_mapped_from_the_disk(
    tmp_path: Path, make_images: MakeImages
) -> None:
    images = make_images()
    for build in (lambda _: images, never):
        cached = cached_image_set(tmp_path / "new" / "cache", "key", build)
        np.testing.assert_array_equal(cached.images_NCHW, images.images_NCHW)
        np.testing.assert_array_equal(cached.labels_N, images.labels_N)
        assert cached.class_names == images.class_names
        assert cached.fingerprint == images.fingerprint
        assert not cached.images_NCHW.flags.writeable
        base: object = cached.images_NCHW
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)


def _truncate(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def _remove_labels(folder: Path) -> None:
    (folder / "labels.npy").unlink()


def _garble_header(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(b"x" * path.stat().st_size)


def _empty_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("")


def _foreign_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("[1]")


def _older_format(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 0}))


def _other_shape(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "shape": [1, 2, 3, 4]}))


def _other_labels(folder: Path) -> None:
    np.save(folder / "labels.npy", np.zeros(24))


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _remove_labels,
        _garble_header,
        _empty_meta,
        _foreign_meta,
        _older_format,
        _other_shape,
        _other_labels,
    ],
)
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, make_images: MakeImages, damage: Callable[[Path], None]
) -> None:
    images = make_images()
    cached_image_set(tmp_path, "key", lambda _: images)
    damage(tmp_path / "key")
    cached = cached_image_set(tmp_path, "key", lambda _: images)
    np.testing.assert_array_equal(cached.images_NCHW, images.images_NCHW)
    cached_image_set(tmp_path, "key", never)


def test_two_processes_at_once_build_it_once(tmp_path: Path) -> None:
    builders = [start_builder(tmp_path, "whole") for _ in range(2)]
    outputs = [builder.communicate(timeout=60) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert (tmp_path / "log").read_text() == "built\n"


@pytest.mark.parametrize(("mode", "sign"), [("hang", "log"), ("half", "writing")])
def test_a_killed_builder_leaves_nothing_to_be_trusted(
    tmp_path: Path, make_images: MakeImages, mode: str, sign: str
) -> None:
    builder = start_builder(tmp_path, mode)
    wait_for(tmp_path / sign)
    builder.send_signal(signal.SIGKILL)
    builder.communicate(timeout=30)
    assert not (tmp_path / "cache" / "some-key").exists()
    images = make_images()
    cached = cached_image_set(tmp_path / "cache", "some-key", lambda _: images)
    assert cached.fingerprint == images.fingerprint
    assert not list((tmp_path / "cache").glob(".*.tmp"))


def test_who_waits_long_says_so_once(
    tmp_path: Path,
    make_images: MakeImages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(atomic_folder, "PATIENCE_S", 0.05)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with only_builder(tmp_path / "key", "the images"):
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    threading.Timer(0.5, release.set).start()
    cached_image_set(tmp_path, "key", lambda _: make_images())
    holder.join()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "waiting for another process that prepares the images of key\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, images: ImageSet) -> None:
        (folder / "images.npy").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space") as caught:
        cached_image_set(tmp_path / "cache", "key", lambda _: make_images())
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".key.lock"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, make_images: MakeImages) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the images of key to .*file"):
        cached_image_set(tmp_path / "file", "key", lambda _: make_images())


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, make_images: MakeImages) -> None:
    def fail(_: object) -> NoReturn:
        raise DataError("no data")

    with pytest.raises(DataError, match="no data"):
        cached_image_set(tmp_path, "key", fail)
    assert cached_image_set(tmp_path, "key", lambda _: make_images()).num_classes == 3


def test_a_disk_that_forgets_does_not_lose_the_images(
    tmp_path: Path, make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_read", lambda folder: None)
    images = make_images()
    assert cached_image_set(tmp_path, "key", lambda _: images) is images


def test_images_are_made_in_the_cache_itself(tmp_path: Path) -> None:
    """What does not fit in memory never has to."""

    def build(allocate: cache.Allocate) -> ImageSet:
        pixels_NHWC = allocate((2, 4, 4, 3))
        assert isinstance(pixels_NHWC, np.memmap)
        pixels_NHWC[:] = 7
        return image_set(pixels_NHWC, np.array([0, 1]), ("a", "b"))

    cached = cached_image_set(tmp_path, "key", build)
    assert bool((cached.images_NCHW == 7).all())
    assert np.load(tmp_path / "key" / "images.npy").shape == (2, 4, 4, 3)


def test_without_room_nothing_is_decoded(tmp_path: Path) -> None:
    def build(allocate: cache.Allocate) -> ImageSet:
        allocate((10**9, 1000, 1000, 3))
        raise AssertionError("went on without room")

    with pytest.raises(DataError, match=r"decoded images take 3.0 PB, and .* free: free space"):
        cached_image_set(tmp_path / "cache", "key", build)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".key.lock"]

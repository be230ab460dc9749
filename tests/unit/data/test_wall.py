from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from skdtune.catalogues.datasets import DATASETS
from skdtune.data import wall
from skdtune.data.catalogue import load_search_data, load_test_images
from skdtune.data.loading import load_part
from skdtune.describe.config import DataConfig
from skdtune.errors import InputError, TestSplitClosedError


def test_it_is_closed_but_for_the_block_that_opens_it() -> None:
    with pytest.raises(TestSplitClosedError):
        wall.require_open("test")
    with wall.test_split_open():
        wall.require_open("test")
        with wall.test_split_open():
            pass
        wall.require_open("test")
    with pytest.raises(TestSplitClosedError):
        wall.require_open("test")
    wall.require_open("train")


def test_it_closes_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), wall.test_split_open():
        raise ValueError("inside")
    with pytest.raises(TestSplitClosedError):
        wall.require_open("test")


def test_other_threads_find_it_closed() -> None:
    found: list[Exception] = []

    def look() -> None:
        try:
            wall.require_open("test")
        except TestSplitClosedError as error:
            found.append(error)

    with wall.test_split_open():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert len(found) == 1


def test_a_closed_wall_is_no_wrong_input() -> None:
    assert not issubclass(TestSplitClosedError, InputError)
    assert TestSplitClosedError.exit_code == 1


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_refused_before_anything_is_looked_for(
    name: str,
    tmp_path: Path,
    never_opened: Callable[[Path], AbstractContextManager[None]],
) -> None:
    config = DataConfig.model_validate({"name": name, "root": str(tmp_path), "download": False})
    folders: dict[str, Any] = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    with never_opened(tmp_path):
        with pytest.raises(TestSplitClosedError):
            load_test_images(config, **folders)
        with pytest.raises(TestSplitClosedError):
            load_part(config, "test", **folders)


def test_a_cache_that_holds_the_test_images_is_closed_too(tmp_path: Path) -> None:
    config = DataConfig(name="digits")
    folders: dict[str, Any] = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    with wall.test_split_open():
        assert len(load_test_images(config, **folders)) > 0
    with pytest.raises(TestSplitClosedError):
        load_test_images(config, **folders)
    assert len(load_search_data(config, **folders).train) > 0

"""Where files lie: the argument before the environment before the platform's usual folder."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from skdtune.home import (
    ARTIFACTS_VARIABLE,
    HOME_VARIABLE,
    STORAGE_VARIABLE,
    Home,
    artifacts_url,
    home,
    storage_url,
)


def test_the_argument_goes_before_the_environment(skdtune_home: Path, tmp_path: Path) -> None:
    assert home().path == skdtune_home
    assert home(str(tmp_path / "other")).path == tmp_path / "other"


def test_without_either_it_is_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE)
    assert home().path == Path(platformdirs.user_data_dir("skdtune"))


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "")
    monkeypatch.setenv(STORAGE_VARIABLE, "")
    assert home().path == Path(platformdirs.user_data_dir("skdtune"))
    assert storage_url() == home().storage_url


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert home("below").path == tmp_path / "below"


def test_a_tilde_is_the_persons_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home("~/skd").path == tmp_path / "skd"


def test_everything_lies_below_the_home(tmp_path: Path) -> None:
    folders = Home(tmp_path)
    below = [folders.data, folders.cache, folders.logs, folders.artifacts]
    assert [path.parent for path in below] == [tmp_path] * 4
    assert len(set(below)) == 4
    assert folders.storage_url == f"sqlite:///{tmp_path}/skdtune.db"


def test_asking_for_folders_makes_none(tmp_path: Path) -> None:
    folders = home(str(tmp_path / "new"))
    assert folders.data
    assert storage_url(at=folders)
    assert not (tmp_path / "new").exists()


def test_the_storage_is_the_argument_then_the_variable_then_the_file(
    monkeypatch: pytest.MonkeyPatch, skdtune_home: Path, tmp_path: Path
) -> None:
    assert storage_url() == f"sqlite:///{skdtune_home}/skdtune.db"
    assert storage_url(at=Home(tmp_path)) == f"sqlite:///{tmp_path}/skdtune.db"
    monkeypatch.setenv(STORAGE_VARIABLE, "postgresql://variable/db")
    assert storage_url(at=Home(tmp_path)) == "postgresql://variable/db"
    assert storage_url("postgresql://argument/db") == "postgresql://argument/db"


def test_artifacts_lie_where_the_argument_says_then_the_variable_then_in_the_home(
    monkeypatch: pytest.MonkeyPatch, skdtune_home: Path, tmp_path: Path
) -> None:
    assert artifacts_url() == str(skdtune_home / "artifacts")
    assert artifacts_url(at=Home(tmp_path)) == str(tmp_path / "artifacts")
    monkeypatch.setenv(ARTIFACTS_VARIABLE, "s3://variable/artifacts")
    assert artifacts_url(at=Home(tmp_path)) == "s3://variable/artifacts"
    assert artifacts_url("/argument") == "/argument"


@pytest.mark.parametrize("folder", ["plain", "with space", "what?", "50%20", "a#b", "ünï"])
def test_the_default_storage_lies_in_the_home_whatever_its_name(
    tmp_path: Path, folder: str
) -> None:
    from sqlalchemy.engine import make_url

    at = Home(tmp_path / folder)
    assert make_url(at.storage_url).database == str(tmp_path / folder / "skdtune.db")

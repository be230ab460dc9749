"""What every data set promises, built in or of an installed package: nothing here names one.

Facts are tried for all. What is loaded is tried where the data are at hand, or where
``tests/data_makers/<name>.py`` makes small ones in their published form.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from data_makers.made_data import MadeData

from skdtune.catalogues.datasets import DATASETS
from skdtune.data import wall
from skdtune.data.catalogue import load_search_data, load_test_images, load_training_images
from skdtune.data.data_set import data_set
from skdtune.data.duplicates import count_duplicates
from skdtune.data.images import ImageSet
from skdtune.data.look import look_at_data
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts, facts_of
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.errors import DataError, TestSplitClosedError

STUDIES = Path(__file__).parent.parent.parent / "studies" / "data"
MAKERS = Path(__file__).parent.parent / "data_makers"
#: Not in a bare install, or too slow where a study is only described.
HEAVY = {"torch", "torchvision", "numpy", "PIL", "sklearn", "scipy", "rich"}
NeverOpened = Callable[[Path], AbstractContextManager[None]]


def maker(name: str) -> Any:
    """Return what makes data of a data set; None if nothing does."""
    module = f"data_makers.{name}"
    return importlib.import_module(module).make if importlib.util.find_spec(module) else None


LOADABLE = [name for name in DATASETS if maker(name) or facts_of(name).is_at_hand]
MADE = [name for name in LOADABLE if maker(name)]


class Loaded:
    """The parts of one data set, as a search and as a final evaluation load them."""

    def __init__(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: MadeData | None = None
        if make := maker(name):
            self.made = make(tmp_path / "data", monkeypatch)
        self.about = facts_of(name)
        self.settings = {"name": name, **(self.made.settings if self.made else {})}
        self.folders = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}

    def config(self, **values: Any) -> DataConfig:
        return DataConfig.model_validate({**self.settings, **values})

    def train(self, **values: Any) -> ImageSet:
        return load_training_images(self.config(**values), **self.folders)

    def test(self, **values: Any) -> ImageSet:
        with wall.test_split_open():
            return load_test_images(self.config(**values), **self.folders)


def study_of(loaded: Loaded) -> StudySpec:
    overrides = [f"data.{key}={json.dumps(value)}" for key, value in loaded.settings.items()]
    return load_spec(f"{loaded.settings['name']}-baseline", overrides=overrides)


@pytest.fixture
def loaded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Loaded:
    return Loaded(request.param, tmp_path, monkeypatch)


every = pytest.mark.parametrize("name", DATASETS)
loadable = pytest.mark.parametrize("loaded", LOADABLE, indirect=True)
made = pytest.mark.parametrize("loaded", MADE, indirect=True)


def test_knowing_all_of_them_loads_nothing_heavy() -> None:
    code = (
        "import json, sys; from skdtune.catalogues.datasets import DATASETS; "
        "from skdtune.describe.data_facts import facts_of; "
        "names = [name for name in DATASETS if facts_of(name)]; "
        "print(json.dumps([names, sorted(name.partition('.')[0] for name in sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = json.loads(done.stdout)
    assert names == list(DATASETS)
    assert not HEAVY & set(modules)


def test_data_are_made_for_data_sets_only() -> None:
    makers = {path.stem for path in MAKERS.glob("*.py")}
    assert makers - {"made_data", "photographs"} <= set(DATASETS)


@every
def test_it_is_a_data_set_with_facts(name: str) -> None:
    about = data_set(name).about
    assert isinstance(about, DataFacts)
    assert about.title.strip()
    for number in (about.num_classes, about.num_train, about.num_test):
        assert number is None or number >= 2
    # Its size, its address and its licence are known unless it is the user's own.
    known = {about.num_classes, about.num_train, about.num_test, about.address, about.licence}
    assert about.needs_root or None not in known


@every
def test_it_has_presets(name: str) -> None:
    about = facts_of(name)
    if DATASETS.package(name) is None:
        parts = [yaml.safe_load(path.read_text())["data"]["name"] for path in STUDIES.iterdir()]
        assert name in parts
    if about.recipe is not None:
        published = yaml.safe_load((STUDIES / f"{about.recipe}.yaml").read_text())
        assert published["data"]["name"] == name
        assert published["extends"] == "recipe"


@every
def test_the_wall_is_closed_before_anything_is_opened(
    name: str, tmp_path: Path, never_opened: NeverOpened
) -> None:
    config = DataConfig.model_validate({"name": name, "root": str(tmp_path), "download": False})
    with never_opened(tmp_path), pytest.raises(TestSplitClosedError):
        load_test_images(config, data_dir=tmp_path, cache_dir=tmp_path / "cache")


@loadable
def test_it_gives_what_it_is_known_for(loaded: Loaded) -> None:
    train, test = loaded.train(), loaded.test()
    about = loaded.about
    assert train.class_names == test.class_names
    assert train.image_shape == test.image_shape
    assert about.num_classes in (None, train.num_classes)
    side = loaded.config().image_size
    assert train.image_shape == (about.image_shape or (3, side, side))
    if loaded.made is None:
        assert (len(train), len(test)) == (about.num_train, about.num_test)


@loadable
def test_images_are_bytes_and_classes_are_numbers_from_zero(loaded: Loaded) -> None:
    for part in (loaded.train(), loaded.test()):
        assert part.images_NCHW.dtype == np.uint8
        assert part.images_NCHW.transpose(0, 2, 3, 1).flags.c_contiguous
        assert part.labels_N.dtype == np.int64
        assert len(part.images_NCHW) == len(part.labels_N)
        assert set(part.labels_N.tolist()) == set(range(part.num_classes))


@loadable
def test_no_training_image_is_a_test_image(loaded: Loaded) -> None:
    train, test = loaded.train(), loaded.test()
    seen = {image.tobytes() for image in train.images_NCHW}
    assert not seen & {image.tobytes() for image in test.images_NCHW}


@made
def test_a_search_never_opens_the_test_part(loaded: Loaded, never_opened: NeverOpened) -> None:
    assert loaded.made is not None
    assert loaded.made.test_only.exists()
    with never_opened(loaded.made.test_only):
        spec = study_of(loaded)
        assert look_at_data([spec], data_dir=loaded.folders["data_dir"]) == []
        load_search_data(loaded.config(), **loaded.folders)
        count_duplicates(loaded.config(), is_tested=False, **loaded.folders)
        # A reader may take it for a damaged file.
        with pytest.raises((AssertionError, DataError), match="was opened"):
            loaded.test()


@made
def test_what_is_not_here_is_said_and_what_is_here_must_be_whole(loaded: Loaded) -> None:
    assert loaded.made is not None
    spec, data_dir, test_only = study_of(loaded), loaded.folders["data_dir"], loaded.made.test_only
    if loaded.made.is_missed:
        test_only.rename(data_dir.parent / "elsewhere")
        (said,) = look_at_data([spec, spec], data_dir=data_dir)
        assert said.startswith(f"{spec.data.name} has no test images here (there is no f")
        assert said.endswith(f"{test_only}): a search needs none, `skdtune evaluate` does")
    first = next(path for path in sorted(data_dir.rglob("*")) if path.is_file())
    kept = first.parent
    for path in [first, *kept.iterdir()]:
        if not path.is_dir():
            path.unlink(missing_ok=True)
    try:
        told = "; ".join(look_at_data([spec], data_dir=data_dir))
    except DataError as error:
        told = str(error)
    assert str(kept) in told
    data_dir.rename(data_dir.parent / "moved")
    (said,) = look_at_data([spec], data_dir=data_dir)
    assert said.startswith(f"the data of {spec.data.name} are not on this machine (there is no f")
    assert str(data_dir) in said


@loadable
def test_the_split_is_stratified(loaded: Loaded) -> None:
    data = load_search_data(loaded.config(val_fraction=0.25), **loaded.folders)
    both = np.bincount(data.train.labels_N) + np.bincount(data.val.labels_N)
    assert both.tolist() == np.bincount(loaded.train().labels_N).tolist()
    assert (abs(np.bincount(data.val.labels_N) - both / 4) <= 1).all()


@loadable
def test_limits_are_nested_and_for_training_images_only(loaded: Loaded) -> None:
    parts = [loaded.train(max_per_class=2), loaded.train(max_per_class=3), loaded.train()]
    bags = [{image.tobytes() for image in part.images_NCHW} for part in parts]
    assert bags[0] <= bags[1] <= bags[2]
    sizes_K = np.bincount(parts[2].labels_N)
    for limit, part in ((2, parts[0]), (3, parts[1])):
        assert np.bincount(part.labels_N).tolist() == np.minimum(sizes_K, limit).tolist()
    assert loaded.test(max_per_class=2).fingerprint == loaded.test().fingerprint


@loadable
def test_the_fingerprint_is_that_of_the_content_with_and_without_a_cache(
    loaded: Loaded, tmp_path: Path
) -> None:
    first = [loaded.train(), loaded.train(max_per_class=2, split_seed=1), loaded.test()]
    caches = sorted(path.name for path in (tmp_path / "cache").iterdir())
    for cache_dir in (tmp_path / "cache", tmp_path / "other"):
        loaded.folders["cache_dir"] = cache_dir
        again = [loaded.train(), loaded.train(max_per_class=2, split_seed=1), loaded.test()]
        assert [part.fingerprint for part in again] == [part.fingerprint for part in first]
        assert sorted(path.name for path in cache_dir.iterdir()) == caches
    assert len({part.fingerprint for part in first}) == 3

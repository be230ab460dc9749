from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from throwaway_package import Site

from skdtune.catalogues.datasets import DATASETS
from skdtune.data import wall
from skdtune.data.data_set import ArrayDataSet, DecodedPart, FileDataSet, FileListing, PartRequest
from skdtune.data.images import ImageSet, Split
from skdtune.data.loading import load_part
from skdtune.data.short_hash import short_hash
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts, facts_of
from skdtune.errors import DataError, InputError

PACKAGE = """
import numpy as np
from skdtune.data.data_set import ArrayDataSet, DecodedPart
from skdtune.describe.data_facts import DataFacts

class Stripes(ArrayDataSet):
    def decode(self, request):
        images_NHWC = np.full((12, 4, 4, 1), {pixel}, dtype=np.uint8)
        return DecodedPart(
            images_NHWC=images_NHWC, labels_N=np.arange(12) % 3, class_names=("a", "b", "c")
        )

STRIPES = Stripes(about=DataFacts(title="stripes"))
NO_DATA_SET = Stripes
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with two data sets, of which one is none."""

    def make(version: str, pixel: int) -> None:
        for path in tmp_path.glob("*/striped-*.dist-info"):
            path.rename(path.with_suffix(".gone"))
        site, module = Site(tmp_path / version, tmp_path / "home"), f"striped_{pixel}"
        offers = {"stripes/wide": f"{module}:STRIPES", "wrong": f"{module}:NO_DATA_SET"}
        files = {f"{module}.py": PACKAGE.format(pixel=pixel)}
        site.install("striped", files, {"skdtune.datasets": offers}, version)
        monkeypatch.syspath_prepend(site.folder)
        forget()

    def forget() -> None:
        for looked_up in ("_points", "_offered"):
            DATASETS.__dict__.pop(looked_up, None)

    yield make
    monkeypatch.undo()
    forget()


def load(name: str, tmp_path: Path, split: Split = "train", **values: Any) -> ImageSet:
    """Load a part of a data set that the settings, which were read earlier, do not list."""
    config = DataConfig.model_construct(name=name, **values)
    with wall.test_split_open():
        return load_part(config, split, data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


def test_the_cache_of_a_package_is_of_one_version(tmp_path: Path, install: Install) -> None:
    install("1.0", 1)
    assert load("stripes/wide", tmp_path).images_NCHW.max() == 1
    install("1.1", 2)
    assert load("stripes/wide", tmp_path).images_NCHW.max() == 2
    names = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())
    start = f"stripes%2Fwide-train-{short_hash('1')}"
    assert names == [f"{start}-striped-{version}" for version in ("1.0", "1.1")]


def test_what_is_no_data_set_is_named_with_its_package(tmp_path: Path, install: Install) -> None:
    install("1.0", 1)
    with pytest.raises(InputError) as caught:
        load("wrong", tmp_path)
    assert str(caught.value) == (
        "the data set 'wrong' of the package striped 1.0 is none: an entry point must name an "
        "object of skdtune.data.data_set.ArrayDataSet or FileDataSet, received ABCMeta"
    )
    with pytest.raises(InputError, match=r"'wrong' of the package striped 1.0 has no `about`"):
        facts_of("wrong")


class Given(ArrayDataSet):
    """Gives what a test wants it to."""

    def decode(self, request: PartRequest) -> DecodedPart:
        return given


class Listed(FileDataSet):
    """Lists what a test wants it to."""

    def list_files(self, request: PartRequest) -> FileListing:
        return given


given: Any = None
ABOUT = DataFacts(title="given", num_classes=2, image_shape=(3, 4, 4))


def part(**values: Any) -> DecodedPart:
    good: dict[str, Any] = {
        "images_NHWC": np.zeros((4, 4, 4, 3), dtype=np.uint8),
        "labels_N": np.array([0, 0, 1, 1]),
        "class_names": ("cat", "dog"),
    }
    return DecodedPart(**{**good, **values})


def listing(**values: Any) -> FileListing:
    good: dict[str, Any] = {
        "folder": Path("nowhere"),
        "paths": ("d", "b", "c", "a"),
        "labels": (1, 0, 1, 0),
        "class_names": ("cat", "dog"),
    }
    return FileListing(**{**good, **values})


WRONG: list[tuple[Any, str]] = [
    (None, "it is a DecodedPart, received NoneType"),
    (
        part(images_NHWC=np.zeros((4, 4, 4, 3))),
        "images are uint8 of shape (N, H, W, C), received float64 of shape (4, 4, 4, 3)",
    ),
    (
        part(images_NHWC=np.zeros((4, 3, 4, 4), dtype=np.uint8)),
        "images are known to be (3, 4, 4) (C, H, W), received uint8 of shape (4, 3, 4, 4)",
    ),
    (part(labels_N=[0, 0, 1, 1]), "labels are integers of shape (N,), received list"),
    (
        part(labels_N=np.zeros(4)),
        "labels are integers of shape (N,), received float64 of shape (4,)",
    ),
    (
        part(labels_N=np.array([0, 0, 1])),
        "each image has one label, received 4 images and int64 of shape (3,)",
    ),
    (part(labels_N=np.array([1, 1, 2, 2])), "labels of 2 classes are 0 to 1, received 2"),
    (part(labels_N=np.array([-1, 0, 1, 1])), "labels of 2 classes are 0 to 1, received -1"),
    (part(labels_N=np.array([0, 1, 1, 1])), "each class has 2 images or more, 'cat' has 1"),
    (part(class_names=("cat",)), "2 classes or more have names, received ('cat',)"),
    (part(class_names=(0, 1)), "2 classes or more have names, received (0, 1)"),
    (part(class_names=("a", "b", "c")), "it is known to have 2 classes, received 3"),
    (listing(paths=("a",)), "each image has one label, received 1 images and int64 of shape (4,)"),
    (
        listing(labels="cats"),
        "labels are integers of shape (N,), received <U4 of shape ()",
    ),
    (listing(labels=(0, 0, 0, 0)), "each class has 2 images or more, 'dog' has 0"),
]


@pytest.mark.parametrize(("wrong", "fault"), WRONG, ids=[fault for _, fault in WRONG])
def test_nonsense_is_refused_in_one_line_and_not_cached(
    wrong: Any, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Listed if isinstance(wrong, FileListing) else Given
    monkeypatch.setattr(DATASETS, "built_in", {"given": kind(about=ABOUT)})
    monkeypatch.setitem(globals(), "given", wrong)
    with pytest.raises(DataError) as caught:
        load("given", tmp_path)
    assert str(caught.value) == (
        f"the data set 'given' cannot be used, its train part is not as it must be: {fault}; "
        "tell its authors, or use another version"
    )
    assert not [path for path in tmp_path.glob("cache/*") if path.is_dir()]


def test_one_image_of_a_class_is_enough_for_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DATASETS, "built_in", {"given": Given(about=ABOUT)})
    monkeypatch.setitem(globals(), "given", part(labels_N=np.array([0, 1, 1, 1])))
    assert len(load("given", tmp_path, "test")) == 4


def test_files_are_put_in_the_order_of_class_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pixel, name in enumerate("abcd"):
        image = Image.new("RGB", (4, 4), (pixel, pixel, pixel))
        image.save(tmp_path / name, format="png")
    monkeypatch.setattr(DATASETS, "built_in", {"given": Listed(about=DataFacts(title="given"))})
    monkeypatch.setitem(globals(), "given", listing(folder=tmp_path))
    images = load("given", tmp_path, image_size=4)
    assert images.images_NCHW[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert images.labels_N.tolist() == [0, 0, 1, 1]


def test_facts_that_cannot_be_asked_for_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody:
        @property
        def about(self) -> DataFacts:
            raise RuntimeError("not\ntoday")

    monkeypatch.setattr(DATASETS, "built_in", {"moody": Moody()})
    expected = "^the data set 'moody' cannot say what is known of it: RuntimeError: not today$"
    with pytest.raises(InputError, match=expected):
        facts_of("moody")

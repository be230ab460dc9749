from __future__ import annotations

import json
from typing import Any

import pytest

from skdtune.describe.data_source import ClassSource, DataSource, refusal


def source(*classes: tuple[str, int, str], folder: str = "") -> DataSource:
    return DataSource(classes=tuple(ClassSource(*one) for one in classes), folder=folder)


PETS = source(("cat", 3, "aa"), ("dog", 4, "bb"))


@pytest.mark.parametrize(
    ("found", "name", "said"),
    [
        (source(("cat", 3, "aa"), ("dog", 4, "cc")), "dog", "the images of class 'dog' are other"),
        (source(("cat", 2, "zz"), ("dog", 4, "cc")), "cat", "class 'cat' has 2 of them, not 3"),
        (source(("cat", 3, "aa")), "dog", "class 'dog' is missing"),
        (source(("ant", 1, "dd"), *[("cat", 3, "aa"), ("dog", 4, "bb")]), "ant", "'ant' is new"),
        (source(("dog", 4, "bb"), ("cat", 3, "aa")), "", "the classes are in another order"),
    ],
)
def test_the_first_class_that_differs_is_named(found: DataSource, name: str, said: str) -> None:
    assert found != PETS
    assert found.digest != PETS.digest
    assert PETS.first_difference(found)[0] == name
    assert said in PETS.first_difference(found)[1]


def test_a_refusal_says_what_where_and_what_to_do() -> None:
    found = source(("cat", 2, "zz"), folder="/data/pets/train")
    assert refusal("pets", "train", PETS, found, "cat/1.png is gone") == (
        "study 'pets' was begun with other training images than /data/pets/train has now: class "
        "'cat' has 2 of them, not 3 (cat/1.png is gone); use the same data, or create a new study"
    )
    assert refusal("pets.test", "test", PETS, found).endswith("evaluate under another --name")


def test_what_is_stored_is_read_back_wherever_the_images_lie() -> None:
    here = source(("cat", 3, "aa"), ("dog", 4, "bb"), folder="/here")
    stored = json.loads(json.dumps(here.to_plain()))
    assert DataSource.from_plain(stored) == here == PETS
    assert DataSource.from_plain(stored).digest == here.digest


DAMAGED: list[Any] = [
    None,
    [],
    "text",
    7,
    {},
    {"digest": PETS.digest},
    {"digest": PETS.digest, "classes": None},
    {"digest": PETS.digest, "classes": [["cat", 3]]},
    {"digest": PETS.digest, "classes": [["cat", 4, "aa"], ["dog", 4, "bb"]]},
    {"digest": "0", "classes": PETS.to_plain()["classes"]},
    {"digest": source((7, "3", None)).digest, "classes": [[7, "3", None]]},  # type: ignore[arg-type]
]


@pytest.mark.parametrize("stored", DAMAGED)
def test_what_is_damaged_is_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match=r"classes|digest"):
        DataSource.from_plain(stored)

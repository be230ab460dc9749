"""A study outlives the settings that came after it, and the tampering with it does not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from skdtune.describe.spec import StudySpec, spec_from_json, stored_digest
from skdtune.errors import SpecError, StudyError
from skdtune.queue import schema
from skdtune.queue.storage import init_storage
from skdtune.queue.stored_study import create_study, load_study, study_names
from skdtune.queue.stored_study import expand_family as expand
from skdtune.queue.study_attributes import DIGEST_ATTRIBUTE, SPEC_ATTRIBUTE

MakeSpec = Callable[..., StudySpec]

OLDER = json.loads((Path(__file__).parent / "data" / "spec-of-an-older-version.json").read_text())


def of_family(spec: StudySpec) -> StudySpec:
    return spec.model_copy(update={"family": "kin"})


def make_old(url: str) -> None:
    """Put all that skdtune keeps of its studies where it was once, among what people see."""
    old, new = schema.study_user_attributes, schema.study_system_attributes
    ours = new.c.key.like("skdtune:%")
    storage = init_storage(url)
    with storage.engine.begin() as connection:
        rows = connection.execute(sa.select(new).where(ours)).mappings().all()
        kept = [{k: row[k] for k in ("study_id", "key", "value_json")} for row in rows]
        assert kept
        connection.execute(sa.insert(old), kept)
        connection.execute(sa.delete(new).where(ours))
    storage.engine.dispose()


def overwrite(url: str, key: str, value: object) -> None:
    storage = init_storage(url)
    with storage.engine.begin() as connection:
        for table in (schema.study_user_attributes, schema.study_system_attributes):
            connection.execute(
                sa.update(table).where(table.c.key == key).values(value_json=json.dumps(value))
            )
    storage.engine.dispose()


def test_the_hash_of_a_stored_spec_is_that_of_its_text() -> None:
    assert stored_digest(OLDER["text"]) == OLDER["digest"]
    # Settings that came later are at their defaults, and change nothing about the method.
    spec = spec_from_json(OLDER["text"])
    assert set(spec.method.terms()) == {"label", "drg", "dsr"}
    assert spec.method.batch_plan == "plain"


def test_a_new_spec_has_one_hash(make_spec: MakeSpec) -> None:
    spec = make_spec()
    assert stored_digest(spec.to_json()) == spec.digest


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_has_no_hash(text: str) -> None:
    with pytest.raises(SpecError, match="not a study spec"):
        stored_digest(text)


def test_a_study_of_an_older_version_is_opened(ready_url: str, make_spec: MakeSpec) -> None:
    create_study(make_spec(name="digits-drg-dsr"), storage=ready_url)
    make_old(ready_url)
    overwrite(ready_url, SPEC_ATTRIBUTE, OLDER["text"])
    overwrite(ready_url, DIGEST_ATTRIBUTE, OLDER["digest"])
    stored = load_study("digits-drg-dsr", storage=ready_url)
    assert stored.spec.method.drg is not None
    stored.close()


def test_an_older_study_that_was_changed_is_still_refused(
    ready_url: str, make_spec: MakeSpec
) -> None:
    create_study(make_spec(name="digits-drg-dsr"), storage=ready_url)
    overwrite(ready_url, SPEC_ATTRIBUTE, OLDER["text"].replace('"epochs": 12', '"epochs": 13'))
    overwrite(ready_url, DIGEST_ATTRIBUTE, OLDER["digest"])
    with pytest.raises(StudyError, match="changed after it was created"):
        load_study("digits-drg-dsr", storage=ready_url)


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"spec": 3}', '{"spec": {"family": 3}}'])
def test_a_row_that_nobody_can_read_is_no_member_of_a_family(
    ready_url: str, make_spec: MakeSpec, text: str
) -> None:
    create_study(make_spec(name="broken"), storage=ready_url)
    overwrite(ready_url, SPEC_ATTRIBUTE, text)
    create_study(of_family(make_spec(name="member")), storage=ready_url)
    assert expand("kin", storage=ready_url) == ["member"]


def test_the_name_of_a_family_where_a_study_is_wanted_lists_its_members(
    ready_url: str, make_spec: MakeSpec
) -> None:
    for name in ("kin-a", "kin-b"):
        create_study(of_family(make_spec(name=name)), storage=ready_url)
    with pytest.raises(StudyError, match="family of studies; name one of them: kin-a, kin-b"):
        load_study("kin", storage=ready_url)


# Where the spec stands


def test_a_spec_among_the_user_attributes_is_read_there(
    ready_url: str, make_spec: MakeSpec
) -> None:
    specs = [of_family(make_spec(name=name)) for name in ("kin-a", "kin-b")]
    create_study(specs[0], storage=ready_url)
    make_old(ready_url)
    create_study(specs[1], storage=ready_url)
    for spec in specs:
        stored = load_study(spec.name, storage=ready_url)
        assert stored.spec == spec
        assert study_names(stored.storage) == ["kin-a", "kin-b"]
        stored.close()
        assert create_study(spec, storage=ready_url) is False
    assert expand("kin", storage=ready_url) == ["kin-a", "kin-b"]


def test_a_spec_that_somebody_puts_among_the_user_attributes_does_not_win(
    ready_url: str, make_spec: MakeSpec
) -> None:
    spec, forged = make_spec(), of_family(make_spec(num_trials=99))
    create_study(spec, storage=ready_url)
    with contextlib.closing(load_study("tiny", storage=ready_url)) as stored:
        stored.study.set_user_attr(SPEC_ATTRIBUTE, forged.to_json())
    with contextlib.closing(load_study("tiny", storage=ready_url)) as stored:
        assert stored.spec == spec
        assert study_names(stored.storage) == ["tiny"]
    assert expand("kin", storage=ready_url) == ["kin"], "the forged one is of that family"
    # With a hash that fits it, neither is taken.
    overwrite(ready_url, DIGEST_ATTRIBUTE, forged.digest)
    with pytest.raises(StudyError, match="changed after it was created"):
        load_study("tiny", storage=ready_url)

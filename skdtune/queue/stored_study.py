"""Create a study with its spec and its queue of trials, and read it back."""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

import skdtune
from skdtune.describe import dotted
from skdtune.describe.kinds.catalogue import is_search, settings_of
from skdtune.describe.packages import differs, other_versions, what_is_missing
from skdtune.describe.spec import StudySpec, spec_from_json, stored_digest
from skdtune.describe.training_length import most_training_images, require_long_enough
from skdtune.errors import InputError, SpecError, StudyError
from skdtune.home import storage_url
from skdtune.queue import schema
from skdtune.queue.events import record_copies
from skdtune.queue.leases import upsert
from skdtune.queue.pinned_source import inherit_pin
from skdtune.queue.storage import DATABASE_ERRORS, open_storage, set_up
from skdtune.queue.study_attributes import (
    DIGEST_ATTRIBUTE,
    PACKAGES_ATTRIBUTE,
    SPEC_ATTRIBUTE,
    raw_spec,
    read_attributes,
    stored_specs,
    system_attributes,
    user_attributes,
)
from skdtune.queue.trial_attributes import QUEUED_PARAMS


@dataclass(frozen=True)
class StoredStudy:
    """A study of the storage together with its spec."""

    storage: RDBStorage
    study: optuna.Study
    spec: StudySpec
    """Its spec, with the names that it and the study behind it have now."""

    lineage: str
    """Token of the study's creation: another study of the same name has another one."""

    digest: str
    """Hash of its spec as it was created; a new name does not change it."""

    @property
    def study_id(self) -> int:
        """Key of the study in the storage."""
        return self.study._study_id

    @property
    def engine(self) -> sa.Engine:
        """Engine of the storage."""
        engine: sa.Engine = self.storage.engine
        return engine

    def close(self) -> None:
        """Close the connections to the storage."""
        self.engine.dispose()


def create_study(spec: StudySpec, *, storage: str | None = None) -> bool:
    """Create a study: its spec, its note for the dashboard, and exactly N waiting trials.

    All of it is one transaction: a study is either there and complete, or not there.

    Args:
        spec: What the study searches.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Returns:
        True if the study was created, False if it was there with the same spec.

    Raises:
        StudyError: If a study of that name exists with another spec.
        SpecError: If there are too few images for its method to do anything.
        StorageError: If the storage cannot be used.
    """
    return bool(create_studies([spec], storage=storage))


def create_studies(specs: Sequence[StudySpec], *, storage: str | None = None) -> list[str]:
    """Create several studies in one transaction: all that are missing, or none.

    Args:
        specs: What they search.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Returns:
        Names of the studies that were created; the others were there with the same spec.

    Raises:
        StudyError: If a study exists with another spec, or a budget is not planned yet.
        SpecError: If there are too few images for a method to do anything.
        StorageError: If the storage cannot be used.
    """
    for spec in specs:
        if spec.budget.is_open:
            raise StudyError(
                f"{spec.name}: its budget is in images or seconds; plan_budget(spec) turns it "
                "into epochs first"
            )
    with set_up(storage_url(storage)) as connection:
        return [spec.name for spec in specs if _create(connection, spec)]


def _create(connection: sa.Connection, spec: StudySpec) -> bool:
    """Create a study, or prove that it is there already with the same spec."""
    studies = schema.studies
    key = sa.select(studies.c.study_id).where(studies.c.study_name == spec.name)
    study_id = connection.scalar(key)
    if study_id is not None:
        _refuse_other_spec(connection, study_id, spec)
        return False
    # Of a study that is there already, its workers say so.
    num_images = most_training_images(spec)
    if num_images is not None:
        require_long_enough(spec, num_images)
    _insert_study(connection, spec)
    inherit_pin(connection, spec, int(connection.scalar(key) or 0))
    return True


def load_study(name: str, *, storage: str | None = None) -> StoredStudy:
    """Open a study by name, with the spec that the storage holds.

    Raises:
        StudyError: If there is no such study, or it was not made by skdtune.
        StorageError: If the storage cannot be used.
    """
    opened = open_storage(storage_url(storage))
    try:
        return load_from(opened, name)
    except BaseException:
        opened.engine.dispose()
        raise


def load_from(opened: RDBStorage, name: str) -> StoredStudy:
    """Read a study of a storage that is open; its connections are those of the storage.

    Raises:
        StudyError: If there is no such study, or it was not made by skdtune.
    """
    try:
        study = optuna.load_study(study_name=name, storage=opened)
    except KeyError:
        raise StudyError(unknown_study(opened, name)) from None
    with opened.engine.connect() as connection:
        attributes = read_attributes(connection, study._study_id)
    text = attributes.get(SPEC_ATTRIBUTE)
    if text is None:
        raise StudyError(f"study {name!r} was not created by skdtune: it holds no spec")
    needed = attributes.get(PACKAGES_ATTRIBUTE)
    try:
        spec = spec_from_json(text)
    except InputError as error:
        missing = what_is_missing(needed)
        other = other_versions(needed)
        if isinstance(error, SpecError) and not missing and not other:
            raise
        why = f"{error}; {other}" if other else str(error)
        raise StudyError(f"study {name!r}: {missing or why}") from None
    if other := differs(spec, needed):
        raise StudyError(f"study {name!r}: {other}")
    digest = stored_digest(text)
    if digest != attributes.get(DIGEST_ATTRIBUTE):
        raise StudyError(f"study {name!r}: its spec was changed after it was created")
    study.pruner = spec.effective_pruner.build(spec.budget.epochs)
    spec = spec.called(name, find_name(opened.engine, spec.kind.source_lineage))
    lineage = find_lineage(opened.engine, study._study_id)
    if lineage is None:
        lineage = _adopt(opened.engine, study._study_id, digest)
    return StoredStudy(opened, study, spec, lineage, digest)


def _adopt(engine: sa.Engine, study_id: int, digest: str) -> str:
    """Give a token to a study that somebody copied with other means than ours.

    It goes on with the token of the study that it is a copy of, if that is gone and its final
    evaluation knows it: so optuna-dashboard renames one.

    Returns:
        Its token; empty where nothing can be written.
    """
    own, studies = schema.own_studies, schema.studies
    living = sa.select(own.c.lineage).join(studies, studies.c.study_id == own.c.study_id)
    with contextlib.suppress(*DATABASE_ERRORS), engine.begin() as connection:
        taken = set(connection.scalars(living))
        sources = [settings_of(one.raw) for one in raw_studies(connection)]
        free = (
            str(source.get("lineage"))
            for source in sources
            if source.get("digest") == digest and source.get("lineage") not in taken
        )
        row = {"study_id": study_id, "lineage": next(free, secrets.token_hex(16))}
        adopting = upsert(engine.dialect.name, own).on_conflict_do_nothing()
        if connection.execute(adopting, row).rowcount:
            record_copies(connection, study_id)
    return find_lineage(engine, study_id) or ""


def require_packages(stored: StoredStudy) -> None:
    """Refuse to train without a package that the study needs.

    Raises:
        StudyError: If one is missing, or offers what is needed no more.
    """
    with stored.engine.connect() as connection:
        needed = read_attributes(connection, stored.study_id).get(PACKAGES_ATTRIBUTE)
    if missing := what_is_missing(needed):
        raise StudyError(f"study {stored.spec.name!r}: {missing}")


def find_lineage(engine: sa.Engine, study_id: int) -> str | None:
    """Return the token of a study's creation, None if there is no such study any more."""
    with engine.connect() as connection:
        return _lineage(connection, study_id)


def require_same(connection: sa.Connection, stored: StoredStudy) -> None:
    """Refuse a study that is not the one any more that was opened.

    SQLite gives the key of a deleted study out again: a worker of the old one would train a trial
    of the new one.

    Raises:
        StudyError: If it was deleted, or made anew under its name.
    """
    name, lineage = stored.study.study_name, _lineage(connection, stored.study_id)
    if lineage is None:
        raise StudyError(f"study {name!r} was deleted while this worker ran")
    if lineage != stored.lineage:
        raise StudyError(f"study {name!r} was made anew while this worker ran; start it again")


def _lineage(connection: sa.Connection, study_id: int) -> str | None:
    own, studies = schema.own_studies, schema.studies
    return connection.scalar(
        sa.select(own.c.lineage)
        .join(studies, studies.c.study_id == own.c.study_id)
        .where(own.c.study_id == study_id)
    )


def find_name(engine: sa.Engine, lineage: str | None) -> str | None:
    """Return what the study of a token is called now, None if there is no such study."""
    if not lineage:
        return None
    own, studies = schema.own_studies, schema.studies
    query = (
        sa.select(studies.c.study_name)
        .join(own, studies.c.study_id == own.c.study_id)
        .where(own.c.lineage == lineage)
    )
    with engine.connect() as connection:
        return connection.scalar(query)


def study_names(storage: RDBStorage) -> list[str]:
    """List the studies of a storage that skdtune made, oldest first."""
    specs = stored_specs()
    query = (
        sa.select(schema.studies.c.study_name)
        .join(specs, specs.c.study_id == schema.studies.c.study_id)
        .order_by(schema.studies.c.study_id)
    )
    with storage.engine.connect() as connection:
        return [row.study_name for row in connection.execute(query)]


def expand_family(name: str, *, storage: str | None = None) -> list[str]:
    """Return the studies that a name stands for: the one of that name, else all of a family.

    Args:
        name: Name of a study, or the family of several that were created together.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Returns:
        The names, oldest study first; the name itself if it is neither, for whoever opens it to
        say so.

    Raises:
        StorageError: If the storage cannot be used.
    """
    return expand_families([name], storage=storage)


def expand_families(names: Sequence[str], *, storage: str | None = None) -> list[str]:
    """Return the studies that several names stand for, as `expand_family` does; each once."""
    opened = open_storage(storage_url(storage))
    try:
        return list(dict.fromkeys(one for name in names for one in names_meant(opened, name)))
    finally:
        opened.engine.dispose()


def names_meant(opened: RDBStorage, name: str) -> list[str]:
    """Do as `expand_family` in a storage that is open already."""
    names = study_names(opened)
    if name in names:
        return [name]
    return _members_of(opened, name) or [name]


@dataclass(frozen=True)
class RawStudy:
    """A study of skdtune's as the storage has it: nobody has validated its spec."""

    study_id: int
    name: str
    raw: Mapping[str, Any]
    """Its spec as plain data; empty where that cannot be read."""


def raw_studies(connection: sa.Connection) -> list[RawStudy]:
    """List the studies that hold a spec, oldest first."""
    specs = stored_specs()
    query = (
        sa.select(schema.studies.c.study_id, schema.studies.c.study_name, specs.c.value_json)
        .join(specs, specs.c.study_id == schema.studies.c.study_id)
        .order_by(specs.c.study_id)
    )
    return [
        RawStudy(study_id, name, raw_spec(text) or {})
        for study_id, name, text in connection.execute(query).all()
    ]


def _members_of(opened: RDBStorage, family: str) -> list[str]:
    """List the studies of a family, oldest first; rows that nobody can read are none."""
    with opened.engine.connect() as connection:
        every = raw_studies(connection)
    return [one.name for one in every if one.raw.get("family") == family and is_search(one.raw)]


def unknown_study(storage: RDBStorage, name: str) -> str:
    """Say that there is no such study, and which one may be meant."""
    names = study_names(storage)
    members = _members_of(storage, name)
    if members:
        return f"{name!r} is a family of studies; name one of them: {', '.join(members)}"
    near = dotted.nearest(name, names)
    hint = f"did you mean {near!r}?" if near else "`skdtune status` lists the studies"
    return f"there is no study {name!r} in this storage; {hint}"


def _refuse_other_spec(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    stored = read_attributes(connection, study_id).get(SPEC_ATTRIBUTE)
    if stored is None:
        raise StudyError(
            f"study {spec.name!r} exists and was not created by skdtune; choose another --name"
        )
    try:
        there = spec_from_json(stored).called(spec.name, spec.kind.source)
        difference = describe_difference(there, spec)
    except SpecError as error:
        difference = str(error)
    if difference:
        only = difference.startswith("num_trials:") and ";" not in difference
        remedy = f"`skdtune budget {spec.name} {spec.num_trials}` changes that" if only else ""
        raise StudyError(
            f"study {spec.name!r} exists with another spec ({difference}); "
            f"{remedy or 'choose another --name'}"
        )


def describe_difference(old: StudySpec, new: StudySpec) -> str:
    """Say in one line where two specs differ; empty if they do not."""
    before = dotted.flatten(old.model_dump(mode="json"))
    after = dotted.flatten(new.model_dump(mode="json"))
    changed = [
        f"{path}: {before.get(path, 'unset')} there, {after.get(path, 'unset')} here"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    shown = "; ".join(changed[:5])
    return shown + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")


def _insert_study(connection: sa.Connection, spec: StudySpec) -> None:
    inserted = connection.execute(sa.insert(schema.studies).values(study_name=spec.name))
    study_id = int((inserted.inserted_primary_key or [0])[0])
    connection.execute(
        sa.insert(schema.study_directions).values(
            study_id=study_id, direction=StudyDirection.MAXIMIZE, objective=0
        )
    )
    # SQLite gives the keys of deleted trials out again: their workers must not reach into these.
    existing = sa.select(schema.trials.c.trial_id)
    connection.execute(sa.delete(schema.leases).where(schema.leases.c.trial_id.not_in(existing)))
    for table, attributes in (
        (schema.study_user_attributes, user_attributes(spec, versions())),
        (schema.study_system_attributes, system_attributes(spec)),
    ):
        connection.execute(
            sa.insert(table),
            [
                {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
                for key, value in attributes.items()
            ],
        )
    for table in (schema.own_studies, schema.events):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    connection.execute(
        sa.insert(schema.own_studies).values(study_id=study_id, lineage=secrets.token_hex(16))
    )
    fixed = [spec.base_params(), *spec.enqueue]
    add_trials(connection, study_id, range(spec.num_trials), fixed)


def add_trials(
    connection: sa.Connection,
    study_id: int,
    numbers: range,
    fixed: Sequence[Mapping[str, object]] = (),
) -> None:
    """Queue blank trials; their parameters are sampled when a worker claims them.

    Args:
        connection: The transaction to do it in.
        study_id: Key of the study.
        numbers: The numbers of the new trials.
        fixed: Parameters of the first of them.
    """
    connection.execute(
        sa.insert(schema.trials),
        [
            {"study_id": study_id, "number": number, "state": TrialState.WAITING}
            for number in numbers
        ],
    )
    ids = connection.scalars(
        sa.select(schema.trials.c.trial_id)
        .where(schema.trials.c.study_id == study_id, schema.trials.c.number >= numbers.start)
        .order_by(schema.trials.c.number)
        .limit(len(fixed))
    ).all()
    rows = [
        {"trial_id": trial_id, "key": QUEUED_PARAMS, "value_json": json.dumps(params)}
        for trial_id, params in zip(ids, fixed, strict=False)
        if params
    ]
    if rows:
        connection.execute(sa.insert(schema.trial_system_attributes), rows)


def versions() -> dict[str, str]:
    """Return the versions that a study or a trial was made with."""
    return {
        "skdtune": skdtune.__version__,
        "optuna": optuna.__version__,
        "python": platform.python_version(),
    }

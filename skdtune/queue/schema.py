"""The tables a study lives in: Optuna's, as installed, and skdtune's own beside them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

#: Version of skdtune's own tables; a newer one in the database is refused.
SCHEMA_VERSION = 1

# Optuna keeps its tables private; the version range in pyproject.toml and the contract tests
# guard the few columns that the queue relies on.
studies: sa.Table = models.StudyModel.__table__
study_directions: sa.Table = models.StudyDirectionModel.__table__
study_user_attributes: sa.Table = models.StudyUserAttributeModel.__table__
study_system_attributes: sa.Table = models.StudySystemAttributeModel.__table__
trials: sa.Table = models.TrialModel.__table__
params: sa.Table = models.TrialParamModel.__table__
steps: sa.Table = models.TrialIntermediateValueModel.__table__
values: sa.Table = models.TrialValueModel.__table__
trial_user_attributes: sa.Table = models.TrialUserAttributeModel.__table__
trial_system_attributes: sa.Table = models.TrialSystemAttributeModel.__table__


def _referring_to(table: sa.Table) -> tuple[sa.Table, ...]:
    every = reversed(table.metadata.sorted_tables)
    return tuple(t for t in every if any(k.column.table is table for k in t.foreign_keys))


#: Every table of Optuna's whose rows belong to a trial, and those whose rows belong to a study,
#: the trials themselves among them.
TABLES_OF_TRIALS = _referring_to(trials)
TABLES_OF_STUDIES = _referring_to(studies)

#: States that a trial does not leave any more.
FINISHED = tuple(state for state in TrialState if state.is_finished())

_metadata = sa.MetaData()

leases = sa.Table(
    "skdtune_lease",
    _metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("owner", sa.String(64), comment="token of the worker; null while nobody holds it"),
    sa.Column("attempt", sa.Integer, nullable=False, comment="claims of this trial so far"),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("device", sa.String(64), nullable=False),
    sa.Column("claimed_at", sa.Float(53), nullable=False, comment="seconds of the database clock"),
    sa.Column("renewed_at", sa.Float(53), nullable=False, comment="seconds of the database clock"),
    sa.Column("lease_s", sa.Float(53), nullable=False, comment="silence after which it is lost"),
)

events = sa.Table(
    "skdtune_event",
    _metadata,
    sa.Column("event_id", sa.Integer, primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("trial_id", sa.Integer, nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at", sa.Float(53), nullable=False, comment="seconds of the database clock"),
    sa.Column("kind", sa.String(32), nullable=False, comment="see EventKind"),
    sa.Column("final", sa.Boolean, nullable=False, comment="the trial ended with it"),
    sa.Column("epochs", sa.Integer, nullable=False, comment="epochs finished by then"),
    sa.Column("worker", sa.String(400), nullable=False, comment="host, process and device"),
    sa.Column("detail", sa.Text, nullable=False, comment="a sentence, or JSON"),
    sa.Index("skdtune_event_by_study", "study_id", "event_id"),
)

own_studies = sa.Table(
    "skdtune_study",
    _metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("lineage", sa.String(32), nullable=False, comment="token of its creation"),
    sa.Column("paused", sa.Text, comment="why nobody takes its trials; null while they may"),
)

version = sa.Table(
    "skdtune_version",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
)


#: Finding the next waiting trial, and the newest that was begun, must not take longer in a study
#: of ten thousand trials. They are on Optuna's table, which has no index by state.
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS skdtune_waiting ON trials (study_id, number) "
    "WHERE state = 'WAITING'",
    "CREATE INDEX IF NOT EXISTS skdtune_begun ON trials (study_id, trial_id) "
    "WHERE state <> 'WAITING'",
)


_SQLITE_NOW: sa.ColumnElement[Any] = sa.literal_column(
    "((julianday('now') - 2440587.5) * 86400.0)"
)
_POSTGRES_NOW: sa.ColumnElement[Any] = sa.literal_column(
    "extract(epoch from clock_timestamp())::float8"
)


def create_own_tables(engine: sa.Engine) -> None:
    """Create skdtune's tables where they are missing and note their version."""
    _metadata.create_all(engine)
    with engine.begin() as connection:
        for index in _INDEXES:
            connection.execute(sa.text(index))
        if connection.scalar(sa.select(version.c.schema_version)) is None:
            connection.execute(sa.insert(version).values(id=1, schema_version=SCHEMA_VERSION))


def own_version(connection: sa.Connection) -> int | None:
    """Return the version of skdtune's tables in a database, None before they exist."""
    return connection.scalar(sa.select(version.c.schema_version))


def now(connection: sa.Connection) -> sa.ColumnElement[Any]:
    """Return the database's own clock in seconds since 1970, so that no worker's clock counts."""
    return _SQLITE_NOW if connection.dialect.name == "sqlite" else _POSTGRES_NOW

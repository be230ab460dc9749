"""The tables a study lives in: Optuna's, as installed, and skdtune's own lease and version."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models

#: Version of skdtune's own tables; a newer one in the database is refused.
SCHEMA_VERSION = 1

# Optuna keeps its tables private; the version range in pyproject.toml and the contract tests
# guard the few columns that the queue relies on.
studies: sa.Table = models.StudyModel.__table__
study_directions: sa.Table = models.StudyDirectionModel.__table__
study_user_attributes: sa.Table = models.StudyUserAttributeModel.__table__
study_system_attributes: sa.Table = models.StudySystemAttributeModel.__table__
trials: sa.Table = models.TrialModel.__table__
steps: sa.Table = models.TrialIntermediateValueModel.__table__
values: sa.Table = models.TrialValueModel.__table__
trial_system_attributes: sa.Table = models.TrialSystemAttributeModel.__table__

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
)

version = sa.Table(
    "skdtune_version",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
)


def create_own_tables(engine: sa.Engine) -> None:
    """Create skdtune's tables where they are missing and note their version."""
    _metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.scalar(sa.select(version.c.schema_version)) is None:
            connection.execute(sa.insert(version).values(id=1, schema_version=SCHEMA_VERSION))


def own_version(connection: sa.Connection) -> int | None:
    """Return the version of skdtune's tables in a database, None before they exist."""
    return connection.scalar(sa.select(version.c.schema_version))


def now(connection: sa.Connection) -> sa.ColumnElement[Any]:
    """Return the database's own clock in seconds since 1970, so that no worker's clock counts."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)")
    return sa.literal_column("extract(epoch from clock_timestamp())::float8")

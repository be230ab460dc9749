"""The tables a study lives in: Optuna's, as installed, and skdtune's own beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

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


def optunas_migrations() -> ScriptDirectory:
    """Return the versions of Optuna's tables that the installed Optuna knows."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(models.__file__).parent / "alembic"))


def has_optunas_tables(connection: sa.Connection) -> bool:
    """Tell whether Optuna's tables are there, and whoever made them got as far as to say so."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(studies.name) or not inspector.has_table("alembic_version"):
        return False
    return connection.execute(sa.text("SELECT 1 FROM alembic_version")).first() is not None


def create_optunas_tables(connection: sa.Connection) -> None:
    """Create Optuna's tables where they are missing, as its own storage does, in a transaction.

    Optuna needs several connections and transactions for that, one within the other.
    """
    from alembic.runtime.migration import MigrationContext

    models.BaseModel.metadata.create_all(connection)
    info, script = models.VersionInfoModel.__table__, optunas_migrations()
    known = connection.scalar(sa.select(info.c.schema_version))
    if known is None:
        versions = {"schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
        connection.execute(sa.insert(info).values(version_info_id=1, **versions))
    # Tables that are older than these versions are of the first one.
    is_new = known in (None, models.SCHEMA_VERSION)
    revision = script.get_current_head() if is_new else script.get_base()
    MigrationContext.configure(connection).stamp(script, str(revision))


def upgrade_optunas_tables(connection: sa.Connection) -> None:
    """Bring Optuna's tables to the installed version, as its own storage does, in a transaction.

    Optuna opens a connection of its own for that, which behind a pooler may wait for this one.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    script, info = optunas_migrations(), models.VersionInfoModel.__table__

    def to_head(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(Config(), script, fn=to_head, destination_rev="head") as environment:
        # As Optuna's own `env.py` has it.
        tables = models.BaseModel.metadata
        environment.configure(connection, target_metadata=tables, render_as_batch=True)
        environment.run_migrations()
    versions = {"schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
    connection.execute(sa.update(info).values(**versions))


def create_own_tables(connection: sa.Connection) -> None:
    """Create skdtune's tables where they are missing and note their version."""
    _metadata.create_all(connection)
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

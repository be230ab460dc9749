from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models

from skdtune.presets import load_spec
from skdtune.search import events, leases, schema
from skdtune.search.storage import init_storage
from skdtune.search.study import StoredStudy, create_study, load_study
from skdtune.spec import StudySpec

_KEPT = ("version_info", "alembic_version")


@pytest.fixture
def make_spec() -> Callable[..., StudySpec]:
    def make(
        *overrides: str, preset: str = "digits-drg-dsr", name: str = "tiny", num_trials: int = 5
    ) -> StudySpec:
        return load_spec(preset, overrides=overrides, name=name, num_trials=num_trials)

    return make


@pytest.fixture(scope="session")
def shared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("shared")
    return f"sqlite:///{folder / 'study.db'}"


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: str) -> str:
    name = f"shared_{uuid.uuid4().hex}"
    admin = sa.create_engine(
        f"postgresql+psycopg://postgres:@/postgres?host={postgres_server}",
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return f"postgresql+psycopg://postgres:@/{name}?host={postgres_server}"


@pytest.fixture
def restartable_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a PostgreSQL that the test may stop and start: an object with ``url``, ``stop`` and
    ``start``."""
    server = RestartablePostgres()
    yield server
    server.close()


class RestartablePostgres:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="skdtune-pg-")
        self.url = f"postgresql+psycopg://postgres:@/postgres?host={self._folder.name}"
        self.start()

    def start(self) -> None:
        import pgserver

        self._server = pgserver.get_server(self._folder.name, cleanup_mode="stop")

    def stop(self) -> None:
        self._server.cleanup()

    def close(self) -> None:
        self._server.cleanup()
        self._folder.cleanup()


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that puts the database's clock forward."""
    real = schema.now
    passed = [0.0]

    def now(connection: sa.Connection) -> sa.ColumnElement[Any]:
        return real(connection) + sa.literal_column(repr(passed[0]), sa.Float)

    for module in (leases, events):
        monkeypatch.setattr(module, "now", now)

    def forward(seconds: float) -> None:
        passed[0] += seconds

    return forward


@pytest.fixture(params=["sqlite", "postgres"])
def ready_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a storage without studies, once of each kind; made once, since that
    takes longer than most tests."""
    url: str = request.getfixturevalue(f"shared_{request.param}")
    storage = init_storage(url)
    with storage.engine.begin() as connection:
        for table in reversed(models.BaseModel.metadata.sorted_tables):
            if table.name not in _KEPT:
                connection.execute(sa.delete(table))
        for table in (schema.leases, schema.events, schema.own_studies):
            connection.execute(sa.delete(table))
    storage.engine.dispose()
    return url


@pytest.fixture
def make_study(
    ready_url: str, make_spec: Callable[..., StudySpec]
) -> Iterator[Callable[..., StoredStudy]]:
    """Create a study in a storage of each kind and open it."""
    opened: list[StoredStudy] = []

    def make(*overrides: str, **settings: Any) -> StoredStudy:
        spec = make_spec(*overrides, **settings)
        create_study(spec, storage=ready_url)
        opened.append(load_study(spec.name, storage=ready_url))
        return opened[-1]

    yield make
    for stored in opened:
        stored.close()

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models

from skdtune.presets import load_spec
from skdtune.search import schema
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
        connection.execute(sa.delete(schema.leases))
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

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, settings
from optuna.storages._rdb import models

from skdtune.data.batches import DeviceImages
from skdtune.data.catalogue import load_search_data
from skdtune.describe import dotted
from skdtune.describe.config import TrialConfig
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse
from skdtune.queue import events, leases, schema
from skdtune.queue.storage import init_storage
from skdtune.queue.stored_study import StoredStudy, create_study, load_study
from skdtune.training.trainer import Trainer

# No test depends on how fast the machine is.
settings.register_profile(
    "any machine", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

_KEPT = ("version_info", "alembic_version")

CPU = torch.device("cpu")

TINY: dict[str, Any] = {
    "data": {
        "name": "digits",
        "max_per_class": 24,
        "val_fraction": 0.25,
        "batch_size": 32,
        "crop_padding": 1,
    },
    "model": {"name": "resnet8", "width": 4, "precision": "float32"},
    "optimizer": {"lr": 0.05},
    "budget": {"epochs": 2},
}

MakeConfig = Callable[..., TrialConfig]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture
def make_config() -> MakeConfig:
    """Make a tiny digits configuration; keyword arguments are dotted keys with __ for the dot."""

    def make(**changes: Any) -> TrialConfig:
        raw = TINY
        for path, value in changes.items():
            raw = dotted.put(raw, path.replace("__", "."), value)
        return parse(TrialConfig, raw, "test")

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[DeviceImages, DeviceImages]:
    config = parse(TrialConfig, TINY, "test").data
    folder = tmp_path_factory.mktemp("digits")
    data = load_search_data(config, data_dir=folder, cache_dir=folder)
    train, val = (
        DeviceImages(images, data.mean_C, data.std_C, CPU) for images in (data.train, data.val)
    )
    return train, val


@pytest.fixture
def make_trainer(
    digits: tuple[DeviceImages, DeviceImages], make_config: MakeConfig
) -> MakeTrainer:
    def make(config: TrialConfig | None = None, **changes: Any) -> Trainer:
        train, val = digits
        return Trainer(config or make_config(**changes), train, val, 10, CPU)

    return make


class Recorder:
    """Remembers what a trainer tells; prunes and interrupts where it was told to.

    Args:
        prune_after: Prune after so many epochs.
        interrupt_at: Interrupt when asked for the so-manieth time, counted from 1.
    """

    def __init__(self, prune_after: int | None = None, interrupt_at: int | None = None) -> None:
        self.reports: list[EpochReport] = []
        self.asked = 0
        self.progress: list[float] = []
        self._prune_after = prune_after
        self._interrupt_at = interrupt_at

    def epoch_finished(self, report: EpochReport) -> Verdict:
        self.reports.append(report)
        return Verdict.PRUNE if len(self.reports) == self._prune_after else Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        self.asked += 1
        self.progress.append(progress)
        return self.asked == self._interrupt_at

    @property
    def curve(self) -> list[tuple[object, ...]]:
        """All that was reported, without the clock."""
        return [
            (r.epoch, r.val_accuracy, r.val_loss, tuple(r.losses.items()), r.lr)
            for r in self.reports
        ]


@pytest.fixture
def make_recorder() -> Callable[..., Recorder]:
    return Recorder

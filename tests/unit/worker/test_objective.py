from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from skdtune.data.catalogue import load_search_data
from skdtune.data.store import DataStore
from skdtune.describe.config import config_hash
from skdtune.describe.identity import derive_seed
from skdtune.describe.spec import StudySpec
from skdtune.queue import leases
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import StoredStudy, create_study, load_study
from skdtune.queue.trial_queue import TrialQueue
from skdtune.worker.objective import resolve_trial


@pytest.fixture
def stored(sqlite_url: str, make_spec: Callable[..., StudySpec]) -> Iterator[StoredStudy]:
    spec = make_spec("budget.epochs=9")
    create_study(spec, storage=sqlite_url)
    opened = load_study(spec.name, storage=sqlite_url)
    yield opened
    opened.close()


def test_a_trial_resolves_to_its_parameters_and_a_seed_of_its_own(stored: StoredStudy) -> None:
    history = TrialHistory(TrialQueue(stored))
    configs = []
    for _ in range(3):
        claimed = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        assert claimed is not None
        sampler = stored.spec.sampler.build(stored.spec.seed, claimed.number)
        configs.append(resolve_trial(stored, history.begin(claimed, sampler)))
        history.store_params()
    frozen = stored.study.get_trials()[:3]
    assert all(trial.state is TrialState.RUNNING for trial in frozen)
    for number, (config, trial) in enumerate(zip(configs, frozen, strict=True)):
        assert config.seed == derive_seed(stored.spec.seed, "trial", number)
        assert config.optimizer.lr == trial.params["optimizer.lr"]
        assert config.method.drg is not None
        assert config.method.drg.weight == trial.params["method.drg.weight"]
    assert len({config.seed for config in configs}) == 3
    assert configs[0].optimizer == stored.spec.optimizer


def test_a_worker_loads_its_data_once(
    stored: StoredStudy, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []

    def counted(config: Any, **folders: Any) -> Any:
        loads.append(config)
        return load_search_data(config, **folders)

    monkeypatch.setattr("skdtune.data.store.load_search_data", counted)
    store = DataStore(tmp_path, tmp_path, torch.device("cpu"))
    first = store.get(stored.spec.data)
    assert store.get(stored.spec.data) is first
    assert len(loads) == 1
    assert (first.num_classes, len(first.fingerprint)) == (10, 12)
    assert first.train.device == torch.device("cpu")


def test_the_hash_of_a_configuration_tells_every_setting(stored: StoredStudy) -> None:
    config = stored.spec.base_config()
    assert config_hash(config) == config_hash(config.model_copy(deep=True))
    assert config_hash(config) != config_hash(config.model_copy(update={"seed": 1}))

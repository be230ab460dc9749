from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState

from skdtune.queue import leases, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.kept_network import KeptFile, KeptNetwork, network_of
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
KEPT = KeptNetwork(KeptFile("0" * 32, "f" * 64, 1234), "tiny-trial-00000.safetensors")


def finish(
    stored: StoredStudy, value: float, state: TrialState = TrialState.COMPLETE, **more: Any
) -> None:
    claimed = leases.claim(stored.engine, stored.study_id, ALICE)
    assert claimed is not None
    kind = EventKind(state.name.lower())
    trial_writes.finish(stored.engine, claimed, state, kind, value=value, epochs=1, **more)


def test_optuna_and_export_know_a_network_by_the_end_of_its_trial(make_study: MakeStudy) -> None:
    stored = make_study()
    finish(stored, 0.5, user=KEPT.user_attributes, system=KEPT.system_attributes)
    trial = stored.storage.get_all_trials(stored.study_id)[0]
    assert network_of(trial.system_attrs) == KEPT.file
    assert trial.user_attrs == {"network_sha256": "f" * 64}
    (meta,) = get_all_artifact_meta(trial, storage=stored.storage)
    assert (meta.artifact_id, meta.filename) == ("0" * 32, "tiny-trial-00000.safetensors")


@pytest.mark.parametrize("found", [None, "text", [1], 3])
def test_what_is_no_network_is_none(found: Any) -> None:
    assert network_of({"skdtune:network": found}) is None
    assert network_of({}) is None


def test_a_hostile_row_names_no_file() -> None:
    kept = network_of({"skdtune:network": {"num_bytes": "many"}})
    assert kept == KeptFile("None", "None", 0)

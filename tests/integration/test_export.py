"""Networks that workers keep, and what `skdtune export` makes of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from skdtune.data.catalogue import load_search_data
from skdtune.models.network_file import read_network_file

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]
RunCli = Callable[..., "subprocess.CompletedProcess[str]"]

TRIALS = {"preset": "digits-drg-dsr", "num_trials": 4}


@dataclass
class Kept:
    """A finished study with the store of its artifacts."""

    search: Any
    folder: Path

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def networks(self) -> dict[int, dict[str, Any]]:
        """Return what the storage says of each trial's network, by number."""
        found = {t.number: t.system_attrs.get("skdtune:network") for t in self.search.trials}
        return {number: network for number, network in found.items() if network}

    @property
    def best(self) -> Any:
        complete = [t for t in self.search.trials if t.state.name == "COMPLETE"]
        return max(complete, key=lambda t: (t.value, -t.number))

    def export(self, run_cli: RunCli, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {"SKDTUNE_ARTIFACTS": str(self.folder), "OMP_NUM_THREADS": "1"}
        return run_cli(
            "export", self.search.name, "--storage", self.search.url, *arguments, env=env
        )


@pytest.fixture(scope="module")
def kept(
    module_search: MakeSearch,
    module_start_worker: StartWorker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    search = module_search(f"sqlite:///{folder / 'study.db'}", "budget.epochs=4", **TRIALS)
    store = folder / "store"
    worker = module_start_worker(search, env={"SKDTUNE_ARTIFACTS": str(store)})
    assert worker.wait() == 0, worker.err
    return Kept(search, store)


@pytest.fixture(scope="module")
def exported(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "best"
    command = ["export", kept.search.name, "--storage", kept.search.url, "-o", str(folder)]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "skdtune", *command],
        env={**os.environ, "SKDTUNE_ARTIFACTS": str(kept.folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"exported trial {kept.best.number} of tiny to {folder}" in ran.stdout
    assert "bit for bit" in ran.stdout
    return folder


def test_the_networks_of_new_best_trials_are_kept(kept: Kept) -> None:
    values = [trial.value for trial in kept.search.trials]
    so_far = [n for n, value in enumerate(values) if value >= max(values[: n + 1])]
    networks = kept.networks()
    assert sorted(networks) == so_far
    assert kept.best.number in networks
    assert kept.files == sorted(network["artifact_id"] for network in networks.values())
    for number, network in networks.items():
        trial = kept.search.trials[number]
        assert trial.user_attrs["network_sha256"] == network["sha256"]
        file = read_network_file(kept.folder / network["artifact_id"], network["sha256"])
        assert file.info.accuracy == trial.value
        assert (file.info.study, file.info.trial) == ("tiny", number)
        assert file.info.trained_on == "train"


def test_optuna_lists_and_downloads_them(kept: Kept, tmp_path: Path) -> None:
    from optuna.artifacts import (
        FileSystemArtifactStore,
        download_artifact,
        get_all_artifact_meta,
    )

    stored = kept.search.stored
    (meta,) = get_all_artifact_meta(kept.best, storage=stored.storage)
    assert meta.filename == f"tiny-trial-{kept.best.number:05d}.safetensors"
    target = tmp_path / "downloaded"
    download_artifact(
        artifact_store=FileSystemArtifactStore(str(kept.folder)),
        artifact_id=meta.artifact_id,
        file_path=str(target),
    )
    assert read_network_file(target, kept.best.user_attrs["network_sha256"]).build()


SCORE = """
import sys, json, numpy, torch
torch.set_num_threads(1)
folder, images = sys.argv[1:]
network = torch.export.load(folder + "/model.pt2").module()
facts = json.load(open(folder + "/trial.json", encoding="utf-8"))["network"]
mean, std = (torch.tensor(facts[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
data = numpy.load(images)
logits = network((torch.from_numpy(data["images"]) / 255 - mean) / std)
right = (logits.argmax(dim=1) == torch.from_numpy(data["labels"])).sum().item()
one = network((torch.from_numpy(data["images"][:1]) / 255 - mean) / std)
assert one.shape == (1, len(facts["class_names"]))
assert not [name for name in sys.modules if name.startswith("skdtune")]
print(right / len(logits))
"""


def test_the_program_scores_the_same_in_a_process_without_skdtune(
    kept: Kept, exported: Path, tmp_path: Path
) -> None:
    config = kept.search.stored.spec.data
    val = load_search_data(config, data_dir=tmp_path, cache_dir=tmp_path).val
    np.savez(
        tmp_path / "val.npz", images=np.ascontiguousarray(val.images_NCHW), labels=val.labels_N
    )

    ran = subprocess.run(
        [sys.executable, "-c", SCORE, str(exported), str(tmp_path / "val.npz")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) == kept.best.value


def test_the_lines_of_the_card_run_as_they_are(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=exported,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"\['\d', '\d'\]\n", ran.stdout)


def test_the_card_says_what_the_number_is_worth(kept: Kept, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    num_images = kept.best.user_attrs["num_val_images"]
    error = (kept.best.value * (1 - kept.best.value) / num_images) ** 0.5
    assert (
        f"**{kept.best.value:.2%}** ± {error:.2%} (standard error) of {num_images} validation"
        in card
    )
    assert "**Optimistic:**" in card
    assert "`skdtune evaluate tiny`" in card
    assert kept.search.stored.spec.digest in card
    assert kept.best.user_attrs["data_fingerprint"] in card


def test_the_weights_are_a_plain_state_dict_and_a_teacher(kept: Kept, exported: Path) -> None:
    facts = json.loads((exported / "trial.json").read_text())
    sha256 = facts["files"]["model.safetensors"]
    assert set(facts["files"]) == {"model.pt2", "model.safetensors"}

    teacher = read_network_file(exported / "model.safetensors", sha256).build()

    weights = safetensors.torch.load_file(exported / "model.safetensors")
    assert weights.keys() == teacher.state_dict().keys()
    assert not any(name.startswith("check") for name in weights)


def test_a_folder_that_is_not_empty_is_left_alone(
    kept: Kept, run_cli: RunCli, tmp_path: Path
) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "notes").write_text("mine")
    ran = kept.export(run_cli, "-o", str(target))
    assert ran.returncode == 2
    assert ran.stderr == f"skdtune: {target} is there already; choose another folder with -o\n"
    assert [path.name for path in target.iterdir()] == ["notes"]

    (target / "notes").unlink()
    ran = kept.export(run_cli, "-o", str(target), "--no-program", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["study"], told["trial"]) == ("tiny", kept.best.number)
    assert told["folder"] == str(target)
    assert told["files"] == ["README.md", "model.safetensors", "trial.json"]
    assert told["agreement"]["difference"] == 0
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "model.safetensors",
        "trial.json",
    ]
    assert "model.pt2" not in (target / "README.md").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda path: path.unlink(), 1, "cannot be read: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 2, "it is another file"),
    ],
    ids=["gone", "cut off"],
)
def test_an_artifact_that_is_gone_or_damaged_is_not_exported(
    damage: Callable[[Path], Any],
    code: int,
    words: str,
    kept: Kept,
    run_cli: RunCli,
    tmp_path: Path,
) -> None:
    network = kept.networks()[kept.best.number]
    path = kept.folder / network["artifact_id"]
    content = path.read_bytes()
    try:
        damage(path)
        ran = kept.export(run_cli, "-o", str(tmp_path / "out"))
    finally:
        path.write_bytes(content)
    assert ran.returncode == code
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "home"] == []


def test_a_folder_that_cannot_be_made_is_said(kept: Kept, run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ran = kept.export(run_cli, "-o", str(tmp_path / "file" / "out"), "--no-program")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "Not a directory" in ran.stderr


def test_what_was_not_kept_is_said_in_one_line(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    run_cli: RunCli,
    tmp_path: Path,
) -> None:
    search = make_search(sqlite_url, "keep_networks=none", num_trials=1)
    found = Kept(search, tmp_path / "store")
    ran = found.export(run_cli)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "has no complete trial yet" in ran.stderr
    ran = found.export(run_cli, "--trial", "0")
    assert "trial 0 of 'tiny' is waiting" in ran.stderr
    ran = found.export(run_cli, "--trial", "7")
    assert "study 'tiny' has no trial 7" in ran.stderr

    worker = start_worker(search, env={"SKDTUNE_ARTIFACTS": str(found.folder)})
    assert worker.wait() == 0, worker.err
    assert not found.folder.exists()
    ran = found.export(run_cli)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "was not kept (keep_networks is 'none')" in ran.stderr
    assert "skdtune evaluate tiny" in ran.stderr


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from skdtune.__main__ import main
main(["export", "tiny"])
"""


def test_a_machine_without_torch_is_told_what_it_lacks() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        "skdtune: export needs torch, which is not installed: pip install 'skdtune[train]'\n"
    )


#: The process dies when the network lies in the store and the storage does not know of it.
DIE_BEFORE_THE_END = """
import os, signal
from skdtune.queue import trial_writes
trial_writes.finish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_dies_over_its_file_leaves_an_orphan_and_no_harm(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, "keep_networks=all", preset="digits-drg", num_trials=1)
    found = Kept(search, tmp_path / "store")
    env = {
        "SKDTUNE_ARTIFACTS": str(found.folder),
        "SKDTUNE_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "SKDTUNE_LEASE_SECONDS": "1",
    }
    victim = start_worker(search, code=DIE_BEFORE_THE_END, env=env)
    assert victim.wait() == -signal.SIGKILL
    assert (len(found.files), found.networks()) == (1, {})

    assert start_worker(search, env=env).wait() == 0

    # Nothing was left to train: the network is that of the checkpoint.
    assert "resumed" in search.story(0)
    assert search.states == ["COMPLETE"]
    (network,) = found.networks().values()
    assert len(found.files) == 2
    assert network["artifact_id"] in found.files
    first, second = (found.folder.joinpath(name).read_bytes() for name in found.files)
    assert first == second


LOSE_THE_LEASE = """
import os
from skdtune.errors import LeaseLostError
from skdtune.queue import trial_writes
def lost(*_, **__):
    print(len(os.listdir(os.environ["SKDTUNE_ARTIFACTS"])), "file", flush=True)
    raise LeaseLostError("the lease was lost")
trial_writes.finish = lost
"""


def test_a_worker_that_lost_its_trial_takes_its_file_back(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    store = tmp_path / "store"
    env = {"SKDTUNE_ARTIFACTS": str(store)}
    worker = start_worker(search, "--drain", code=LOSE_THE_LEASE, env=env)
    assert worker.wait() == 0, worker.err
    assert "trial 0 was taken over or ended from outside" in worker.err
    assert "1 file" in worker.out
    assert list(store.iterdir()) == []


def test_a_store_that_cannot_be_written_fails_no_trial(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    (tmp_path / "file").write_text("no folder")
    worker = start_worker(search, env={"SKDTUNE_ARTIFACTS": str(tmp_path / "file" / "store")})
    assert worker.wait() == 0, worker.err
    assert search.states == ["COMPLETE"]
    assert "network_sha256" not in search.trials[0].user_attrs
    assert "noted" in search.story(0)
    (note,) = [e.detail for e in search.events(0) if "its network is not kept" in e.detail]
    assert note.endswith("file/store cannot be written: Not a directory")


def test_a_final_evaluation_keeps_all_and_says_test(
    kept: Kept, run_cli: RunCli, start_worker: StartWorker, tmp_path: Path
) -> None:
    from skdtune.queue.final_evaluation import create_evaluation
    from skdtune.queue.stored_study import load_study

    name = create_evaluation("tiny", num_seeds=2, storage=kept.search.url)
    stored = load_study(name, storage=kept.search.url)
    evaluation = Kept(type(kept.search)(kept.search.url, stored), tmp_path / "store")
    env = {"SKDTUNE_ARTIFACTS": str(evaluation.folder)}
    worker = start_worker(evaluation.search, env=env)
    assert worker.wait() == 0, worker.err

    assert sorted(evaluation.networks()) == [0, 1]
    ran = evaluation.export(run_cli, "-o", str(tmp_path / "out"), "--no-program")
    assert ran.returncode == 0, ran.stderr
    assert "exported trial 0 of tiny.test" in ran.stdout
    card = (tmp_path / "out" / "README.md").read_text()
    trial = evaluation.search.trials[0]
    assert f"**{trial.user_attrs['test_accuracy']:.2%}**" in card
    assert f"of {trial.user_attrs['num_test_images']} test images" in card
    assert "Optimistic" not in card
    assert "training and validation images" in card
    stored.close()

"""``skdtune train``: one training in one folder, its end, its refusals, and what is handed out."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from exit_codes import exit_code
from filelock import FileLock

import skdtune
from skdtune.__main__ import main
from skdtune.describe.data_source import ClassSource, DataSource
from skdtune.models.network_file import read_network_file
from skdtune.queue.pinned_source import pin
from skdtune.queue.stored_study import load_study
from skdtune.training.trainer import Trainer

Run = Callable[..., Result]
Refused = Callable[..., str]

pytestmark = pytest.mark.usefixtures("connections_end")

EPOCHS = 3
#: A training of a second.
TINY = (
    *("--set", "model.width=4", "--set", "data.max_per_class=20", "--set", "data.batch_size=50"),
    *("--epochs", str(EPOCHS), "--device", "cpu", "--threads", "1"),
)
DRG_DSR = ("train", "digits-drg-dsr", *TINY)


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, in which runs are kept."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that is refused; return its one line."""

    def run(*arguments: str, code: int = 2) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        said = capsys.readouterr().err.strip().splitlines()
        assert left.value.code == code, said
        errors = [line for line in said if line.startswith("skdtune: ")]
        assert errors == said[-1:], said
        return errors[0]

    return run


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def rows(run: Path) -> list[dict[str, str]]:
    """Return the curve without what the clock decides."""
    with (run / "curve.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def read(run: Path, name: str = "result.json") -> Any:
    return json.loads((run / name).read_text())


def stopped_after(
    epochs: int, monkeypatch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGINT
) -> None:
    """Let the next training get a signal in the middle of an epoch."""
    step = Trainer._train_step

    def stop(trainer: Trainer, batch: Any, epoch: int) -> Any:
        if epoch == epochs:
            os.kill(os.getpid(), number)
        return step(trainer, batch, epoch)

    monkeypatch.setattr(Trainer, "_train_step", stop)


def test_a_preset_is_trained_and_all_of_it_lies_in_one_folder(
    run: Run, current_folder: Path
) -> None:
    result = run(*DRG_DSR)
    assert result.exit_code == 0
    kept = only_run(current_folder)
    assert kept.name.startswith("digits-drg-dsr-")
    assert kept.name.endswith("-seed0")
    names = {path.name for path in kept.iterdir()} - {".lock"}
    assert names == {
        *("config.yaml", "run.json", "curve.csv", "checkpoints"),
        *("network.safetensors", "README.md", "result.json"),
    }
    assert len(list((kept / "checkpoints").iterdir())) == 2, "the newest, and the one before"
    curve, summed_up = rows(kept), read(kept)
    assert [row["epoch"] for row in curve] == ["1", "2", "3"]
    assert {f"loss.{name}" for name in summed_up["losses"]} < curve[0].keys()
    # The last epoch counts, not the best one.
    assert summed_up["val_accuracy"] == float(curve[-1]["val_accuracy"])
    assert not [name for name in summed_up if "test" in name]
    assert {"val_top5", "val_ece", "val_nll", "versions", "seed", "source"} < summed_up.keys()
    assert "optuna" not in summed_up["versions"]
    network = read_network_file(kept / "network.safetensors", summed_up["network_sha256"])
    assert network.info.accuracy == summed_up["val_accuracy"]
    assert network.info.trained_on == "train"
    card = (kept / "README.md").read_text()
    assert card.startswith("# resnet8 of the run digits-drg-dsr\n")
    assert "the run chose nothing by them" in card
    assert f"validation accuracy {summed_up['val_accuracy'] * 100:.2f} ± " in result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == EPOCHS
    assert " left" in lines[0]
    assert "validation " in lines[-1]
    assert "images/s" in lines[-1]


def test_a_finished_run_says_so_and_its_configuration_makes_it_again(
    run: Run, current_folder: Path
) -> None:
    run(*DRG_DSR)
    kept = only_run(current_folder)
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    for command in (DRG_DSR, ("train", str(kept / "config.yaml"))):
        again = run(*command)
        assert again.exit_code == 0
        assert "is finished already; nothing was trained" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before
    assert only_run(current_folder) == kept
    # Elsewhere it is trained anew, and comes to the same.
    run("train", str(kept / "config.yaml"), "-o", "again", *TINY[-4:])
    assert rows(Path("again")) == rows(kept)
    anew, here = read(Path("again")), read(kept)
    assert anew["network_sha256"] == here["network_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_left_goes_on_as_if_it_had_not_been(
    run: Run,
    current_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    with monkeypatch.context() as patched:
        stopped_after(2, patched, number)
        assert exit_code(*DRG_DSR) == 130
    kept = only_run(current_folder)
    assert f"stopped after epoch 2 of 3, which {kept} keeps; the same command goes on" in (
        capsys.readouterr().err
    )
    assert len(rows(kept)) == 2
    assert not (kept / "result.json").exists()
    # Torch's own draws must not matter: another process has others.
    torch.rand(3)
    resumed = run(*DRG_DSR)
    assert resumed.exit_code == 0
    assert "goes on after epoch 2, from its checkpoint" in resumed.stderr
    run(*DRG_DSR, "-o", "undisturbed")
    assert rows(kept) == rows(Path("undisturbed"))
    content, expected = (p / "network.safetensors" for p in (kept, Path("undisturbed")))
    assert content.read_bytes() == expected.read_bytes()
    assert read(kept)["attempts"] == 2


def test_a_checkpoint_that_is_damaged_is_said_and_the_one_before_is_used(
    run: Run, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stopped_after(2, patched)
        run(*DRG_DSR)
    kept = only_run(current_folder)
    older, newest = sorted((kept / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-7])
    resumed = run(*DRG_DSR)
    assert f"{newest} is not used: it is damaged" in resumed.stderr
    assert "goes on after epoch 1" in resumed.stderr
    assert len(rows(kept)) == EPOCHS
    assert not older.exists()


def test_a_script_reads_a_line_for_each_epoch_and_one_with_the_result(run: Run) -> None:
    printed = run(*DRG_DSR, "--json")
    *epochs, last = map(json.loads, printed.stdout.splitlines())
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert all(row["epochs"] == EPOCHS and row["losses"] for row in epochs)
    assert last["finished"] is True
    assert last["val_accuracy"] == epochs[-1]["val_accuracy"]
    again = json.loads(run(*DRG_DSR, "--json").stdout)
    assert again == last


def test_quiet_prints_nothing(run: Run) -> None:
    printed = run("-q", *DRG_DSR)
    assert (printed.exit_code, printed.stdout, printed.stderr) == (0, "", "")


def test_the_test_images_are_scored_only_where_that_is_asked_for_and_once(
    run: Run, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skdtune.data.store import DataStore

    looked: list[Any] = []
    test = DataStore.test
    monkeypatch.setattr(DataStore, "test", lambda *args: looked.append(args) or test(*args))
    run(*DRG_DSR)
    assert not looked
    kept = only_run(current_folder)
    before = read(kept)
    # Afterwards too: the network is that of the last checkpoint.
    for _ in range(2):
        shown = run(*DRG_DSR, "--test").stdout
        assert "test accuracy " in shown
        assert "validation accuracy " in shown
    assert len(looked) == 1
    after = read(kept)
    assert after["num_test_images"] == 450
    assert {name: after[name] for name in before} == before
    assert "test images, in" in (kept / "README.md").read_text()


def test_a_run_that_learned_from_all_images_is_judged_by_the_test_images(
    run: Run, refused: Refused, current_folder: Path
) -> None:
    assert "--all-images" not in refused(*DRG_DSR, "--all-images").split("add --test")[0]
    assert not (current_folder / "runs").exists()
    run(*DRG_DSR, "--all-images", "--test")
    summed_up = read(only_run(current_folder))
    assert summed_up["trained_on"] == "train+val"
    assert summed_up["num_train_images"] == 200
    assert "val_accuracy" not in summed_up
    assert summed_up["test_accuracy"] > 0
    assert "it learns from all images" in refused(*DRG_DSR, "-o", str(only_run(current_folder)))


def test_the_last_checkpoint_is_needed_to_score_the_test_images_later(
    run: Run, refused: Refused, current_folder: Path
) -> None:
    run(*DRG_DSR)
    kept = only_run(current_folder)
    for path in (kept / "checkpoints").iterdir():
        path.unlink()
    before = read(kept)
    assert "its last checkpoint is gone" in refused(*DRG_DSR, "--test")
    assert read(kept) == before


def test_a_folder_of_something_else_is_refused(
    run: Run, refused: Refused, current_folder: Path
) -> None:
    run(*DRG_DSR)
    kept = only_run(current_folder)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    said = refused(*DRG_DSR, "--set", "optimizer.lr=0.05", "-o", str(kept))
    assert said == (
        f"skdtune: {kept} holds another run: optimizer.lr is 0.1 there, not 0.05; choose another "
        "--output"
    )
    assert "seed is 0 there, not 7" in refused(*DRG_DSR, "--seed", "7", "-o", str(kept))
    (current_folder / "full").mkdir()
    (current_folder / "full" / "thesis.tex").write_text("")
    assert "is there and holds no run" in refused(*DRG_DSR, "-o", "full")
    (kept / "run.json").write_text("{")
    assert "run.json cannot be read: it is damaged" in refused(*DRG_DSR)
    (kept / "run.json").write_bytes(before[kept / "run.json"])
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_two_processes_do_not_train_one_run(
    refused: Refused, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (current_folder / "mine").mkdir()
    with FileLock(current_folder / "mine" / ".lock", is_singleton=False):
        said = refused(*DRG_DSR, "-o", "mine")
    assert said == f"skdtune: another process trains in {current_folder / 'mine'}"
    assert [path.name for path in (current_folder / "mine").iterdir()] in ([], [".lock"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name what to train: a preset or a file, or --from STUDY"),
        (("digits-drg", "--from", "tiny"), "name what to train"),
        (("digits-drgdsr",), "did you mean 'digits-drg-dsr'?"),
        (("digits-compare",), "is a family of studies: name the one to train, for example digits"),
        (
            ("digits-drg", "--set", "search.optimizer.lr=null"),
            "a single training searches nothing",
        ),
        (("digits-drg", "--fix", "pruner.name=none"), "a single training searches nothing"),
        (("digits-drg", "--set", "optimizer.rl=1"), "did you mean 'optimizer.lr'?"),
        (("digits-drg", "--set", "optimizer.lr=-1"), "optimizer.lr: "),
        (("digits-drg", "--set", "budget.seconds=9"), "say how long to train with --epochs"),
        (("digits-drg", "--device", "cuda:77"), "device 'cuda:77' is not there"),
        (("digits-dsr", "--set", "data.batch_size=2000"), "data.batch_size of at most"),
        (("--from", "nothing"), "there is no such file; create a study first"),
        (("digits-drg", "-o", "/dev/null/run"), "/dev/null/run cannot be used"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    refused: Refused, current_folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused("train", *arguments)
    assert list(current_folder.iterdir()) == []


def test_what_is_set_need_not_lie_in_the_range_that_a_search_has(
    run: Run, current_folder: Path
) -> None:
    changes = ("--set", "optimizer.lr=0.9", "--fix", "method.drg.stages=2", "--seed", "5")
    assert run(*DRG_DSR, *changes).exit_code == 0
    written = yaml.safe_load((only_run(current_folder) / "config.yaml").read_text())
    assert written["optimizer"]["lr"] == 0.9
    assert written["method"]["drg"]["stages"] == [2]
    assert written["seed"] == 5


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(
    refused: Refused, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step
    nothing = torch.tensor(float("nan"))

    def break_down(trainer: Trainer, batch: Any, epoch: int) -> dict[str, torch.Tensor]:
        losses = step(trainer, batch, epoch)
        return losses if epoch < 1 else {**losses, "drg": nothing}

    monkeypatch.setattr(Trainer, "_train_step", break_down)
    said = refused(*DRG_DSR, code=1)
    kept = only_run(current_folder)
    assert "the loss drg became non-finite in epoch 2" in said
    assert f"{kept} keeps the 1 epoch before it" in said
    assert len(rows(kept)) == 1
    assert not (kept / "result.json").exists()


def test_a_full_memory_ends_the_run_in_one_line(
    refused: Refused, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(trainer: Trainer, batch: Any, epoch: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nand so on")

    monkeypatch.setattr(Trainer, "_train_step", fill)
    assert refused(*DRG_DSR, code=1) == (
        "skdtune: the memory of cpu is full; no epoch was finished: a smaller data.batch_size or "
        "network, or another --device"
    )


def test_a_full_disk_ends_the_run_in_one_line_and_the_same_command_goes_on(
    run: Run, refused: Refused, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skdtune.training import checkpoint

    write = checkpoint.write_file

    def fail(files: Any, folder: str, name: str, content: bytes) -> None:
        if "epoch-00002" in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(files, folder, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_file", fail)
        said = refused(*DRG_DSR, code=1)
    kept = only_run(current_folder)
    assert "epoch 2 cannot be kept: " in said
    assert "No space left on device" in said
    assert f"{kept} keeps the 1 epoch before it; make room" in said
    assert len(rows(kept)) == 1
    assert "goes on after epoch 1" in run(*DRG_DSR).stderr


def test_a_run_goes_on_with_the_images_that_it_was_begun_with(
    refused: Refused, run: Run, current_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stopped_after(1, patched)
        run(*DRG_DSR)
    known = only_run(current_folder) / "run.json"
    content = json.loads(known.read_text())
    classes = [ClassSource(*row) for row in content["source"]["classes"]]
    other = DataSource(classes=(ClassSource("0", 7, "another"), *classes[1:]))
    known.write_text(json.dumps(content | {"source": other.to_plain()}))
    said = refused(*DRG_DSR)
    assert "was begun with other training images than" in said
    assert "class '0' has " in said
    assert "use the same data, or another --output" in said


# Export


def test_the_network_of_a_run_is_handed_out_as_that_of_a_trial_is(
    run: Run, refused: Refused, current_folder: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        stopped_after(1, patched)
        run(*DRG_DSR)
    kept = only_run(current_folder)
    assert "is not finished" in refused("export", str(kept))
    run(*DRG_DSR)
    assert "one run, which has no trials" in refused("export", str(kept), "--trial", "1")
    printed = json.loads(run("export", str(kept), "--no-program", "--json").stdout)
    assert printed["files"] == ["README.md", "model.safetensors", "trial.json"]
    assert printed["agreement"]["difference"] == 0
    handed_out = kept / "exported"
    facts = json.loads((handed_out / "trial.json").read_text())
    assert facts["run"] == "digits-drg-dsr"
    assert facts["result"] == read(kept)
    network = read_network_file(handed_out / "model.safetensors")
    assert network.check is None
    assert "of the run digits-drg-dsr" in (handed_out / "README.md").read_text()
    # What was handed out teaches another training.
    teacher = handed_out / "model.safetensors"
    taught = ("train", "digits-tfkd-self", *TINY)
    assert run(*taught, "--set", f"method.tf_kd_self.teacher={teacher}").exit_code == 0


# From a study


@pytest.fixture
def searched(skdtune_home: Path) -> str:
    """Search with one short trial, which is trained."""
    url = f"sqlite:///{skdtune_home / 'skdtune.db'}"
    changes = ("model.width=4", "data.max_per_class=20", "data.batch_size=50", "budget.epochs=3")
    spec = skdtune.load_spec("digits-drg-dsr", overrides=changes, name="tiny", num_trials=2)
    skdtune.create_study(spec, storage=url)
    skdtune.run_worker("tiny", storage=url, device="cpu", threads=1, max_trials=1)
    return url


def test_the_winner_of_a_search_is_trained_as_it_was_or_longer(
    run: Run, refused: Refused, searched: str, current_folder: Path, skdtune_home: Path
) -> None:
    value = skdtune.results("tiny", storage=searched).best.value
    for path in skdtune_home.glob("skdtune.db*"):
        path.chmod(0o444)
    same = run("train", "--from", "tiny", "--device", "cpu", "--threads", "1")
    assert same.exit_code == 0
    kept = only_run(current_folder)
    # The seed is the trial's: what it came to is what it came to.
    assert read(kept)["val_accuracy"] == value
    assert read(kept)["from"]["trial"] == 0
    assert "the settings are from tiny" in same.stdout
    assert "**Perhaps optimistic:**" in (kept / "README.md").read_text()
    (kept / "result.json").unlink()
    assert run("train", str(kept / "config.yaml"), "--device", "cpu").exit_code == 0
    assert read(kept)["from"]["study"] == "tiny", "its configuration, given again, is the same run"
    longer = ("--epochs", "7", "--seed", "1", "--set", "optimizer.lr=0.2", "-o", "longer")
    assert run("train", "--from", "tiny:0", *longer, "--device", "cpu").exit_code == 0
    rates = [float(row["lr"]) for row in rows(Path("longer"))]
    # The published shares of the length: 0.3, 0.6 and 0.8.
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.0002, 0.0002])
    assert "trial 1 of 'tiny' waits, and has no parameters" in refused("train", "--from", "tiny:1")
    assert "study 'tiny' has no trial 8" in refused("train", "--from", "tiny:8")


def test_the_data_of_a_study_are_those_that_its_trial_is_trained_on(
    run: Run, refused: Refused, finish_trials: Callable[..., None], skdtune_home: Path
) -> None:
    url = f"sqlite:///{skdtune_home / 'skdtune.db'}"
    assert run("create-study", "digits-drg", "--trials", "1").exit_code == 0
    assert "has no complete trial" in refused("train", "--from", "digits-drg")
    finish_trials(url, "digits-drg", 0.5)
    stored = load_study("digits-drg", storage=url)
    other = DataSource(classes=(ClassSource("0", 7, "another"),))
    with stored.engine.begin() as connection:
        pin(connection, stored.study_id, "digits-drg", {"train": other})
    stored.close()
    said = refused("train", "--from", "digits-drg")
    assert "study 'digits-drg' was begun with other training images" in said

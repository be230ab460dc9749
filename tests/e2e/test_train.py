"""`skdtune train` as a process that is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]

TINY = ("--set", "model.width=4", "--set", "data.batch_size=32", "--device", "cpu")
COMMAND = ("train", "digits-drg-dsr", *TINY, "--epochs", "5", "--threads", "1")

#: The process dies in the middle of an epoch, some steps after its start.
DIE_IN_EPOCH = """
import os, signal, sys
from skdtune.__main__ import main
from skdtune.training.trainer import Trainer
step, seen = Trainer._train_step, []
def die(trainer, batch, epoch):
    seen.append(epoch)
    if epoch == 3 and seen.count(epoch) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, batch, epoch)
Trainer._train_step = die
main(sys.argv[1:])
"""

#: What the process has imported when it ends.
REPORT_MODULES = """
import sys
from skdtune.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, sep="\\n")
"""


def curve(run: Path) -> list[dict[str, str]]:
    """Return the curve without what the clock decides."""
    with (run / "curve.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_run_that_was_killed_is_bit_equal_to_one_that_was_not(
    run_cli: RunCli, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = subprocess.Popen(
        [sys.executable, "-c", REPORT_MODULES, "-q", *COMMAND, "-o", str(whole)],
        stdout=subprocess.PIPE,
        text=True,
    )
    died = subprocess.run(
        [sys.executable, "-c", DIE_IN_EPOCH, *COMMAND, "-o", str(killed)],
        env={**os.environ},
        capture_output=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (killed / "result.json").exists()
    assert len(curve(killed)) == 3
    resumed = run_cli(*COMMAND, "-o", str(killed))
    assert resumed.returncode == 0, resumed.stderr
    assert "goes on after epoch 3, from its checkpoint" in resumed.stderr
    modules = {name.partition(".")[0] for name in undisturbed.communicate(timeout=60)[0].split()}
    assert undisturbed.returncode == 0
    assert "torch" in modules
    assert not modules & {"optuna", "sqlalchemy", "alembic", "psycopg"}, "it needs no database"
    assert curve(killed) == curve(whole)
    # Weights, statistics and the outputs on a few images: all of the file.
    contents = [(run / "network.safetensors").read_bytes() for run in (killed, whole)]
    assert contents[0] == contents[1]
    results = [json.loads((run / "result.json").read_text()) for run in (killed, whole)]
    assert [result["attempts"] for result in results] == [2, 1]

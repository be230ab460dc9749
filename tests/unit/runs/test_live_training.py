"""What is drawn of a training, without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from skdtune.cli.live_training import epoch_line, sparkline, training_view
from skdtune.describe.epoch_report import EpochReport
from skdtune.runs.watcher import RunStart

START = RunStart(
    name="digits-drg",
    folder=Path("runs/x"),
    seed=0,
    epochs=10,
    num_train=1010,
    num_val=337,
    computes="cpu",
)


def report(epoch: int, accuracy: float | None) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        val_accuracy=accuracy,
        losses={"cross_entropy": 1.5, "drg": 0.25},
        lr=0.1,
        seconds=2.0,
        images=3000,
    )


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([0.5], "▁"), ([0.1, 0.1], "▁▁"), ([0.0, 1.0], "▁█"), ([0.0, 0.5, 1.0], "▁▅█")],
)
def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value(
    values: list[float], drawn: str
) -> None:
    assert sparkline(values) == drawn


def test_a_long_curve_fits_in_a_line_with_its_ends() -> None:
    drawn = sparkline([index / 999 for index in range(1000)])
    assert len(drawn) == 40
    assert (drawn[0], drawn[-1]) == ("▁", "█")


def test_a_line_tells_of_losses_accuracy_speed_and_time_left() -> None:
    epochs = [report(0, 0.5), report(1, 0.75)]
    assert epoch_line(epochs[1], START, epochs) == (
        "epoch  2/10  loss cross_entropy 1.5000, drg 0.2500  validation 75.00%  lr 0.1  "
        "1,500 images/s  16 s left"
    )


def test_the_picture_counts_the_part_of_the_epoch_that_is_done() -> None:
    epochs = [report(0, 0.5), report(1, 0.75)]
    console = Console(width=120)
    with console.capture() as captured:
        console.print(training_view(START, epochs, 0.5, ["what happened"]))
    shown = captured.get()
    assert "2/10 epochs  1,500 images/s  15 s left" in shown
    assert "75.00%" in shown
    assert "what happened" in shown


def test_a_training_without_validation_images_says_that_it_has_none() -> None:
    start = RunStart(**{**vars(START), "num_val": None})
    console = Console(width=120)
    with console.capture() as captured:
        console.print(training_view(start, [report(0, None)], 0.0, []))
    assert "none to be judged on" in captured.get()
    assert "accuracy" not in captured.get()

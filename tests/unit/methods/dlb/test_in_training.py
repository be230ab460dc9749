"""DLB in training: the batch before teaches, and learns nothing."""

from __future__ import annotations

from typing import Any

from method_training import Start, outputs_after
from network_cases import FIRST, watch_images


def test_the_remembered_batch_is_detached(start_training: Start) -> None:
    training = start_training("dlb", FIRST)
    training.steps(range(1))
    # The main forward teaches only in the next step, and the last one is remembered.
    main_BK, again_BK = outputs_after(training, "dlb")
    assert main_BK.grad is None or not main_BK.grad.any()
    assert again_BK.grad is not None
    assert again_BK.grad.any()


def test_the_first_step_has_nothing_to_show_again(make_trainer: Any, make_recorder: Any) -> None:
    trainer, recorder = make_trainer(method={"dlb": {}}), make_recorder()
    seen: list[int] = []
    watch_images(trainer.network, seen)
    trainer.run(recorder)
    reported = sum(report.images for report in recorder.reports)
    assert reported - sum(seen) == trainer.config.data.batch_size

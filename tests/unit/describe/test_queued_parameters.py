from __future__ import annotations

import pytest

from skdtune.describe.presets import load_spec
from skdtune.describe.queued_parameters import left_to_sample, read_queued
from skdtune.errors import InputError

SPEC = load_spec(
    "digits-drg",
    overrides=[
        "search.data.flip={type: choice, choices: [true, false]}",
        "search.optimizer.schedule={type: choice, choices: [cosine, multistep]}",
        "search.data.crop_padding={type: int, low: 1, high: 3}",
        "optimizer.schedule=cosine",
        "data.crop_padding=2",
    ],
)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("optimizer.lr=0.05", 0.05),
        ("optimizer.lr=1e-2", 0.01),
        ("method.drg.temperature=4", 4.0),
        ("data.crop_padding=3.0", 3),
        ("data.flip=false", False),
        ("optimizer.schedule=multistep", "multistep"),
        ("method.drg.stages=2", "2"),
        ("method.drg.stages=1+2", "1+2"),
        ("method.drg.stages=[2, 1]", "1+2"),
    ],
)
def test_a_value_is_what_the_sampler_would_propose(pair: str, value: object) -> None:
    path = pair.partition("=")[0]
    found = read_queued(SPEC, [pair])
    assert found == {path: value}
    assert type(found[path]) is type(value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["optimizer.lr"], "optimizer.lr: expected KEY=VALUE, for example optimizer.lr=0.05"),
        (["optimizer.rl=1"], "optimizer.rl: no such parameter in digits-drg; did you mean 'opt"),
        (["optimizer.momentum=1"], "optimizer.momentum is not searched in digits-drg: it is 0.9"),
        (["optimizer.lr=7"], "optimizer.lr=7: expected 0.01 to 0.5, log"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: expected 0.01 to 0.5, log"),
        (["optimizer.lr=true"], "optimizer.lr=true: expected"),
        (["optimizer.lr=null"], "optimizer.lr=null: expected"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: expected"),
        (["optimizer.lr={"], "optimizer.lr={: expected"),
        (["data.flip=1"], "data.flip=1: expected True | False"),
        (["data.crop_padding=1.5"], "data.crop_padding=1.5: expected 1 to 3, whole"),
        (["method.drg.stages=3"], "method.drg.stages=3: expected 1 | 2 | 1+2"),
        (["optimizer.lr=0.1", "optimizer.lr=0.2"], "optimizer.lr is given twice"),
        (
            ["method.drg.teacher=mean_logits"],
            "method.drg.teacher matters only where method.drg.stages has at least 2 stages; name "
            "method.drg.stages, too",
        ),
        (
            ["method.drg.teacher=mean_logits", "method.drg.stages=1"],
            "method.drg.teacher matters only where method.drg.stages has at least 2 stages",
        ),
    ],
)
def test_what_is_none_is_refused_in_one_line(pairs: list[str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_queued(SPEC, pairs)
    found = str(refused.value).replace("=True", "=true").replace("=None", "=null")
    assert found.startswith(message), found
    assert "\n" not in found


def test_a_trial_is_taken_over_but_for_what_is_named_and_what_that_switches_off() -> None:
    like = {"optimizer.lr": 0.1, "method.drg.stages": "1+2", "method.drg.teacher": "mean_logits"}
    found = read_queued(SPEC, ["method.drg.stages=2"], like)
    assert found == {"optimizer.lr": 0.1, "method.drg.stages": "2"}
    with pytest.raises(InputError, match=r"^optimizer.lr=9.0: expected 0.01 to 0.5, log$"):
        read_queued(SPEC, ["method.drg.stages=2"], {"optimizer.lr": 9.0})


def test_what_may_be_sampled_is_listed() -> None:
    left = left_to_sample(SPEC, {"optimizer.lr": 0.1})
    assert set(left) == SPEC.search.keys() - {"optimizer.lr"}
    left = left_to_sample(SPEC, {"method.drg.stages": "2"})
    assert "method.drg.teacher" not in left

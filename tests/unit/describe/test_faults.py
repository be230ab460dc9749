from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from skdtune.describe.faults import FaultsConfig, RetriesConfig
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import spec_from_json
from skdtune.errors import SpecError

KINDS = ("preempted", "lost", "oom", "timeout", "error")


def test_by_default_nothing_that_is_a_trials_own_fault_is_retried() -> None:
    faults = FaultsConfig()
    retries = {kind: faults.retries_of(kind) for kind in KINDS}
    assert retries == {"preempted": None, "lost": 5, "oom": 0, "timeout": 0, "error": 0}
    assert (faults.max_trial_seconds, faults.max_epoch_seconds) == (None, None)
    assert faults.pause_after_equal_errors == 3


@pytest.mark.parametrize("kind", ["nan", "pruned", "complete", "no such kind"])
def test_what_has_no_setting_is_never_retried(kind: str) -> None:
    assert FaultsConfig().retries_of(kind) == 0


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KINDS, st.none() | st.integers(0, 99))))
def test_retries_are_those_that_were_set(chosen: dict[str, int | None]) -> None:
    faults = FaultsConfig.model_validate({"retries": chosen})
    for kind, number in chosen.items():
        assert faults.retries_of(kind) == number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-1, 0.5, "many"])
def test_a_number_of_retries_that_makes_no_sense_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        RetriesConfig.model_validate({kind: value})


@pytest.mark.parametrize("name", ["max_trial_seconds", "max_epoch_seconds"])
@pytest.mark.parametrize("value", [-1, 0, float("inf"), float("nan"), "long"])
def test_a_limit_that_makes_no_sense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        FaultsConfig.model_validate({name: value})


def test_settings_come_from_the_command_line() -> None:
    spec = load_spec(
        "digits-drg-dsr",
        overrides=[
            "faults.retries.lost=2",
            "faults.retries.preempted=7",
            "faults.retries.oom=null",
            "faults.max_trial_seconds=90.5",
            "faults.max_epoch_seconds=3",
            "faults.pause_after_equal_errors=null",
        ],
    )
    faults = spec.faults
    assert (faults.retries_of("lost"), faults.retries_of("preempted")) == (2, 7)
    assert (faults.retries_of("oom"), faults.retries_of("error")) == (None, 0)
    assert (faults.max_trial_seconds, faults.max_epoch_seconds) == (90.5, 3)
    assert faults.pause_after_equal_errors is None
    assert spec_from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("faults.max_epoch_seconds=-1", ("faults.max_epoch_seconds", "greater than 0", "-1")),
        ("faults.max_trial_seconds=.inf", ("faults.max_trial_seconds", "finite", "inf")),
        ("faults.retries.lost=-2", ("faults.retries.lost", "greater than or equal to 0", "-2")),
        ("faults.retries.lost=some", ("faults.retries.lost", "integer", "some")),
        ("faults.pause_after_equal_errors=0", ("faults.pause_after_equal_errors", "1", "0")),
        ("faults.retries.nan=1", ("faults.retries.nan",)),
        ("faults.max_seconds=1", ("faults.max_seconds",)),
    ],
)
def test_a_wrong_setting_is_one_clear_line(override: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("digits-drg-dsr", overrides=[override])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.exit_code == 2


def test_another_policy_is_another_study() -> None:
    plain = load_spec("digits-drg-dsr")
    other = load_spec("digits-drg-dsr", overrides=["faults.retries.error=1"])
    assert plain.digest != other.digest

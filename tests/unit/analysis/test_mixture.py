from __future__ import annotations

from typing import Any

import pytest

from skdtune.analysis.mixture import mixtures
from skdtune.analysis.trial_record import TrialRecord


def trials(*told: dict[str, Any]) -> list[TrialRecord]:
    alike = {"state": "complete", "params": {}}
    return [TrialRecord(number=n, **{**alike, **one}) for n, one in enumerate(told)]


SMALL, LARGE = {"data.image_size": 8}, {"data.image_size": 16}


@pytest.mark.parametrize(
    "told",
    [
        [],
        [{"data_fingerprint": "a", "source": "s"}] * 3,
        # Trials of an earlier release and of this one.
        [{"data_fingerprint": "a"}, {"data_fingerprint": "a", "source": "s"}, {}],
        # What failed is in no ranking.
        [{"source": "s"}, {"source": "t", "state": "failed"}, {"source": "u", "state": "running"}],
        [{"data_fingerprint": "a", "params": SMALL}, {"data_fingerprint": "b", "params": LARGE}],
        [{"device": "cuda:0 (H100)"}, {"device": "cuda:1 (H100)"}, {"device": "cuda:0 (A100)"}],
        [
            {"precision": one, "params": {"model.precision": one}}
            for one in ("float32", "bfloat16")
        ],
    ],
)
def test_what_belongs_together_is_no_mixture(told: list[dict[str, Any]]) -> None:
    assert mixtures("pets", trials(*told)) == ()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            [{"source": "s"}, {"source": "t"}, {"source": "s", "state": "pruned"}],
            "The trials of pets learned from different images (s in 2, t in 1): their values must "
            "not be compared; create a new study.",
        ),
        (
            [{"data_fingerprint": "a"}, {"data_fingerprint": "b", "source": "s"}],
            "The trials of pets learned from, or were judged on, different images (a in 1, b in "
            "1): their values must not be compared; create a new study.",
        ),
        (
            [
                {"data_fingerprint": "a", "params": SMALL},
                {"data_fingerprint": "b", "params": {**SMALL, "data.flip": True}},
                {"data_fingerprint": "c", "params": LARGE},
            ],
            "The trials of pets learned from, or were judged on, different images (a in 1, b in "
            "1): their values must not be compared; create a new study.",
        ),
        (
            [{"data_fingerprint": one, "source": "s"} for one in "ab"],
            "The trials of pets decoded the same files to different pixels (a in 1, b in 1): "
            "another version of Pillow does that, and values that lie close together may differ "
            "by that alone.",
        ),
        (
            [
                {"kernels": "native", "device": "cpu (x)", "precision": "bfloat16"},
                {"kernels": "native", "device": "cpu (y)", "precision": "bfloat16"},
                {"kernels": "torch", "device": "cuda:0 (H100)", "precision": "float32"},
            ],
            "The trials of pets were not computed alike (kernels: native in 2, torch in 1; "
            "devices: cpu in 2, cuda in 1; precision: bfloat16 in 2, float32 in 1): values that "
            "lie close together may differ by that alone.",
        ),
    ],
)
def test_a_mixture_is_one_sentence(told: list[dict[str, Any]], said: str) -> None:
    assert mixtures("pets", trials(*told)) == (said,)

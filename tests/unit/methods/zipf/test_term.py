"""The term of Zipf's label smoothing: its weight times the formula of its source."""

from __future__ import annotations

import pytest
from term_steps import CONTEXT, close, make_step

from skdtune.methods.zipf.formulas import dense_votes, zipf_loss
from skdtune.methods.zipf.settings import ZipfConfig
from skdtune.methods.zipf.term import Zipf


def test_all_is_left_to_the_labels() -> None:
    assert Zipf(ZipfConfig(), CONTEXT).label_weight == 1.0


@pytest.mark.parametrize("upsample", [True, False])
def test_zipf_ranks_by_the_votes_of_the_last_map(upsample: bool) -> None:
    settings = ZipfConfig(weight=0.4, power=1.5, upsample=upsample)
    term, step = Zipf(settings, CONTEXT), make_step()
    assert term.stages == (3,)
    classifier = step.network.classifier
    votes_BK = dense_votes(step.stage_features[3], classifier.weight, classifier.bias, upsample)
    losses = term(step)
    assert list(losses) == ["zipf"]
    expected = 0.4 * zipf_loss(step.logits_BK, votes_BK, step.labels_B, 1.5)
    assert close(losses["zipf"], expected)
    losses["zipf"].backward()
    assert step.logits_BK.grad is not None
    assert step.stage_features[3].grad is None
    assert classifier.weight.grad is None


def test_zipf_without_dense_votes_ranks_by_the_logits() -> None:
    term = Zipf(ZipfConfig(weight=0.4, power=1.5, dense=False), CONTEXT)
    assert term.stages == ()
    step = make_step(stage_features={})
    expected = 0.4 * zipf_loss(step.logits_BK, step.logits_BK.detach(), step.labels_B, 1.5)
    assert close(term(step)["zipf"], expected)

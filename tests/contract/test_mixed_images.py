"""Every method learns from mixed images, or says why it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from skdtune.describe.config import DataConfig, ModelConfig, TrialConfig
from skdtune.describe.method_config import SETTINGS
from skdtune.describe.term_config import TaughtTermConfig, TermConfig
from skdtune.methods.catalogue import build_terms
from tests.method_cases import defaults
from tests.term_steps import CONTEXT, NUM_CLASSES, make_step

TAKING = [name for name, settings in SETTINGS.items() if not settings.why_unmixed]


def config(method: str, **data: float) -> TrialConfig:
    return TrialConfig(
        data=DataConfig(name="digits", **data),
        model=ModelConfig(name="resnet8"),
        method=defaults(method).config,
    )


@pytest.mark.parametrize("method", SETTINGS)
def test_a_method_takes_mixed_images_or_says_why_not(method: str) -> None:
    for mixing in ("mixup", "cutmix"):
        if method in TAKING:
            assert config(method, **{mixing: 0.2}).data.mixes == mixing
            continue
        with pytest.raises(ValidationError) as refused:
            config(method, **{mixing: 0.2})
        assert f"data.{mixing}: {method} cannot learn from mixed images" in str(refused.value)
        assert SETTINGS[method].why_unmixed in str(refused.value)


@pytest.mark.parametrize(
    "method", [name for name in TAKING if not issubclass(SETTINGS[name], TaughtTermConfig)]
)
def test_the_losses_of_mixed_images_are_linear_in_the_labels(method: str) -> None:
    torch.manual_seed(0)
    terms = build_terms(defaults(method).config, CONTEXT)
    step = make_step()
    own_B = step.labels_B
    other_B = (own_B + 2) % NUM_CLASSES

    def losses(labels_B: Tensor, others_B: Tensor | None = None, share: float = 1.0) -> Tensor:
        batch = replace(step.batch, labels_B=labels_B, other_labels_B=others_B, label_share=share)
        found = [term(replace(step, batch=batch)) for term in terms.eval().values()]
        return torch.stack([loss for one in found for loss in one.values()]).detach()

    mixed = losses(own_B, other_B, 0.3)
    assert torch.allclose(mixed, 0.3 * losses(own_B) + 0.7 * losses(other_B), rtol=1e-5)
    # Some loss knows the labels, the label term's at least.
    assert not torch.allclose(mixed, losses(own_B))


def test_a_method_of_a_package_takes_them_when_it_says_so() -> None:
    assert TermConfig.why_unmixed

"""Feature refinement via self-knowledge distillation (FRSKD): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.term_config import TermConfig


class FrskdConfig(TermConfig):
    """Feature refinement: a pyramid network on all stages teaches final classifier and stages."""

    of_first_release = True
    term = "skdtune.methods.frskd.term:Frskd"
    memory_fields = ("width", "depth")

    weight: float = Field(default=2.0, ge=0)
    """Weight of the distillation term (published: 2)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    match_attention: bool = True
    """Pull the attention maps of the stages to the refined ones too."""

    attention_weight: float = Field(default=100.0, ge=0)
    """Weight of that (published: 100)."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the pyramid's own cross-entropy (published: 1)."""

    width: int = Field(default=2, ge=1, le=4)
    """Channels of the pyramid as a multiple of the stage's (published: 2)."""

    depth: int = Field(default=2, ge=1, le=4)
    """Convolutions of each node (published: 2)."""

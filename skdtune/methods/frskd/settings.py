"""Feature refinement via self-knowledge distillation (FRSKD): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig
from skdtune.describe.term_config import TermConfig


class FrskdConfig(TermConfig):
    """Feature refinement: a pyramid network on all stages teaches final classifier and stages."""

    of_first_release = True
    term = "skdtune.methods.frskd.term:Frskd"
    why_unmixed = ""
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

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse a network whose stages put out no maps, of which the pyramid is made."""
        if not model.has_maps:
            raise ValueError(
                f"method.{name}: its pyramid is made of maps, and {model.name} puts out none; "
                f"switch it off with method.{name}=null"
            )

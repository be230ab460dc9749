"""Zipf's label smoothing: its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig
from skdtune.describe.term_config import TermConfig


class ZipfConfig(TermConfig):
    """Zipf's label smoothing: the other classes follow a power law of their ranks."""

    of_first_release = True
    term = "skdtune.methods.zipf.term:Zipf"
    why_unmixed = "it ranks the classes beside one label"

    weight: float = Field(default=0.1, ge=0)
    """Weight of the distillation term (published: 0.1, and 1 for Tiny-ImageNet)."""

    power: float = Field(default=1.0, gt=0)
    """Exponent of the power law (published: 1)."""

    dense: bool = True
    """Rank by the votes of all positions of the last feature map, not by the logits."""

    upsample: bool = True
    """Double that map first, bilinearly (published for CIFAR)."""

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse votes of the positions of a map where there is no map."""
        if self.dense and not model.has_maps:
            raise ValueError(
                f"method.{name}.dense: {model.name} puts out no maps whose positions could vote; "
                f"set method.{name}.dense to false"
            )

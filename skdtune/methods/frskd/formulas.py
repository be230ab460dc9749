"""Feature refinement via self-knowledge distillation (FRSKD): its formulas.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import upcast


def attention_map(feature_BCHW: Tensor) -> Tensor:
    """Say where in a map the activity is: mean square over channels, of length 1.

    Source: attention transfer (arXiv 1612.03928), as FRSKD (arXiv 2103.08273) uses it.

    Args:
        feature_BCHW: a feature map.

    Returns:
        Attention ``[B, H*W]``, rows of Euclidean length 1, or 0 for a map of zeros.
    """
    energy_BHW = upcast(feature_BCHW).square().mean(dim=1)
    return F.normalize(energy_BHW.flatten(1), dim=-1)


def attention_transfer_loss(feature_BCHW: Tensor, teacher_feature_BCHW: Tensor) -> Tensor:
    """Squared difference of two attention maps, a mean over batch and positions.

    At most ``2 / (H W)``, which is why its usual weight is as large as 100. The teacher is
    detached.

    Source: FRSKD (arXiv 2103.08273).

    Args:
        feature_BCHW: map of the backbone, which receives the gradient.
        teacher_feature_BCHW: refined map of the same height and width, of any channels.

    Returns:
        Scalar loss, at least 0, without unit.
    """
    target = attention_map(teacher_feature_BCHW.detach())
    return F.mse_loss(attention_map(feature_BCHW), target)

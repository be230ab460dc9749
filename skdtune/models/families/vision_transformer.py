"""A small vision transformer, of torchvision's blocks, whose stages put out tokens.

Source: *An Image is Worth 16x16 Words* (arXiv 2010.11929), https://arxiv.org/abs/2010.11929, in
the size that *Training data-efficient image transformers* (DeiT, arXiv 2012.12877) calls tiny: 12
blocks of 192 channels and 3 heads. A stage is a group of two or three blocks; the class token is
the first of the tokens that it puts out, and is what is classified in the end.

Patches follow the images: 2x2 pixels below 16, 4x4 up to 48, 8x8 up to 96, else the published
16x16, where the tensors are torchvision's, in the order of its state dict.

Tensor shapes: B batch, C channels, H height, W width, T tokens, class token included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from skdtune.models.backbone import StagedBackbone

_BLOCKS_OF_STAGES = (2, 3, 2, 3, 2)


class Positions(nn.Module):
    """Adds what is learned of each position (BERT's start: a deviation of 0.02)."""

    def __init__(self, num_tokens: int, channels: int) -> None:
        """Draw the positions of so many tokens."""
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(1, num_tokens, channels).normal_(std=0.02))

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """Return the sums ``[B, T, C]``."""
        return tokens_BTC + self.embedding


class TokenStem(nn.Module):
    """Makes tokens of patches: a linear map each, the class token before them, positions added."""

    def __init__(self, published: Any, projection: nn.Conv2d, num_tokens: int) -> None:
        """Take the stem of a network of torchvision.

        Args:
            published: The network.
            projection: The linear map of a patch.
            num_tokens: T.
        """
        super().__init__()
        self.class_token = published.class_token
        self.projection = projection
        self.positions = Positions(num_tokens, projection.out_channels)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return tokens ``[B, T, C]``."""
        patches_BTC = self.projection(images_BCHW).flatten(2).transpose(1, 2)
        # Not len(): an exported program would take batches of one size only.
        class_B1C = self.class_token.expand(patches_BTC.shape[0], -1, -1)
        # Autocast may have the patches in another type than the parameters.
        tokens_BTC = torch.cat([class_B1C.to(patches_BTC.dtype), patches_BTC], dim=1)
        summed_BTC: Tensor = self.positions(tokens_BTC)
        return summed_BTC


class ClassToken(nn.Module):
    """Takes the class token of normalised tokens."""

    def __init__(self, norm: nn.Module) -> None:
        """Take the layer that normalises tokens."""
        super().__init__()
        self.norm = norm

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        """Return the class token ``[B, C]``."""
        token_BC: Tensor = self.norm(tokens_BTC)[:, 0]
        return token_BC


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> StagedBackbone:
    """Build a ViT-Tiny, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 2010.11929, section 3.1, and arXiv 2012.12877, table 1; 5,717,416 parameters for
    224 pixels and 1,000 classes. Initialised as by torchvision. What is left of an image at its
    lower and right edge beside whole patches is not seen.

    Args:
        name: ``vit_tiny``.
        width: Channels of a token; 64 of them a head (384 is DeiT's small one), or one head for
            widths that 64 does not divide.
        in_channels: Channels of the images.
        image_size: Height and width of the images.
        num_classes: Number of logits.
    """
    assert width is not None
    side = max(image_size)
    patch = 2 if side < 16 else 4 if side <= 48 else 8 if side <= 96 else 16
    published: Any = VisionTransformer(
        image_size=patch,
        patch_size=patch,
        num_layers=sum(_BLOCKS_OF_STAGES),
        num_heads=max(1, width // 64) if width % 64 == 0 else 1,
        hidden_dim=width,
        mlp_dim=4 * width,
        num_classes=num_classes,
    )
    projection = published.conv_proj
    if in_channels != 3:
        projection = nn.Conv2d(in_channels, width, patch, stride=patch)
        nn.init.trunc_normal_(projection.weight, std=(in_channels * patch**2) ** -0.5)
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
    height, width_of_image = image_size
    num_tokens = 1 + (height // patch) * (width_of_image // patch)
    stem = TokenStem(published, projection, num_tokens)
    blocks = iter(published.encoder.layers)
    stages = [nn.Sequential(*(next(blocks) for _ in range(n))) for n in _BLOCKS_OF_STAGES]
    pool = ClassToken(published.encoder.ln)
    return StagedBackbone(stem, stages, pool, published.heads.head)

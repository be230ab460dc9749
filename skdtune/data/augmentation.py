"""Random changes of a batch of images, as pure functions of the batch and of what was drawn.

Everything runs on the device of the images, without a loop over images and without waiting for
the device. The draws come from :mod:`skdtune.data.draws`.

Shape legend: B batch, C channels, H height, W width. Images are numbered channels first and lie
in memory channels last (``torch.channels_last``), and so do the results.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.data.draws import Mixing


def pad_crop(images_BCHW: Tensor, top_B: Tensor, left_B: Tensor, padding: int) -> Tensor:
    """Pad every image with black pixels and cut a window of the old size out of it.

    The same as ``torchvision.transforms.RandomCrop(size, padding)`` on raw images.

    Args:
        images_BCHW: raw images, any dtype.
        top_B: first row of the window in the padded image, int64 from 0 to ``2 * padding``.
        left_B: first column of the window, likewise.
        padding: pixels added on each side.

    Returns:
        Images of the same shape and dtype.
    """
    height, width = images_BCHW.shape[2:]
    images_BHWC = images_BCHW.permute(0, 2, 3, 1)
    padded_BHWC = F.pad(images_BHWC, (0, 0, padding, padding, padding, padding))
    # A view of every window that could be cut, shape (B, tops, lefts, C, H, W): one gather then
    # copies whole rows, five times faster on a CPU than gathering pixel by pixel.
    windows = padded_BHWC.unfold(1, height, 1).unfold(2, width, 1)
    rows_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    return windows[rows_B, top_B, left_B].contiguous(memory_format=torch.channels_last)


def resized_crop(
    images_BCHW: Tensor, top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor
) -> Tensor:
    """Cut a box out of every image and scale it to the old size, bilinearly.

    The same as ``torchvision.transforms.functional.resized_crop`` on float images: nothing
    outside the box has an influence. Boxes are never larger than the image, so the scaling never
    shrinks and needs no antialiasing.

    Args:
        images_BCHW: raw images, at least 2 pixels high and wide.
        top_B: first row of the box, int64.
        left_B: first column of the box, int64.
        height_B: rows of the box, int64, at least 1 and inside the image.
        width_B: columns of the box, likewise.

    Returns:
        float32 images of the same shape and range.
    """
    height, width = images_BCHW.shape[2:]
    y_BH = _sample_positions(top_B, height_B, height)
    x_BW = _sample_positions(left_B, width_B, width)
    x_BHW = x_BW[:, None, :].expand(-1, height, -1)
    y_BHW = y_BH[:, :, None].expand(-1, -1, width)
    cropped_BCHW = F.grid_sample(
        images_BCHW.to(torch.float32),
        torch.stack((x_BHW, y_BHW), dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return cropped_BCHW.contiguous(memory_format=torch.channels_last)


def _sample_positions(first_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    """Place ``size`` pixel centres evenly over a stretch of each image.

    Returns:
        Positions of shape (B, size) as ``grid_sample`` counts them with aligned corners: -1 is
        the first pixel of the image, 1 the last.
    """
    centres = torch.arange(size, device=first_B.device, dtype=torch.float32) + 0.5
    offsets = centres * (length_B[:, None] / size) - 0.5
    # Beyond the outermost centres of the stretch its edge is repeated, not its surroundings.
    inside = torch.minimum(offsets.clamp(min=0), length_B[:, None] - 1.0)
    return (first_B[:, None] + inside) * (2 / (size - 1)) - 1


def flip(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Mirror some images left to right.

    Args:
        images_BCHW: raw images, any dtype.
        flip_B: bool, which ones.

    Returns:
        Images of the same shape and dtype.
    """
    return torch.where(flip_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def as_bytes(images_BCHW: Tensor) -> Tensor:
    """Round raw images to uint8, for what is defined on bytes; bytes stay as they are."""
    if images_BCHW.dtype == torch.uint8:
        return images_BCHW
    return images_BCHW.round().clamp(0, 255).to(torch.uint8)


def jitter(images_BCHW: Tensor, factors_B3: Tensor) -> Tensor:
    """Change brightness, contrast and saturation of every image, one after the other.

    The same as ``adjust_brightness``, ``adjust_contrast`` and ``adjust_saturation`` of
    ``torchvision.transforms.v2.functional`` on uint8 images, with a factor for each image.

    Args:
        images_BCHW: raw images, uint8, with 1 or 3 channels; grey ones have no saturation.
        factors_B3: float32 factors of the three.

    Returns:
        uint8 images of the same shape.
    """
    brightness_B, contrast_B, saturation_B = factors_B3.unbind(1)
    images_BCHW = _blend(images_BCHW, torch.zeros_like(brightness_B), brightness_B)
    mean_B = _grey(images_BCHW).mean(dim=(1, 2, 3))
    images_BCHW = _blend(images_BCHW, mean_B, contrast_B)
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    return _blend(images_BCHW, _grey(images_BCHW), saturation_B)


def _grey(images_BCHW: Tensor) -> Tensor:
    """Return whole grey values, float32 of shape (B, 1, H, W)."""
    values_BCHW = images_BCHW.to(torch.float32)
    if values_BCHW.shape[1] == 1:
        return values_BCHW
    red_BHW, green_BHW, blue_BHW = values_BCHW.unbind(1)
    grey_BHW = red_BHW.mul(0.2989).add(green_BHW, alpha=0.587).add(blue_BHW, alpha=0.114)
    return grey_BHW.floor()[:, None]


def _blend(images_BCHW: Tensor, others: Tensor, factors_B: Tensor) -> Tensor:
    """Go from other values to the images, or beyond them where the factor is above 1."""
    factors_B111 = factors_B[:, None, None, None]
    others = others if others.dim() == 4 else others[:, None, None, None]
    blended_BCHW = images_BCHW * factors_B111 + others * (1 - factors_B111)
    return blended_BCHW.clamp(0, 255).to(torch.uint8)


def erase(images_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Fill a box of every image with the mean colour, which is 0 after normalisation.

    The same as ``torchvision.transforms.v2.functional.erase`` with zeros.

    Args:
        images_BCHW: normalised images.
        boxes_B4: int64 rows of (top, left, height, width); nothing is erased in an empty box.

    Returns:
        Images of the same shape and dtype.
    """
    top_B1, left_B1, height_B1, width_B1 = boxes_B4[..., None].unbind(1)
    y_H, x_W = (torch.arange(size, device=images_BCHW.device) for size in images_BCHW.shape[2:])
    is_row_BH = (y_H >= top_B1) & (y_H < top_B1 + height_B1)
    is_column_BW = (x_W >= left_B1) & (x_W < left_B1 + width_B1)
    is_erased_B1HW = (is_row_BH[:, :, None] & is_column_BW[:, None])[:, None]
    # In a copy, which lies in memory as the images do; a masked_fill would not.
    return images_BCHW.clone().masked_fill_(is_erased_B1HW, 0)


def mix(images_BCHW: Tensor, mixing: Mixing) -> Tensor:
    """Mix every image with the one before it in the batch, the first one with the last one.

    The same as ``torchvision.transforms.v2.MixUp`` and ``CutMix`` with the same draws. Sources:
    *mixup: Beyond Empirical Risk Minimization* (arXiv 1710.09412),
    https://arxiv.org/abs/1710.09412; *CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features* (arXiv 1905.04899), https://arxiv.org/abs/1905.04899.

    Args:
        images_BCHW: normalised images.
        mixing: what was drawn for this step.

    Returns:
        Images of the same shape and dtype.
    """
    others_BCHW = images_BCHW.roll(1, 0)
    if mixing.box is None:
        return others_BCHW.mul_(1 - mixing.share).add_(images_BCHW * mixing.share)
    top, left, bottom, right = mixing.box
    mixed_BCHW = images_BCHW.clone()
    mixed_BCHW[..., top:bottom, left:right] = others_BCHW[..., top:bottom, left:right]
    return mixed_BCHW


def normalise(images_BCHW: Tensor, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """Bring raw images to mean 0 and standard deviation 1 in every channel.

    Args:
        images_BCHW: values 0 to 255, uint8 or float32.
        mean_C: float32 means on the scale 0 to 1.
        std_C: float32 standard deviations on the same scale, above 0.

    Returns:
        float32 images ``(images / 255 - mean) / std``.
    """
    batch, channels, height, width = images_BCHW.shape
    # Whole rows of W * C values: an inner loop over three channels would be ten times slower.
    rows = images_BCHW.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    scale = (1 / (255 * std_C)).repeat(width)
    shift = (-mean_C / std_C).repeat(width)
    normal = torch.addcmul(shift, rows.to(torch.float32), scale)
    return normal.view(batch, height, width, channels).permute(0, 3, 1, 2)

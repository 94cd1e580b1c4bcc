"""What can be measured of a picture without a model: its object's tone, colour and extent."""

import torch
from torch import Tensor

OBJECT_LEVELS = 24.0  # grey levels from the border's colour at which a pixel belongs to the object (training.alpha)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def measure(pixels: Tensor) -> dict[str, Tensor]:
    """Return attributes of pictures, by name.

    The object is what alpha shows; without alpha, what differs from the border's median colour.

    Args:
        pixels: uint8, (N, H, W, C), C 1, 3 or 4.

    Returns:
        float32, (N,), each: `brightness` (mean luminance of the object, grey levels) and `contrast` (its standard
        deviation), `size` (share of the picture that the object covers), `width` and `height` (share of columns and
        rows that it reaches); with colours also `red-green` and `blue-yellow` (mean differences over the object, grey
        levels, red and blue being positive). Of a picture without an object all are zero.
    """
    levels = pixels.float()
    mask = levels[..., 3] / 255 if pixels.shape[3] == 4 else _off_background(levels)
    colours = levels[..., :3]
    luminance = (colours * torch.tensor(LUMA)).sum(dim=3) if colours.shape[3] == 3 else colours[..., 0]
    brightness = _mean(luminance, mask)
    inside = mask > 0.5
    values = {
        "brightness": brightness,
        "contrast": _mean((luminance - brightness[:, None, None]).square(), mask).sqrt(),
        "size": mask.mean(dim=(1, 2)),
        "width": inside.any(dim=1).float().mean(dim=1),
        "height": inside.any(dim=2).float().mean(dim=1),
    }
    if colours.shape[3] == 3:
        red, green, blue = colours.unbind(dim=3)
        values["red-green"] = _mean(red - green, mask)
        values["blue-yellow"] = _mean(blue - (red + green) / 2, mask)
    return values


def _off_background(levels: Tensor) -> Tensor:
    """Return 1 where a pixel differs from its picture's border, else 0: float32 (N, H, W)."""
    border = torch.cat([levels[:, 0], levels[:, -1], levels[:, :, 0], levels[:, :, -1]], dim=1)
    colour = border.median(dim=1).values[:, None, None, :]
    return ((levels - colour).abs().amax(dim=3) > OBJECT_LEVELS).float()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` weighted by `mask`, both (N, H, W): float32 (N,), 0 where the mask is empty."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1e-3)

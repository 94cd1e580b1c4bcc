"""What a request wants done to its pixels, checked against the model and the limits."""

import re

from PIL import ImageColor

from service.errors import InvalidParameters
from service.pipeline import Look, ServedModel

DEFAULT_QUALITY = 85
CSS_BASIC_COLOURS = frozenset(
    {"aqua", "black", "blue", "fuchsia", "gray", "green", "lime", "maroon"}
    | {"navy", "olive", "purple", "red", "silver", "teal", "white", "yellow"}
)


def look(
    model: ServedModel, *, count: int, size: int | None, background: str, quality: int | None, max_megapixels: float
) -> Look:
    """Return the look of `count` pictures.

    Raises:
        InvalidParameters: If they are too large together, the background is no colour, or the model has no alpha.
    """
    width, height = model.output_size(size)
    if count * width * height > max_megapixels * 1e6:
        detail = f"{count} pictures of {width}x{height} are more than {max_megapixels:g} megapixels"
        raise InvalidParameters.of("/size", detail)
    if background.lower() != "auto" and model.manifest.channels != 4:
        raise InvalidParameters.of("/background", f"{model.manifest.id} has no alpha channel, got {background!r}")
    return Look(size, colour(background), DEFAULT_QUALITY if quality is None else quality)


def colour(background: str) -> tuple[int, int, int] | None:
    """Return a background's RGB, each in [0, 255]; `None` keeps what the model draws.

    Raises:
        InvalidParameters: If it is neither a name nor `#rrggbb`.
    """
    value = background.lower()
    if value in ("auto", "transparent"):
        return None
    if value in CSS_BASIC_COLOURS or re.fullmatch("#[0-9a-f]{6}", value):
        red, green, blue = ImageColor.getrgb(value)[:3]
        return red, green, blue
    known = ", ".join(sorted(CSS_BASIC_COLOURS))
    raise InvalidParameters.of("/background", f"{background!r} is none of auto, transparent, #rrggbb, {known}")

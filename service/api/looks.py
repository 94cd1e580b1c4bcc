"""What a request wants done to its pixels, checked against the model and the limits."""

import math
import re

from PIL import ImageColor

from service.errors import InvalidParameters
from service.pipeline import Look, ServedModel

DEFAULT_QUALITY = 85
LOSSY_FORMATS = frozenset({"jpeg", "webp", "avif"})
LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768}  # of libjpeg, of the format, of libavif's default
CSS_BASIC_COLOURS = frozenset(
    {"aqua", "black", "blue", "fuchsia", "gray", "green", "lime", "maroon"}
    | {"navy", "olive", "purple", "red", "silver", "teal", "white", "yellow"}
)


def look(
    model: ServedModel,
    *,
    form: str,
    count: int,
    columns: int = 0,
    size: int | None,
    background: str,
    quality: int | None,
    max_megapixels: float,
) -> Look:
    """Return the look of pictures that are sent together.

    Args:
        model: What draws them.
        form: Their format.
        count: How many they are.
        columns: Pictures in a row of a sheet; 0: they are not laid out as one.
        size: Longest side of each in pixels; `None`: the model's own.
        background: What is laid under their alpha.
        quality: Of a lossy format, in [1, 100]; `None`: the default.
        max_megapixels: What they may have together.

    Returns:
        What is to be done to each.

    Raises:
        InvalidParameters: If they are too large together or for the format, the format has no quality, the background
            is no colour, or the model has no alpha.
    """
    width, height = model.resolver.output_size(size)
    if count * width * height > max_megapixels * 1e6:
        detail = f"{count} pictures of {width}x{height} are more than {max_megapixels:g} megapixels"
        raise InvalidParameters.of("/size", detail)
    if columns:
        width, height = min(columns, count) * width, math.ceil(count / columns) * height
    if max(width, height) > LONGEST_SIDE.get(form, math.inf):
        detail = f"a sheet of {width}x{height} is too long for {form}, which takes {LONGEST_SIDE[form]}"
        raise InvalidParameters.of("/size", detail)
    if quality is not None and form not in LOSSY_FORMATS:
        raise InvalidParameters.of("/quality", f"quality is for lossy formats; {form} has none")
    if background.lower() != "auto" and model.manifest.channels != 4:
        raise InvalidParameters.of("/background", f"{model.manifest.id} has no alpha channel, got {background!r}")
    return Look(size, colour(background), DEFAULT_QUALITY if quality is None else quality)


def colour(background: str) -> tuple[int, int, int] | None:
    """Return a background's RGB.

    Args:
        background: `auto`, `transparent`, a basic CSS colour or `#rrggbb`, in any case.

    Returns:
        Red, green and blue, each in [0, 255]; `None` keeps what the model draws.

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

"""The same app, limited to batches of one image, with Pillow's default PNG: `python -m benchmarks.baseline`."""

import io
from collections.abc import Mapping

from PIL.PngImagePlugin import PngInfo

from service.__main__ import main
from service.encoder import still
from service.encoder.pixels import Pixels, to_image


def encode_png_by_pillow(pixels: Pixels, *, text: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG as Pillow writes it without options, with the same text in it."""
    information = PngInfo()
    for keyword, value in (text or {}).items():
        information.add_text(keyword, value)
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "png", pnginfo=information)
    return buffer.getvalue()


if __name__ == "__main__":
    still.encode_png = encode_png_by_pillow
    raise SystemExit(main())

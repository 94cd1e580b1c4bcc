"""uint8 pixels to bytes: stills, animations, contact sheets, and the pool that does it off the event loop.

Pure functions of their arguments, safe on any thread. Pixels have 1 (grey), 3 (RGB) or 4 (RGBA, straight alpha)
channels and are never changed in place.
"""

from typing import Final

from service.encoder.animation import AnimationFormat, encode_animation
from service.encoder.layout import flatten, resize, sheet, strip
from service.encoder.png import encode_apng, encode_png, encode_pngs
from service.encoder.pool import Encoder
from service.encoder.still import StillFormat, encode_still

ENCODER_VERSION: Final = "1"
"""Part of every ETag: raise it with any change here that alters what a client decodes or the bytes it is sent."""

__all__ = [
    "ENCODER_VERSION",
    "AnimationFormat",
    "Encoder",
    "StillFormat",
    "encode_animation",
    "encode_apng",
    "encode_png",
    "encode_pngs",
    "encode_still",
    "flatten",
    "resize",
    "sheet",
    "strip",
]

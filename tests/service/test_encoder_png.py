"""Tests of service/encoder/png.py: PNG and APNG as written, and as Pillow reads them."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from service.encoder import encode_apng, encode_png, encode_pngs

Pixels = NDArray[np.uint8]

# Other work on the machine is no failure.
unhurried = settings(deadline=None)

CHANNELS = (1, 3, 4)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
SIDES = st.integers(1, 9)


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and data of every chunk, having checked signature, lengths and CRCs."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        (crc,) = struct.unpack_from(">I", data, position + 8 + length)
        assert crc == zlib.crc32(kind + body), kind
        chunks.append((kind, body))
        position += 12 + length
    assert position == len(data)
    return chunks


def inflate(stream: bytes) -> bytes:
    """Return what a zlib stream holds, having checked its Adler-32 and that nothing follows it."""
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(stream)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    return data


def decode(image: Image.Image) -> Pixels:
    return np.array(image).reshape(image.height, image.width, -1)


def opened(data: bytes) -> Any:
    """Return an image with every chunk read, also those after the picture."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def random_pixels(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def natural_pixels(size: int, channels: int) -> Pixels:
    """Return something like a generator's picture: a soft blob on a plain ground, with a little noise."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    blob = 200 / (1 + np.exp(12 * (np.hypot(x, y * 1.3) - 0.6))) * (1 + 0.3 * np.sin(9 * x + 4 * y))
    picture = np.stack([blob * (1 - 0.2 * channel) for channel in range(channels)], axis=-1)
    return np.clip(picture + np.random.default_rng(0).normal(0, 1, picture.shape), 0, 255).astype(np.uint8)


pictures = st.tuples(SIDES, SIDES, st.sampled_from(CHANNELS)).flatmap(lambda shape: arrays(np.uint8, shape))
animations = st.tuples(st.integers(1, 4), SIDES, SIDES, st.sampled_from(CHANNELS)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


# PNG


@unhurried
@given(pixels=pictures)
def test_png_of_any_small_picture_decodes_to_it(pixels: Pixels) -> None:
    """Pillow reads back every pixel, in the mode of the channels."""
    image = opened(encode_png(pixels))
    assert (image.format, image.mode) == ("PNG", MODES[pixels.shape[-1]])
    np.testing.assert_array_equal(decode(image), pixels)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(
    "size", [(1, 1), (3, 5), (5, 3), (28, 28), (32, 32), (33, 32), (1, 1500), (1500, 1), (257, 255)]
)
def test_png_of_any_size_decodes_to_it(size: tuple[int, int], channels: int) -> None:
    """Odd sizes, single rows and columns, and both sides of the choice of filter; noise, which does not compress."""
    pixels = random_pixels(*size, channels)
    np.testing.assert_array_equal(decode(opened(encode_png(pixels))), pixels)


@unhurried
@given(pixels=pictures)
def test_png_is_well_formed(pixels: Pixels) -> None:
    """Three chunks with their CRCs, the header's fields, and one complete zlib stream of the right length."""
    height, width, channels = pixels.shape
    (ihdr, header), (idat, stream), iend = chunks_of(encode_png(pixels))
    assert (ihdr, idat, iend) == (b"IHDR", b"IDAT", (b"IEND", b""))
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    assert struct.unpack(">IIBBBBB", header) == (width, height, 8, colour_type, 0, 0, 0)
    assert len(inflate(stream)) == height * (1 + width * channels)


@pytest.mark.parametrize(
    ("shape", "filter_type"), [((28, 28, 1), 0), ((32, 32, 1), 0), ((32, 33, 1), 2), ((8, 8, 3), 2), ((8, 8, 4), 2)]
)
def test_png_has_one_filter_for_all_rows(shape: tuple[int, int, int], filter_type: int) -> None:
    """None for small grey pictures, up for all others."""
    scanlines = inflate(chunks_of(encode_png(random_pixels(*shape)))[1][1])
    assert set(scanlines[:: 1 + shape[1] * shape[2]]) == {filter_type}


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 1), (64, 3), (64, 4), (256, 3)])
def test_png_is_not_much_larger_than_pillows(size: int, channels: int) -> None:
    """Within 25 % of Pillow's default on what suits a fixed filter least; unfiltered, most would be 40 % larger."""
    pixels = natural_pixels(size, channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
    assert len(encode_png(pixels)) < 1.25 * len(buffer.getvalue())


@pytest.mark.parametrize("channels", CHANNELS)
def test_png_depends_on_the_pixels_and_not_on_their_memory(channels: int) -> None:
    """Views with any strides and read-only arrays give the same bytes, and are left as they are."""
    pixels = random_pixels(40, 30, channels)
    expected = encode_png(pixels.copy())
    wide = random_pixels(80, 60, channels)
    wide[::2, ::2] = pixels
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    pixels.setflags(write=False)
    views = [pixels, wide[::2, ::2], planes.transpose(1, 2, 0), np.asfortranarray(pixels), pixels[::-1].copy()[::-1]]
    for view in views:
        before = view.copy()
        assert encode_png(view) == expected
        np.testing.assert_array_equal(view, before)


@pytest.mark.parametrize("shape", [(28, 28, 1), (40, 40, 1), (9, 16, 3), (16, 9, 4)])
def test_pngs_of_a_batch_are_those_of_its_pictures(shape: tuple[int, int, int]) -> None:
    """Filtered together or alone, each with its own text: the same bytes."""
    pictures = np.stack([random_pixels(*shape) for _ in range(3)])
    texts = [{"Seed": str(number), "Software": "Vitrine"} for number in range(2)] + [{}]

    expected = [encode_png(picture, text=text) for picture, text in zip(pictures, texts, strict=True)]
    assert encode_pngs(pictures, texts) == expected


def test_png_is_the_same_on_many_threads() -> None:
    """Encoding shares no state."""
    pictures = [random_pixels(64, 64, 3) ^ np.uint8(index) for index in range(16)]
    expected = [encode_png(pixels) for pixels in pictures]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            assert list(pool.map(encode_png, pictures)) == expected


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 1), np.int16),
        np.zeros((4, 4, 1), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape}",
)
def test_png_of_what_is_no_picture_is_refused(pixels: Any) -> None:
    """The message names dtype and shape."""
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, C\)") as caught:
        encode_png(pixels)
    assert str(pixels.shape) in str(caught.value)


# Text


def test_text_is_found_by_pillow() -> None:
    """Keywords and values come back, also an empty value, line breaks and any language."""
    text = {"Title": "Café №", "Software": "vitrine 1.0", "Seed": "", "Ça va": "größe\nzwei", "Comment": "日本語 🎨"}
    assert opened(encode_png(random_pixels(3, 3, 3), text=text)).text == text


def test_text_stands_between_header_and_picture_in_its_order() -> None:
    """Latin-1 values are tEXt, all others iTXt in UTF-8, and XMP is always iTXt."""
    text = {"b": "größe", "a": "日本", "XML:com.adobe.xmp": "<x/>"}
    chunks = chunks_of(encode_png(random_pixels(3, 3, 1), text=text))
    assert [kind for kind, _ in chunks] == [b"IHDR", b"tEXt", b"iTXt", b"iTXt", b"IDAT", b"IEND"]
    assert chunks[1][1] == b"b\0gr\xf6\xdfe"
    assert chunks[2][1] == b"a\0\0\0\0\0" + "日本".encode()
    assert chunks[3][1] == b"XML:com.adobe.xmp\0\0\0\0\0<x/>"


@pytest.mark.parametrize("text", [None, {}])
def test_png_without_text_has_no_text_chunks(text: dict[str, str] | None) -> None:
    """Nothing is embedded unasked."""
    assert len(chunks_of(encode_png(random_pixels(3, 3, 1), text=text))) == 3


@pytest.mark.parametrize("keyword", ["", "x" * 80, " x", "x ", "a  b", "a\nb", "a\0b", "日本", "\u00a0", "x\n"])
def test_keyword_that_png_cannot_hold_is_refused(keyword: str) -> None:
    """1 to 79 printable Latin-1 characters without leading, trailing or double spaces."""
    with pytest.raises(ValueError, match="keyword"):
        encode_png(random_pixels(3, 3, 1), text={keyword: "x"})


def test_keyword_of_79_characters_is_taken() -> None:
    """The longest that PNG holds."""
    assert opened(encode_png(random_pixels(3, 3, 1), text={"é" * 79: "x"})).text == {"é" * 79: "x"}


@pytest.mark.parametrize("value", ["a\0b", "\x1b[31m", "\x7f", "\x85", "\r\n", "\ud800", "\ufffe"])
def test_value_with_control_characters_is_refused(value: str) -> None:
    """Nor can a NUL cut a value short, nor half a surrogate pair fail deep in a codec."""
    with pytest.raises(ValueError, match="'Comment' must hold no control characters"):
        encode_png(random_pixels(3, 3, 1), text={"Comment": value})


# APNG


@unhurried
@given(frames=animations, fps=st.integers(1, 60))
def test_apng_frames_decode_exactly(frames: Pixels, fps: int) -> None:
    """Pillow reads back every pixel of every frame, transparent ones too, and their timing."""
    image = opened(encode_apng(frames, fps=fps))
    assert image.n_frames == len(frames)
    for index, frame in enumerate(frames):
        image.seek(index)
        assert image.mode == MODES[frames.shape[-1]]
        np.testing.assert_array_equal(decode(image), frame)
        assert image.info["duration"] == pytest.approx(1000 / fps)


@unhurried
@given(frames=animations, fps=st.integers(1, 60), loops=st.integers(0, 5))
def test_apng_is_well_formed(frames: Pixels, fps: int, loops: int) -> None:
    """The chunks' order, one sequence over fcTL and fdAT, whole-picture frames, and a zlib stream for each."""
    count, height, width, channels = frames.shape
    chunks = chunks_of(encode_apng(frames, fps=fps, loops=loops, text={"Seed": "7"}))
    kinds = [kind for kind, _ in chunks]
    assert kinds == [b"IHDR", b"tEXt", b"acTL", b"fcTL", b"IDAT", *[b"fcTL", b"fdAT"] * (count - 1), b"IEND"]
    assert struct.unpack(">II", chunks[2][1]) == (count, loops)
    controls = [body for kind, body in chunks if kind == b"fcTL"]
    assert all(body[4:] == struct.pack(">IIIIHHBB", width, height, 0, 0, 1, fps, 0, 0) for body in controls)
    sequence = [struct.unpack_from(">I", body)[0] for kind, body in chunks if kind in (b"fcTL", b"fdAT")]
    assert sequence == list(range(2 * count - 1))
    streams = [body if kind == b"IDAT" else body[4:] for kind, body in chunks if kind in (b"IDAT", b"fdAT")]
    assert [len(inflate(stream)) for stream in streams] == [height * (1 + width * channels)] * count


@pytest.mark.parametrize("channels", CHANNELS)
def test_apng_frames_have_the_stream_of_their_still(channels: int) -> None:
    """A frame is encoded as the same picture alone is."""
    frames = random_pixels(3, 40, 33, channels)
    chunks = chunks_of(encode_apng(frames, fps=12))
    streams = [body if kind == b"IDAT" else body[4:] for kind, body in chunks if kind in (b"IDAT", b"fdAT")]
    assert streams == [chunks_of(encode_png(frame))[1][1] for frame in frames]


@pytest.mark.parametrize(
    "arguments", [{"fps": 0}, {"fps": 65536}, {"fps": 12, "loops": -1}, {"fps": 12, "loops": 2**31}]
)
def test_apng_with_numbers_out_of_range_is_refused(arguments: dict[str, Any]) -> None:
    """What the chunks' fields cannot hold is an error."""
    with pytest.raises(ValueError, match="fps must be in"):
        encode_apng(random_pixels(2, 3, 3, 1), **arguments)


@pytest.mark.parametrize("shape", [(3, 3, 1), (0, 3, 3, 1), (2, 3, 3, 2)])
def test_apng_of_what_are_no_frames_is_refused(shape: tuple[int, ...]) -> None:
    """One picture is no animation, nor is none."""
    with pytest.raises(ValueError, match=r"must be uint8 \(N, H, W, C\)"):
        encode_apng(np.zeros(shape, np.uint8), fps=12)


def test_encoder_needs_neither_opencv_nor_torch_nor_http() -> None:
    """With those packages blocked, the encoder and the sampler import and a picture is encoded."""
    program = (
        "import sys\n"
        "for name in ('cv2', 'torch', 'fastapi', 'starlette', 'imagecodecs'): sys.modules[name] = None\n"
        "import numpy, service.encoder, service.sampler\n"
        "sys.stdout.buffer.write(service.encoder.encode_png(numpy.arange(48, dtype='uint8').reshape(4, 4, 3)))\n"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True)
    np.testing.assert_array_equal(decode(opened(result.stdout)), np.arange(48).reshape(4, 4, 3))

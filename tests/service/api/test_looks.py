"""What a request wants done to its pixels, checked before anything is drawn."""

import pytest
from PIL import ImageColor

from service.api.looks import CSS_BASIC_COLOURS, DEFAULT_QUALITY, LONGEST_SIDE, colour, look
from service.encoder import Encoder, encode_still
from service.errors import InvalidParameters
from service.metrics import Metrics
from service.pipeline import Look, ServedModel
from tests.service.api.harness import SIDE, FakeEngine, a_bundle

MODEL_SIDE = SIDE


def a_model(channels: int = 1) -> ServedModel:
    """Return a served model of 16x16 pictures that draws nothing."""
    bundle = a_bundle(channels=channels)
    return ServedModel(bundle, FakeEngine(bundle.manifest), encoder=Encoder(1), metrics=Metrics(), max_queue_images=64)


def a_look(model: ServedModel | None = None, **changes: object) -> Look:
    """Return the look of one PNG without further wishes, but for `changes`."""
    wishes = {"form": "png", "count": 1, "size": None, "background": "auto", "quality": None, "max_megapixels": 64.0}
    return look(model or a_model(), **(wishes | changes))  # type: ignore[arg-type]


def test_look_without_wishes_leaves_pixels_alone() -> None:
    """Nothing is scaled or laid on a colour, and lossy formats have the default quality."""
    assert a_look() == Look(size=None, background=None, quality=DEFAULT_QUALITY)


@pytest.mark.parametrize(("count", "size"), [(1, 1000), (4, 500), (16, 250)])
def test_megapixels_are_counted_over_all_pictures(count: int, size: int) -> None:
    """Exactly as many pixels as allowed are allowed, and one more a side is not."""
    assert a_look(count=count, size=size, max_megapixels=1.0).size == size
    with pytest.raises(InvalidParameters, match="megapixels"):
        a_look(count=count, size=size + 1, max_megapixels=1.0)


@pytest.mark.parametrize("form", ["png", "gif"])
def test_quality_of_a_lossless_format_is_refused(form: str) -> None:
    """There is no quality where nothing is lost."""
    with pytest.raises(InvalidParameters, match=f"{form} has none") as caught:
        a_look(form=form, quality=50)
    assert caught.value.errors[0].pointer == "/quality"


@pytest.mark.parametrize("form", ["jpeg", "webp", "avif"])
def test_quality_of_a_lossy_format_is_taken(form: str) -> None:
    """The lossy formats take what they are told."""
    assert a_look(form=form, quality=7).quality == 7


@pytest.mark.parametrize(("form", "longest"), LONGEST_SIDE.items())
def test_sheet_longer_than_its_format_allows_is_refused(form: str, longest: int) -> None:
    """A sheet whose longer side the format cannot hold is refused before it is drawn, whichever side that is."""
    fits = longest // MODEL_SIDE
    for columns in (1, fits + 1):
        with pytest.raises(InvalidParameters, match=f"too long for {form}"):
            a_look(form=form, count=fits + 1, columns=columns)
    assert a_look(form=form, count=fits, columns=1)
    assert a_look(form="png", count=fits + 1, columns=1)


def test_longest_side_is_what_the_codec_takes() -> None:
    """The limit of WebP, the lowest one, is the codec's own."""
    import numpy as np

    side = LONGEST_SIDE["webp"]
    assert encode_still(np.zeros((1, side, 1), np.uint8), "webp", quality=1)
    with pytest.raises(ValueError, match="exceeds WebP limit"):
        encode_still(np.zeros((1, side + 1, 1), np.uint8), "webp", quality=1)


@pytest.mark.parametrize("background", ["red", "transparent", "#000000", "nonsense", ""])
def test_background_needs_alpha(background: str) -> None:
    """A model without alpha has no background, whatever its colour."""
    with pytest.raises(InvalidParameters, match="no alpha channel"):
        a_look(background=background)


def test_background_of_a_model_with_alpha_is_taken() -> None:
    """A colour is laid under, `transparent` and `auto` keep the alpha."""
    model = a_model(channels=4)
    assert a_look(model, background="red").background == (255, 0, 0)
    assert a_look(model, background="transparent").background is None
    assert a_look(model, background="AUTO").background is None


@pytest.mark.parametrize(
    ("name", "rgb"), [("#a1b2c3", (0xA1, 0xB2, 0xC3)), ("#A1B2C3", (0xA1, 0xB2, 0xC3)), ("NAVY", (0, 0, 128))]
)
def test_colour_is_a_name_or_six_digits(name: str, rgb: tuple[int, int, int]) -> None:
    """Case does not matter."""
    assert colour(name) == rgb


@pytest.mark.parametrize("name", sorted(CSS_BASIC_COLOURS))
def test_every_basic_colour_has_its_css_value(name: str) -> None:
    """The sixteen names of CSS are known."""
    assert colour(name) == ImageColor.getrgb(name)
    assert len(CSS_BASIC_COLOURS) == 16


@pytest.mark.parametrize("name", ["", "#fff", "#ffffff00", "#gggggg", "ffffff", "tomato", "rgb(1,2,3)", "#ffffff\n"])
def test_other_colours_are_refused_and_told_what_there_is(name: str) -> None:
    """Anything else is refused with the list of what can be said."""
    with pytest.raises(InvalidParameters, match="aqua, black") as caught:
        colour(name)
    assert caught.value.errors[0].pointer == "/background"

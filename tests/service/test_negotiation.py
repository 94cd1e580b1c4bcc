"""`Accept`, `ETag`, `Cache-Control` and permanent links as pure functions."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import negotiation
from service.errors import NotAcceptable
from service.negotiation import Representation, represent

FORMATS = ("png", "jpeg", "webp", "avif")
TAG = 'W/"abc"'


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("image/png", {"image/png": 1.0}),
        ("Image/PNG;Q=0.5 , */* ; q=0.1", {"image/png": 0.5, "*/*": 0.1}),
        ("image/png;level=1;q=0.3", {"image/png": 0.3}),
        ("a/b;q=2, c/d;q=-1, e/f;q=x, g/h;q=nan, i/j;q=", {"a/b": 1.0, "c/d": 0.0, "e/f": 0.0, "g/h": 0.0, "i/j": 0.0}),
        ("", {}),
        (" , ;q=1", {}),
    ],
)
def test_qualities_of_an_accept_header(accept: str, expected: dict[str, float]) -> None:
    """Media ranges come with their q-values, in [0, 1]; what is no number is 0."""
    assert negotiation.qualities(accept) == expected


@pytest.mark.parametrize(
    ("accept", "explicit", "kind", "form"),
    [
        (None, None, "image", "png"),
        ("", None, "image", "png"),
        ("*/*", None, "image", "png"),
        ("image/*;q=0.1", None, "image", "png"),
        ("image/webp,image/png;q=0.1", None, "image", "png"),
        ("image/webp;q=0.2,image/jpeg;q=0.9", None, "image", "jpeg"),
        ("image/webp,*/*;q=0", None, "image", "webp"),
        ("image/png;q=0,image/*", None, "image", "jpeg"),
        ("application/json", None, "json", "png"),
        ("application/*", None, "json", "png"),
        ("application/json,*/*", None, "json", "png"),
        ("application/json;q=0.9,*/*", None, "image", "png"),
        ("application/json;q=0,*/*", None, "image", "png"),
        ("image/webp;q=0.9,application/json", None, "json", "png"),
        ("image/png", "webp", "image", "webp"),
        ("image/tiff", "webp", "image", "webp"),
        ("application/json", "webp", "json", "webp"),
        ("*/*", "auto", "image", "png"),
        ("image/webp,image/avif;q=0.1,*/*", "auto", "image", "avif"),
        ("image/avif;q=0,image/webp", "auto", "image", "webp"),
        ("application/json", "auto", "json", "png"),
    ],
)
def test_representation_is_png_unless_asked_otherwise(
    accept: str | None, explicit: str | None, kind: str, form: str
) -> None:
    """PNG where it is acceptable, JSON where it is named, an explicit format where any image is acceptable."""
    assert represent(accept, explicit, FORMATS) == Representation(kind, form, vary=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("explicit", [None, "png", "webp", "auto"])
@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "*/*;q=0", "application/zip", "nonsense"])
def test_header_that_names_nothing_of_ours_is_refused(accept: str, explicit: str | None) -> None:
    """What cannot be made is refused with the list of what can."""
    with pytest.raises(NotAcceptable, match="image/avif, application/json"):
        represent(accept, explicit, FORMATS)


def test_format_that_is_not_on_offer_is_not_chosen() -> None:
    """Only formats that can be made here are chosen, also where the header would rather have another."""
    assert represent("image/avif,image/png;q=0.1", "auto", ("png",)).format == "png"
    with pytest.raises(NotAcceptable):
        represent("image/avif", None, ("png",))


@given(accept=st.text(max_size=40), explicit=st.sampled_from([None, "auto", *FORMATS]))
def test_no_header_is_an_error_of_ours(accept: str, explicit: str | None) -> None:
    """Any text gives a representation that can be made, or is not acceptable."""
    try:
        chosen = represent(accept, explicit, FORMATS)
    except NotAcceptable:
        return
    assert chosen.format in FORMATS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        (TAG, True),
        ('"abc"', True),
        ("*", True),
        (' "x" , W/"abc"', True),
        ('"abcd"', False),
        ("abc", False),
        ('W/"ABC"', False),
    ],
)
def test_if_none_match_is_compared_weakly(header: str | None, expected: bool) -> None:
    """A list, a star, and the tag with or without its mark of weakness match; nothing else does."""
    assert negotiation.matches(header, TAG) is expected


def test_etag_depends_on_everything_but_the_order() -> None:
    """Digest, encoder, parameters and pictures make the tag; the order of the parameters does not."""

    def tag(model: str, encoder: str, parameters: dict[str, object], pictures: object = 7) -> str:
        return negotiation.Validator(model, encoder, parameters).etag(pictures)

    first = tag("d", "1", {"a": 1, "b": 2})
    assert first == tag("d", "1", {"b": 2, "a": 1})
    others = [tag("e", "1", {"a": 1, "b": 2}), tag("d", "2", {"a": 1, "b": 2}), tag("d", "1", {"a": 1, "b": 2}, 8)]
    others += [tag("d", "1", {"a": 1}), tag("d", "1", {"a": 1, "b": 3}), tag("d", "1", {"a": 1, "b": "2"})]
    assert len({first, *others}) == 7
    assert first.startswith('W/"')


def test_validator_makes_the_same_tag_again() -> None:
    """What it has made does not change what it makes."""
    validator = negotiation.Validator("d", "1", {})
    first, other, again = (validator.etag(picture) for picture in (1, 2, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("versioned", "seeded", "expected"),
    [
        (True, True, "public, max-age=31536000, immutable"),
        (False, True, "public, max-age=60, stale-while-revalidate=600"),
        (True, False, "no-store"),
        (False, False, "no-store"),
    ],
)
def test_cache_control_follows_what_is_fixed(versioned: bool, seeded: bool, expected: str) -> None:
    """A random picture is never stored, and a named version for ever."""
    assert negotiation.cache_control(versioned=versioned, seeded=seeded) == expected


@given(st.dictionaries(st.sampled_from(["label", "size", "background"]), st.text(max_size=20)))
def test_permalink_round_trips(parameters: dict[str, str]) -> None:
    """Whatever a label is called, the link's query gives it back, and the link is ASCII."""
    link = urlsplit(
        negotiation.permalink(negotiation.permalink_base("tiny@1"), 7, "png", negotiation.link_query(parameters))
    )
    assert link.path == "/i/tiny@1/7.png"
    assert parse_qs(link.query, keep_blank_values=True) == {name: [value] for name, value in parameters.items()}
    assert link.geturl().isascii()


def test_permalink_without_parameters_has_no_query() -> None:
    """The shortest link is path only."""
    assert (
        negotiation.permalink(negotiation.permalink_base("tiny@1"), 7, "webp", negotiation.link_query({}))
        == "/i/tiny@1/7.webp"
    )

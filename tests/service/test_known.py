"""What requests mean: which of them are the same but for the seed, and how much is remembered."""

import pytest

from service.known import MAX_TARGET_BYTES, OVERHEAD_BYTES, KnownRequests, Picture
from service.sampler import seed_from


def scope(path: str = "/generate", query: bytes = b"seed=1", **headers: str) -> dict[str, object]:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "query_string": query, "headers": raw}


def picture_of(name: str, seed: int | None) -> Picture:
    return Picture(f"{name} {seed}", list, None, lambda key: None)


def keep(requests: KnownRequests, name: str, request: dict[str, object]) -> None:
    requests.keep(request, lambda seed: picture_of(name, seed))


def found(requests: KnownRequests, request: dict[str, object]) -> str | None:
    entry = requests.find(request)
    return None if entry is None else entry[0].etag


def test_request_is_known_by_path_query_and_accept() -> None:
    """Other headers do not matter; another seed is another picture of the same kind."""
    requests = KnownRequests(1_000_000)
    keep(requests, "a", scope(accept="image/png"))

    assert found(requests, scope(accept="image/png", cookie="x")) == "a 1"
    assert found(requests, scope(query=b"seed=9007199254740", accept="image/png")) == "a 9007199254740"
    others = [scope(), scope(accept="image/*"), scope(query=b"seed=1&n=2", accept="image/png")]
    others += [scope("/interpolate", accept="image/png"), scope("/i/seed=1", accept="image/png")]
    assert [found(requests, other) for other in others] == [None] * 5


@pytest.mark.parametrize("query", [b"seed=7", b"seed=7&n=2", b"label=%2F&seed=7", b"a=1&seed=7&b=2", b"xseed=1&seed=7"])
def test_seed_is_found_wherever_it_stands(query: bytes) -> None:
    """Between other parameters, whatever those are."""
    requests = KnownRequests(1_000_000)
    keep(requests, "a", scope(query=query))

    assert found(requests, scope(query=query)) == "a 7"
    assert found(requests, scope(query=query.replace(b"7", b"8"))) == "a 8"
    assert found(requests, scope(query=query + b"&c=1")) is None


@pytest.mark.parametrize(
    "text", ["0", "9007199254740991", "9007199254740993", "007", "sku-1234_b", "-7", "~", "A" * 128]
)
@pytest.mark.parametrize("path", ["/generate", "/i/tiny@1/"])
def test_seed_of_any_text_is_what_it_means(text: str, path: str) -> None:
    """As the parser has it: digits are that number, all else is hashed."""
    requests = KnownRequests(1_000_000)

    def request(seed: str) -> dict[str, object]:
        return scope(path, f"seed={seed}".encode()) if path == "/generate" else scope(f"{path}{seed}.png", b"")

    keep(requests, "a", request("1"))
    assert found(requests, request(text)) == f"a {seed_from(text)}"


SPELT = (b"seed=+7", b"seed=%37", b"seed=a.b", b"Seed=7", b"seed=", b"seed=" + b"7" * 129, b"")


@pytest.mark.parametrize("query", SPELT)
def test_other_spelling_is_a_target_of_its_own(query: bytes) -> None:
    """What would have to be decoded or refused is for the parser; the picture is that of the request itself."""
    requests = KnownRequests(1_000_000)
    keep(requests, "a", scope(query=query))
    keep(requests, "b", scope(query=b"seed=1"))

    assert found(requests, scope(query=query)) == "a None"
    assert found(requests, scope(query=b"seed=7")) == "b 7"


def test_targets_do_not_push_out_kinds() -> None:
    """There may be any number of animations, and there are few kinds of pictures."""
    requests = KnownRequests(4 * (OVERHEAD_BYTES + 100))
    keep(requests, "a", scope(query=b"seed=1"))
    for number in range(9):
        keep(requests, "b", scope("/interpolate", b"from=1&to=%d" % number))

    assert found(requests, scope(query=b"seed=2")) == "a 2"
    assert found(requests, scope("/interpolate", b"from=1&to=8")) == "b None"
    assert found(requests, scope("/interpolate", b"from=1&to=0")) is None


@pytest.mark.parametrize("repeated", [b"seed=1&seed=2", b"seed=2&s%65ed=1"])
def test_seed_that_is_given_twice_is_not_taken_for_one(repeated: bytes) -> None:
    """Such a request is refused when it is parsed, so its like is never kept."""
    requests = KnownRequests(1_000_000)
    keep(requests, "a", scope(query=b"seed=1"))

    assert found(requests, scope(query=repeated)) is None


def test_seed_of_a_permanent_link() -> None:
    """Is the file's name; model, extension and query make the kind."""
    requests = KnownRequests(1_000_000)
    keep(requests, "a", scope("/i/tiny@1/5.png", b"label=2"))

    assert found(requests, scope("/i/tiny@1/6.png", b"label=2")) == "a 6"
    others = [("/i/tiny@2/6.png", b"label=2"), ("/i/tiny@1/6.webp", b"label=2"), ("/i/tiny@1/6.png", b"")]
    others += [("/i/tiny@1/6.7.png", b"label=2"), ("/i/tiny@1/.png", b"label=2"), ("/i/tiny@1/6", b"label=2")]
    assert [found(requests, scope(*other)) for other in others] == [None] * 6


def test_least_recently_used_is_given_up() -> None:
    """What is asked for again stays."""
    requests = KnownRequests(4 * (OVERHEAD_BYTES + 100))
    for number in (1, 2):
        keep(requests, "a", scope(query=b"seed=1&n=%d" % number))
    assert found(requests, scope(query=b"seed=1&n=1"))
    keep(requests, "a", scope(query=b"seed=1&n=3"))

    kept = [bool(found(requests, scope(query=b"seed=1&n=%d" % number))) for number in (1, 2, 3)]
    assert kept == [True, False, True]


@pytest.mark.parametrize(("room", "length"), [(0, 1), (10**6, MAX_TARGET_BYTES)])
def test_nothing_is_kept_without_room_or_of_huge_targets(room: int, length: int) -> None:
    """A client that varies a long query cannot push out everybody else's entries."""
    requests = KnownRequests(room)
    keep(requests, "a", scope(query=b"x" * length))
    assert found(requests, scope(query=b"x" * length)) is None


def test_everything_can_be_forgotten() -> None:
    """And then there is as much room as before."""
    requests = KnownRequests(2 * (OVERHEAD_BYTES + 100))
    keep(requests, "a", scope())
    requests.forget()
    assert found(requests, scope()) is None
    keep(requests, "b", scope())
    assert found(requests, scope()) == "b 1"

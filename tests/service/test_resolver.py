"""What a request's words mean for a model: labels, truncation, sizes, seeds and latents."""

from typing import Any

import numpy as np
import pytest

from service import errors, rng
from service.bundle import Bundle
from service.manifest import LabelEntry
from service.resolver import Resolver
from tests.service.api.harness import a_bundle


def resolver(bundle: Bundle | None = None, **changes: Any) -> Resolver:
    """Return the resolver of a manifest; `changes` are of it."""
    return Resolver((bundle or a_bundle()).manifest.model_copy(update=changes))


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (0, 0),
        (2, 2),
        ("1", 1),
        ("02", 2),
        ("bag", 1),
        ("Ankle boot", 0),
        ("ANKLE BOOT", 0),
        (" bag ", 1),
        ("handbag", 1),
        ("PURSE", 1),
        ("bootie", 0),
        ("t-shirt/top", 2),
        ("tee", 2),
    ],
)
def test_label_is_found_by_index_name_or_alias(value: int | str, index: int) -> None:
    """Names and aliases are compared without regard to case and surrounding spaces; digits are an index."""
    assert resolver().label(value) == index


@pytest.mark.parametrize(
    "value", [3, -1, "3", "-1", "hat", "", "1.0", "²", "bag\0", "9" * 64, pytest.param(10**4000, id="huge")]
)
def test_unknown_label_is_refused_with_the_valid_ones(value: int | str) -> None:
    """The answer names the field and lists what could have been said, and repeats no more than is readable."""
    with pytest.raises(errors.InvalidParameters) as answer:
        resolver().label(value, "/labels/4")

    (field,) = answer.value.errors
    assert field.pointer == "/labels/4"
    assert field.detail.startswith("unknown label ")
    assert field.detail.endswith("; tiny@1 has 0 Ankle boot, 1 bag, 2 t-shirt/top")
    assert len(field.detail) < 200


@pytest.mark.parametrize("value", [0, "0", "bag"])
def test_model_without_labels_takes_none(value: int | str) -> None:
    """An unconditional resolved says so, rather than listing nothing."""
    with pytest.raises(errors.InvalidParameters, match="label: tiny@1 has no labels"):
        resolver(a_bundle(labels=())).label(value)


def test_name_goes_before_another_labels_alias() -> None:
    """Words that two labels lay claim to go to the one whose name it is, then to the first; digits too."""
    entries = (
        LabelEntry(name="top", aliases=("shirt", "wear", "2")),
        LabelEntry(name="Shirt", aliases=("wear",)),
        LabelEntry(name="hat"),
    )
    resolved = resolver(labels=entries)

    assert [resolved.label(word) for word in ("shirt", "wear", "2", 2)] == [1, 0, 0, 2]


def test_label_of_a_seed_is_drawn_or_the_default() -> None:
    """Who names no label gets the manifest's, else one drawn from the seed, else the only one."""
    drawn, fixed, unconditional = resolver(), resolver(), resolver(a_bundle(labels=()))
    fixed = resolver(defaults=drawn.manifest.defaults.model_copy(update={"label": 2}))

    assert [drawn.label_of(seed) for seed in range(50)] == [rng.label_from(seed, 3) for seed in range(50)]
    assert {drawn.label_of(seed) for seed in range(50)} == {0, 1, 2}
    assert {fixed.label_of(seed) for seed in range(50)} == {2}
    assert {unconditional.label_of(seed) for seed in range(50)} == {0}


def test_truncation_is_the_requests_or_the_default() -> None:
    """A psi of 0 is a wish like any other, not a missing one."""
    resolved = resolver()
    resolved = resolver(defaults=resolved.manifest.defaults.model_copy(update={"truncation_psi": 0.7}))

    assert [resolved.psi(None), resolved.psi(0.0), resolved.psi(1.0)] == [0.7, 0.0, 1.0]
    assert [order.sample.truncation_psi for order in resolved.orders([1], [None], 0.0)] == [0.0]


def test_order_holds_the_seeds_latent_and_label() -> None:
    """An order is the latent of its seed, and the sample has the label and psi that the answer will name."""
    resolved = resolver()
    orders = resolved.orders([5, 6, 5], [1, None, 2], 0.5)

    assert [(order.seed, order.label) for order in orders] == [(5, 1), (6, rng.label_from(6, 3)), (5, 2)]
    assert np.array_equal([resolved.latent_of(order) for order in orders], rng.latents([5, 6, 5], 8))
    assert [order.sample.label for order in orders] == [order.label for order in orders]
    assert {order.sample.truncation_psi for order in orders} == {0.5}


def test_orders_need_a_label_per_seed() -> None:
    """Lists of different lengths are our own mistake, and never cut to the shorter one."""
    with pytest.raises(ValueError, match="zip"):
        resolver().orders([1, 2], [None], None)


@pytest.mark.parametrize(("label", "chosen"), [(None, 2), (0, 0), (1, 1)])
def test_order_of_a_latent_takes_the_label_that_was_said(label: int | None, chosen: int) -> None:
    """Label 0 is a label; only a missing one is replaced by the default."""
    resolved = resolver()
    resolved = resolver(defaults=resolved.manifest.defaults.model_copy(update={"label": 2}))
    (order,) = resolved.orders_from_latents([[0.5] * 8], [label], None)

    assert order.seed is None
    assert order.label == order.sample.label == chosen
    assert order.sample.z.dtype == np.float32
    assert order.sample.z.tolist() == [0.5] * 8


@pytest.mark.parametrize("length", [0, 7, 9])
def test_latent_of_a_wrong_length_is_refused(length: int) -> None:
    """The answer says which latent, how long it is and how long it has to be."""
    with pytest.raises(errors.InvalidParameters) as answer:
        resolver().orders_from_latents([[0.0] * 8, [0.0] * length], [None, None], None)

    (field,) = answer.value.errors
    assert (field.pointer, field.detail) == ("/latents/1", f"{length} numbers, tiny@1 takes 8")


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (16, 16, None, (16, 16)),
        (16, 16, 64, (64, 64)),
        (40, 20, 80, (80, 40)),
        (20, 40, 16, (8, 16)),
        (1000, 1, 16, (16, 1)),
    ],
)
def test_size_is_the_longest_side(width: int, height: int, size: int | None, expected: tuple[int, int]) -> None:
    """The picture keeps its shape, and no side vanishes."""
    assert resolver(width=width, height=height).output_size(size) == expected

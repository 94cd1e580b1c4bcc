"""Pictures whose requests differ in nothing but the seed: what they have in common is made once."""

import functools
from collections.abc import Mapping

from service import negotiation
from service.api import answers
from service.api.inputs import consecutive
from service.api.recipe import Recipe
from service.encoder import ENCODER_VERSION
from service.known import Picture
from service.negotiation import MEDIA_TYPES
from service.resolver import Order


class Series:
    """The pictures of a GET, one for each seed, or one sheet for each first seed.

    Args:
        recipe: How they are drawn and sent.
        count: Pictures of each answer, whose seeds are consecutive.
        label: Of all of them; `None`: each is drawn from its seed.
        truncation_psi: Of all of them; `None`: the model's.
        headers: Those of the request's answers that the recipe does not know.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        count: int,
        label: int | None,
        truncation_psi: float | None,
        headers: Mapping[str, str],
    ) -> None:
        self._recipe, self._count, self._label = recipe, count, label
        resolver = recipe.model.resolver
        self._psi = resolver.psi(truncation_psi)
        self.headers = {**headers, **recipe.headers}
        self._raw = answers.raw({**self.headers, "Content-Type": MEDIA_TYPES[recipe.form]})
        identity = {**recipe.identity, "truncation_psi": self._psi}
        self._validator = negotiation.Validator(recipe.model.identity, ENCODER_VERSION, identity)
        self._link_base = negotiation.permalink_base(recipe.model.manifest.id)
        self._queries: dict[int, str] = {}  # of permanent links, by label

    def orders(self, seed: int) -> list[Order]:
        """Return the pictures of the answer for a seed."""
        labels = [self._label] * self._count
        return self._recipe.model.resolver.orders(consecutive(seed, self._count), labels, self._psi)

    def etag(self, orders: list[Order]) -> str:
        """Return the validator of an answer."""
        return self._validator.etag([(order.seed, order.label) for order in orders])

    def picture(self, seed: int) -> Picture:
        """Return the answer for a seed, which is an image."""
        recipe, orders = self._recipe, self.orders(seed)
        etag = self.etag(orders)
        headers = [*self._raw, (b"etag", etag.encode()), (b"x-seed", answers.seeds_header(orders).encode())]
        if recipe.is_one_picture:
            headers.append((b"content-location", self._link(orders[0]).encode()))
        return Picture(etag, headers, functools.partial(recipe.encoded, orders), recipe.model.refusal)

    def _link(self, order: Order) -> str:
        query = self._queries.get(order.label)
        if query is None:
            query = self._queries[order.label] = self._recipe.link_query(order)
        assert order.seed is not None  # it was made from one
        return negotiation.permalink(self._link_base, order.seed, self._recipe.form, query)

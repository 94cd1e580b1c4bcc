"""Pictures whose requests differ in nothing but the seed: what they have in common is made once."""

import functools
from collections.abc import Mapping

from service import negotiation
from service.api import answers
from service.api.inputs import consecutive
from service.api.recipe import Recipe
from service.batcher import Terms
from service.encoder import ENCODER_VERSION
from service.known import Picture
from service.negotiation import MEDIA_TYPES
from service.ready import RawHeaders, raw
from service.resolver import Order

KEPT_QUERIES = 64  # of permanent links, one for each label


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
        self._raw = raw({**self.headers, "Content-Type": MEDIA_TYPES[recipe.form]})
        identity = {**recipe.identity, "truncation_psi": self._psi}
        self._validator = negotiation.Validator(recipe.model.identity, ENCODER_VERSION, identity)
        self._link_base = negotiation.permalink_base(recipe.model.manifest.id)
        self._link_query = functools.lru_cache(KEPT_QUERIES)(self._query_of)

    def orders(self, seed: int) -> list[Order]:
        """Return the pictures of the answer for a seed."""
        labels = [self._label] * self._count
        return self._recipe.model.resolver.orders(consecutive(seed, self._count), labels, self._psi)

    def etag(self, seed: int) -> str:
        """Return the validator of the answer for a seed."""
        return self._validator.etag([(one, self._label_of(one)) for one in consecutive(seed, self._count)])

    def picture(self, seed: int) -> Picture:
        """Return the answer for a seed, which is an image."""
        etag = self.etag(seed)
        headers = functools.partial(self._raw_headers, seed, etag)
        return Picture(etag, headers, functools.partial(self._encoded, seed), self._recipe.model.refusal)

    async def _encoded(self, seed: int, terms: Terms) -> tuple[bytes, str]:
        return await self._recipe.encoded(self.orders(seed), terms)

    def _raw_headers(self, seed: int, etag: str) -> RawHeaders:
        seeds = answers.seeds_header(consecutive(seed, self._count))
        headers = [*self._raw, (b"etag", etag.encode()), (b"x-seed", seeds.encode())]
        if self._recipe.is_one_picture:
            headers.append((b"content-location", self._link(seed).encode()))
        return headers

    def _link(self, seed: int) -> str:
        query = self._link_query(self._label_of(seed))
        return negotiation.permalink(self._link_base, seed, self._recipe.form, query)

    def _query_of(self, label: int) -> str:
        (order,) = self._recipe.model.resolver.orders([0], [label], self._psi)
        return self._recipe.link_query(order)

    def _label_of(self, seed: int) -> int:
        return self._recipe.model.resolver.label_of(seed) if self._label is None else self._label

"""How the pictures of a request are drawn and sent: all of it but which ones they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from service import negotiation
from service.api import answers
from service.batcher import Terms
from service.encoder import StillFormat
from service.negotiation import Representation
from service.pipeline import Look, ServedModel
from service.resolver import Order


@dataclass(frozen=True, slots=True)
class Recipe:
    """A request for pictures, resolved against its model; the pictures themselves are `Order`s.

    Attributes:
        model: Draws them.
        look: What is done to each.
        representation: What is sent.
        columns: Of the sheet; 0: not a sheet.
        metadata: Whether provenance is embedded.
        link_look: What of the look a permanent link has to say.
    """

    model: ServedModel
    look: Look
    representation: Representation
    columns: int
    metadata: bool
    link_look: dict[str, object]

    @property
    def form(self) -> StillFormat:
        """The pictures' format."""
        form: StillFormat = self.representation.format  # type: ignore[assignment]
        return form

    @property
    def headers(self) -> dict[str, str]:
        """The headers that do not depend on which pictures they are."""
        return answers.model_headers(self.model) | ({"Vary": "Accept"} if self.representation.vary else {})

    @property
    def identity(self) -> dict[str, object]:
        """What the bytes depend on besides the pictures, the model and the encoder."""
        return {
            "look": self.look,
            "kind": self.representation.kind,
            "format": self.form,
            "columns": self.columns,
            "metadata": self.metadata,
        }

    @property
    def is_one_picture(self) -> bool:
        """Whether the answer is one picture, which has a permanent link if it has a seed."""
        return self.representation.kind == "image" and not self.columns

    def link_query(self, order: Order) -> str:
        """Return the query of the permanent link to a picture."""
        return negotiation.link_query(answers.link_parameters(self.model, order, self.link_look))

    def link(self, order: Order) -> str | None:
        """Return the permanent link to a picture; `None` for one drawn from a latent, which has no seed."""
        if order.seed is None:
            return None
        base = negotiation.permalink_base(self.model.manifest.id)
        return negotiation.permalink(base, order.seed, self.form, self.link_query(order))

    def text(self, orders: Sequence[Order]) -> dict[str, str] | None:
        """Return the provenance of a picture, or of a sheet: what its pictures have in common, and all seeds."""
        if not self.metadata:
            return None
        first, *others = (answers.provenance(self.model, order) for order in orders)
        if not others:
            return first
        common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
        return common | answers.seeds_fact([order.seed for order in orders])

    async def encoded(self, orders: Sequence[Order], terms: Terms) -> tuple[bytes, str]:
        """Return the picture or the sheet as a file, and what `Server-Timing` says of it."""
        text = self.text(orders)
        if self.columns:
            pixels, timing = await self.model.draw([order.sample for order in orders], terms)
            body, encode_s = await self.model.still(pixels, self.look, self.form, text, self.columns)
        else:
            body, timing, encode_s = await self.model.picture(orders[0], self.look, self.form, text, terms)
        return body, answers.server_timing(timing, encode_s)

"""How a generator is run here: the type, layout, threads and batch size that a short measurement found fastest."""

from service.variants.choice import Candidate, choose, in_float32
from service.variants.memo import Memo
from service.variants.variant import Pins, Variant

__all__ = ["Candidate", "Memo", "Pins", "Variant", "choose", "in_float32"]

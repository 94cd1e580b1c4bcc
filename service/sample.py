"""One row of work: everything the engine has to know about one picture.

A leaf: the sampler makes these, the engine consumes them, and neither imports the other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Hold the inputs of one picture, or of one frame between two key frames.

    The engine maps `z` and `label` to `w` and truncates it by `truncation_psi`. With a partner (`z_to` is not `None`)
    it does the same to `z_to` and `label_to` and uses `w + t * (w_to - w)`.

    Compared by identity, since `==` of two arrays has no truth value.

    Attributes:
        z: Latent, float32, (z_dim,), standard normal; or the seed that the engine draws it from (`service.rng`).
        label: Class index, in [0, num_classes); 0 for an unconditional model.
        truncation_psi: Truncation, in [0, 1]; 1 = off.
        z_to: Latent of the partner, float32, (z_dim,); `None` = a plain picture.
        label_to: Class index of the partner; unused without one.
        t: Position between the two, in [0, 1); unused without a partner.
    """

    z: NDArray[np.float32] | int
    label: int
    truncation_psi: float
    z_to: NDArray[np.float32] | None = None
    label_to: int = 0
    t: float = 0.0

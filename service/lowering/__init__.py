"""A frozen generator's graph to kernels that cost less on this processor; the same pictures, up to rounding.

TorchScript calls oneDNN with the weights as they lie in the file, so each call first brings them into the order that
the kernel wants: of a batch of one picture that is half of the time. The passes here do that once, at the start:

1. `batch_norm`: normalisation with constants goes into the weights before it.
2. `pack`: convolutions and linear layers get weights in oneDNN's order, and do the activation that follows on the fly.
3. `wide`: transposed convolutions over very small maps see a batch's maps side by side as a single wide one.

They use torch's graph bindings and the operators of its own compiler, which are no public interface. So whoever lowers
has to be prepared for a RuntimeError, and to run the graph as it was.
"""

from service.lowering.lower import detached, lower

__all__ = ["detached", "lower"]

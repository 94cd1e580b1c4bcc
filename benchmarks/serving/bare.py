"""The least that a process needs to draw: torch, and the generator as the service loads it.

`python -m benchmarks.serving.bare GENERATOR DTYPE MEMORY_FORMAT THREADS BATCH W_SHAPE...` draws, says "ready" and waits
for the end of its input. It imports nothing else, so that what it holds is what torch and the model cost.
"""

import sys

import torch

ROUNDS = 50  # TorchScript settles in the second call of a shape, the allocator after some more


def main() -> None:
    """Load, draw, wait."""
    path, dtype, memory_format, threads, batch, *w_shape = sys.argv[1:]
    torch.set_num_threads(int(threads))
    module = torch.jit.load(path, map_location="cpu").eval()
    module.to(dtype=getattr(torch, dtype), memory_format=getattr(torch, memory_format))
    frozen = torch.jit.freeze(module, preserved_attrs=["synthesis"])
    w = torch.randn(int(batch), *map(int, w_shape)).to(getattr(torch, dtype))
    with torch.inference_mode():
        for _ in range(ROUNDS):
            frozen.synthesis(w)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

"""Batches on a CUDA device: a captured graph per batch size, and pictures that travel while the next are drawn.

A batch takes two streams. On the first its styles are copied into the input of its size's graph, the graph is
replayed, and the pixels are copied out of it; on the second they travel into page-locked memory of the host. The
thread that submitted the batch waits for its arrival, asleep, while another thread submits the next.

What excludes that anything is overwritten too early:

- Inputs and outputs of the graphs are touched on the first stream only, by whole batches, one after the other: the
  lock makes a batch's three steps neighbours there. So the graphs of all sizes share one pool of memory, in which one
  may overwrite what another has left; they never run at the same time, and no result stays there.
- All that leaves the first stream is a batch's own: device memory that is held until the pixels have arrived, and host
  memory that is held by whoever holds the pictures. Memory that nobody holds is used again by torch's allocators.

After "CUDA Graphs" and "Graph memory management" in PyTorch's notes on CUDA semantics.
"""

import threading
from collections.abc import Sequence

import numpy as np
import structlog
import torch
from torch import Tensor

from service.engine.devices import reason
from service.engine.protocol import Pixels
from service.generator import Generator

# The notes ask for a few calls before a capture. TorchScript profiles the first call of a shape and compiles in the
# next; its fall-back for a further shape does both again.
WARM_UP_CALLS = 5
ROUNDING = 1.0  # grey levels, in the mean: kernels that are not repeatable may differ a little from call to call
_one_capture = threading.Lock()  # torch allows one at a time in a process
_log = structlog.get_logger()


class Bucket:
    """The captured synthesis of one batch size.

    Args:
        generator: On the device.
        w: Its input from now on, float32 (N, num_ws, w_dim), on the device.
        stream: Where it is captured; what is replayed elsewhere at the same time shares no pool with it.
        pool: Of the graphs' memory.
    """

    def __init__(
        self, generator: Generator, w: Tensor, stream: torch.cuda.Stream, pool: "torch.cuda._POOL_HANDLE"
    ) -> None:
        self._w = w
        stream.wait_stream(torch.cuda.current_stream(w.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                generator.synthesis(w)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads serve other models meanwhile; what they allocate must not spoil the capture.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._pixels = generator.synthesis(w)

    def replay(self, w: Tensor) -> Tensor:
        """Draw on the current stream.

        Args:
            w: Styles, float32 (N, num_ws, w_dim), on the device.

        Returns:
            Pixels, uint8 (N, H, W, C), on the device, until the next replay of any graph of the pool.
        """
        self._w.copy_(w)
        self._graph.replay()
        return self._pixels


class Travelling:
    """Pixels on their way to the host.

    Args:
        pixels: Where they will be, uint8 (N, H, W, C), page-locked.
        arrived: Recorded after the copy.
        held: What the device reads until then.
    """

    def __init__(self, pixels: Tensor, arrived: torch.cuda.Event, held: tuple[Tensor, ...]) -> None:
        self._pixels, self._arrived, self._held = pixels, arrived, held

    def wait(self) -> Pixels:
        """Return the pixels, uint8 (N, H, W, C), when they are there.

        Returns:
            Pixels; their memory is used again when the last view of them is gone.

        Raises:
            RuntimeError: If the device failed on this batch or on one before.
        """
        self._arrived.synchronize()
        self._held = ()
        pixels: Pixels = self._pixels.numpy()
        return pixels


class GraphedSynthesis:
    """A generator's synthesis on a CUDA device, by graphs once `capture` has made them; for any number of threads.

    Args:
        generator: On the device.
        device: The device.
        w_shape: Of one picture's styles, (num_ws, w_dim).
    """

    def __init__(self, generator: Generator, device: torch.device, w_shape: tuple[int, int]) -> None:
        self._generator, self._device, self._w_shape = generator, device, w_shape
        with torch.cuda.device(device):
            self._compute, self._copies = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._buckets: dict[int, Bucket] = {}
        self._submitting = threading.Lock()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that have a graph, ascending."""
        return tuple(sorted(self._buckets))

    def capture(self, sizes: Sequence[int]) -> None:
        """Make a graph for each batch size; if one cannot be made, or draws otherwise, there are none, and a warning.

        To be called once, before any batch is drawn.

        Args:
            sizes: Batch sizes, each at least 1.
        """
        before = torch.cuda.current_stream(self._device)
        try:
            # A capture that fails leaves its stream current; the outer `stream` gives back the one before.
            with _one_capture, torch.inference_mode(), torch.cuda.stream(before):
                pool = torch.cuda.graph_pool_handle()
                # The largest first: the others find room in what it has left.
                for size in sorted(sizes, reverse=True):
                    w = torch.zeros(size, *self._w_shape, device=self._device)
                    self._buckets[size] = Bucket(self._generator, w, self._compute, pool)
                for size in self._buckets:
                    self._compare(size)
            _log.info("CUDA graphs", device=str(self._device), batch_sizes=self.sizes)
        except RuntimeError as error:
            self._buckets = {}
            _log.warning("no CUDA graphs", device=str(self._device), reason=reason(error))

    def _compare(self, size: int) -> None:
        """Draw other styles than those of the capture, in both ways.

        Raises:
            RuntimeError: If the pixels differ by more than rounding.
        """
        w = torch.randn(size, *self._w_shape, device=self._device)
        difference = np.abs(self.submit(w).wait().astype(np.int16) - self._plain(w)).mean()
        if not difference <= ROUNDING:
            raise RuntimeError(f"the graph for batches of {size} is {difference:.1f} grey levels off")

    def __call__(self, w: Tensor) -> Pixels:
        """Return the pixels of a batch, uint8 (N, H, W, C), without a graph if its size has none.

        Args:
            w: Styles, float32 (N, num_ws, w_dim), on the device.

        Returns:
            Pixels.

        Raises:
            RuntimeError: If the device fails.
        """
        return self.submit(w).wait() if len(w) in self._buckets else self._plain(w)

    def _plain(self, w: Tensor) -> Pixels:
        pixels: Pixels = self._generator.synthesis(w).cpu().numpy()
        return pixels

    def submit(self, w: Tensor) -> Travelling:
        """Queue a batch on the device, and return at once.

        Args:
            w: Styles, float32 (N, num_ws, w_dim), on the device; there is a graph for N.

        Returns:
            What to wait for.

        Raises:
            RuntimeError: If the device has failed.
        """
        bucket = self._buckets[len(w)]
        with self._submitting, torch.inference_mode(), torch.cuda.device(self._device):
            self._compute.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._compute):
                drawn = bucket.replay(w).clone(memory_format=torch.contiguous_format)
            self._copies.wait_stream(self._compute)
            with torch.cuda.stream(self._copies):
                pixels = torch.empty(drawn.shape, dtype=torch.uint8, pin_memory=True)
                pixels.copy_(drawn, non_blocking=True)
                # Blocking means asleep: a thread that spins would take a core from those that encode.
                arrived = torch.cuda.Event(blocking=True)
                arrived.record(self._copies)
        return Travelling(pixels, arrived, (w, drawn))

"""As much of CUDA's streams, events and graphs as `service.engine.cuda` uses, on a CPU and as late as is allowed.

What is submitted to a stream is not done before somebody waits for it, and then in an order that is drawn among all
that streams and events allow. Memory that was given back before it was used, and what a graph has left in the pool when
another one runs, are found out: the first fails, the second is overwritten.
"""

import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
GARBAGE = 0xCD


class Mark:
    """A place in a stream: passed or not."""

    passed = False


class Stream:
    """Work in order: closures, marks to pass, and marks to wait for."""

    def __init__(self, cuda: "FakeCuda") -> None:
        self.cuda, self.queue = cuda, deque[tuple[str, Any]]()
        cuda.streams.append(self)

    def wait_stream(self, other: "Stream | None") -> None:
        if other is not None:
            mark = Mark()
            other.queue.append(("pass", mark))
            self.queue.append(("wait", mark))

    def blocked(self) -> bool:
        return not self.queue or (self.queue[0][0] == "wait" and not self.queue[0][1].passed)

    def step(self) -> None:
        kind, what = self.queue.popleft()
        if kind == "run":
            what()
        elif kind == "pass":
            what.passed = True


class Event:
    """A mark that can be waited for."""

    def __init__(self, cuda: "FakeCuda") -> None:
        self._cuda, self._mark = cuda, Mark()

    def record(self, stream: Stream) -> None:
        stream.queue.append(("pass", self._mark))

    def synchronize(self) -> None:
        self._cuda.run_until(self._mark)


class Graph:
    """What was called, to be called again; its results lie in a pool where other graphs' results lie too."""

    def __init__(self, cuda: "FakeCuda") -> None:
        self._cuda = cuda
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Tensor]] = []
        self.pool: object = None

    def replay(self) -> None:
        stream = self._cuda.current()
        assert stream is not None
        stream.queue.append(("run", self._run))

    def own(self) -> Iterator[Tensor]:
        """Yield the results that are no views of something else."""
        for _, args, _, out in self.calls:
            inputs = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
            if out.untyped_storage().data_ptr() not in inputs:
                yield out

    def _run(self) -> None:
        for other in self._cuda.graphs:
            if other is not self and other.pool is self.pool:
                for result in other.own():
                    result.fill_(GARBAGE)
        own = {id(result) for result in self.own()}
        for function, args, kwargs, out in self.calls:
            result = function(*args, **kwargs)
            if id(out) in own:
                out.copy_(result)


class FakeCuda(TorchDispatchMode):
    """Stands for `torch.cuda`; every thread that computes does so within it.

    Args:
        seed: Of the order in which things are done.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.streams: list[Stream] = []
        self.graphs: list[Graph] = []
        self.failure: Exception | None = None
        self._random, self._here, self._lock = random.Random(seed), threading.local(), threading.RLock()

    def current(self) -> Stream | None:
        """Return the stream that is current in this thread; `None` is the one in which all is done at once."""
        return getattr(self._here, "stream", None)

    def run_until(self, mark: Mark) -> None:
        while not mark.passed:
            with self._lock, _disable_current_modes(), torch.inference_mode():
                ready = [stream for stream in self.streams if not stream.blocked()]
                if not mark.passed:
                    self._random.choice(ready).step()

    @contextmanager
    def stream(self, stream: Stream | None) -> Iterator[None]:
        before, self._here.stream = self.current(), stream
        yield
        self._here.stream = before

    @contextmanager
    def graph(self, graph: Graph, pool: object, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        if self.failure is not None:
            raise self.failure
        graph.pool, self._here.capturing = pool, graph
        with self.stream(stream):
            yield
        self._here.capturing = None
        self.graphs.append(graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten.empty.memory_format:
            kwargs.pop("pin_memory", None)
            return func(*args, **kwargs).fill_(GARBAGE)
        capturing = getattr(self._here, "capturing", None)
        if capturing is not None:
            out = func(*args, **kwargs)
            if isinstance(out, Tensor):
                capturing.calls.append((func, args, kwargs, out))
            return out
        stream = self.current()
        if stream is not None and func is aten.copy_.default:
            stream.queue.append(("run", _copy(args[0], args[1])))
            return args[0]
        if stream is not None and func is aten.clone.default:
            out = torch.full(args[0].shape, GARBAGE, dtype=args[0].dtype)
            stream.queue.append(("run", _copy(out, args[0])))
            return out
        return func(*args, **kwargs)


def _copy(to: Tensor, source: Tensor) -> Callable[[], None]:
    ends = weakref.ref(to), weakref.ref(source)

    def run() -> None:
        there, here = (end() for end in ends)
        assert there is not None, "memory was given back before it was written"
        assert here is not None, "memory was given back before it was read"
        there.copy_(here)

    return run


def install(monkeypatch: pytest.MonkeyPatch, seed: int) -> FakeCuda:
    """Put a fake in the place of `torch.cuda` and return it."""
    cuda = FakeCuda(seed)
    for name, stand_in in {
        "Stream": lambda device: Stream(cuda),
        "Event": lambda blocking: Event(cuda),
        "CUDAGraph": lambda: Graph(cuda),
        "graph": cuda.graph,
        "graph_pool_handle": object,
        "stream": cuda.stream,
        "current_stream": lambda device: cuda.current(),
        "device": lambda device: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return cuda

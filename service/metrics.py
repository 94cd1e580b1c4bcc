"""Every metric object and its buckets. Seconds and bytes; labels from finite sets only."""

from functools import lru_cache
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from service.batcher import Observer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FINE_SECONDS = (0.0001, 0.00025, 0.0005, *_SECONDS)
_BATCH = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)


class Queue(Protocol):
    """What can be read of a queue at any time."""

    @property
    def queued(self) -> int:
        """Images waiting."""

    @property
    def in_flight(self) -> int:
        """Images on the device, or handed to it."""


class Metrics:
    """The service's metrics in a registry of their own, so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter(
            "vitrine_requests", "Requests answered.", ("route", "model", "status", "outcome"), registry=registry
        )
        self.request_duration = Histogram(
            "vitrine_request_duration_seconds",
            "From the request's head to the answer's last byte.",
            ("route", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "vitrine_queue_wait_seconds",
            "Wait of an image for its batch.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.forward = Histogram(
            "vitrine_forward_seconds",
            "A batch on the device.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.encode = Histogram(
            "vitrine_encode_seconds", "Encoding one answer.", ("format",), buckets=_FINE_SECONDS, registry=registry
        )
        self.batch_images = Histogram(
            "vitrine_batch_images", "Images per batch.", ("model",), buckets=_BATCH, registry=registry
        )
        self.images = Counter("vitrine_images", "Images drawn.", ("model",), registry=registry)
        self.padding_images = Counter(
            "vitrine_padding_images", "Rows added to reach a warmed batch size.", ("model",), registry=registry
        )
        self.queue_images = Gauge("vitrine_queue_images", "Images waiting.", registry=registry)
        self.inflight_images = Gauge("vitrine_inflight_images", "Images handed to the device.", registry=registry)
        self._queues: list[Queue] = []
        self.queue_images.set_function(lambda: sum(queue.queued for queue in self._queues))
        self.inflight_images.set_function(lambda: sum(queue.in_flight for queue in self._queues))
        self.queue_limit_images = Gauge("vitrine_queue_limit_images", "Images that may wait.", registry=registry)
        self.rejected = Counter(
            "vitrine_rejected", "Requests refused before the queue.", ("reason",), registry=registry
        )
        self.cancelled = Counter("vitrine_cancelled", "Requests whose client left.", ("stage",), registry=registry)
        self.cache = Counter(
            "vitrine_cache",
            "Pictures asked for by GET: kept (hit), drawn (miss), or being drawn for another request (shared).",
            ("result",),
            registry=registry,
        )
        self.oom = Counter("vitrine_oom", "Batches that did not fit into the device's memory.", registry=registry)
        self.batch_limit_images = Gauge(
            "vitrine_batch_limit_images",
            "Images that a batch may have, of the model where that is least.",
            registry=registry,
        )
        self.model_info = Gauge(
            "vitrine_model_info",
            "The models being served.",
            ("model", "version", "digest", "dtype", "device"),
            registry=registry,
        )
        self.model_load = Gauge(
            "vitrine_model_load_seconds", "From verification to warm.", ("model",), registry=registry
        )
        self.ready = Gauge("vitrine_ready", "Whether /readyz says 200.", registry=registry)
        self.draining = Gauge("vitrine_draining", "Whether the server is shutting down.", registry=registry)

    def watch(self, queue: Queue) -> None:
        """Let a queue count in the gauges of what waits and of what is on the device, which are read when asked for."""
        self._queues.append(queue)

    def of_requests(self, route: str, model: str, status: int) -> tuple[Counter, Histogram]:
        """Return the counter and the histogram of one kind of request."""
        outcome = "ok" if status < 400 else "client_error" if status < 500 else "server_error"
        return (
            self.requests.labels(route, model, str(status), outcome),
            self.request_duration.labels(route, model),
        )


class BatchMetrics(Observer):
    """The batcher's observer: what it tells, as metrics of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._batch_images = metrics.batch_images.labels(model)
        self._forward = metrics.forward.labels(model)
        self._queue_wait = metrics.queue_wait.labels(model)
        self._images = metrics.images.labels(model)
        self._rejected = lru_cache(metrics.rejected.labels)  # `labels` costs more than `inc`
        self._metrics = metrics

    def batch_started(self, size: int) -> None:
        """Count a batch of `size` images."""
        self._batch_images.observe(size)

    def batch_finished(self, size: int, seconds: float) -> None:
        """Count its images and its time on the device."""
        self._forward.observe(seconds)
        self._images.inc(size)

    def waited(self, seconds: float) -> None:
        """Count an image's wait."""
        self._queue_wait.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a refused request."""
        self._rejected(reason).inc()

    def cancelled(self, stage: str) -> None:
        """Count a request whose client left."""
        self._metrics.cancelled.labels(stage).inc()

    def out_of_memory(self) -> None:
        """Count a batch that did not fit."""
        self._metrics.oom.inc()

"""The metrics: their names and units, and what the batcher's events do to them."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from service.batcher import Batcher, Terms
from service.metrics import BatchMetrics, Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"vitrine_{name}", labels)


def families(metrics: Metrics) -> dict[str, str]:
    """Return our metrics with their types."""
    text = generate_latest(metrics.registry).decode()
    return dict(re.findall(r"^# TYPE (vitrine_\w+) (\w+)$", text, re.MULTILINE))


def test_metrics_have_the_prefix_and_units() -> None:
    """Each name ends in its unit, or in what it counts; there are no two of one name."""
    ours = {name: kind for name, kind in families(Metrics()).items() if not name.endswith("_created")}
    units = {"counter": ("_total",), "histogram": ("_seconds", "_images")}

    assert len(ours) >= 16
    for name, kind in ours.items():
        if kind in units:
            assert name.endswith(units[kind]), name


def test_process_is_measured_too() -> None:
    """The process collector's metrics stand beside ours."""
    text = generate_latest(Metrics().registry).decode()

    assert "python_info" in text
    if Path("/proc/self/stat").exists():
        assert "process_resident_memory_bytes" in text


def test_two_sets_of_metrics_do_not_meet() -> None:
    """Two applications in one process count for themselves."""
    one, other = Metrics(), Metrics()
    one.images.labels("tiny").inc(3)

    assert value(one, "images_total", model="tiny") == 3
    assert value(other, "images_total", model="tiny") is None


def test_batch_is_counted_by_its_images() -> None:
    """A batch of three images is one observation of its size and time, and three images and waits."""
    metrics = Metrics()
    observer = BatchMetrics(metrics, "tiny")
    observer.batch_started(3)
    for seconds in (0.5, 0.25, 0.25):
        observer.waited(seconds)
    observer.batch_finished(3, 0.125)

    assert value(metrics, "batch_images_count", model="tiny") == 1
    assert value(metrics, "batch_images_sum", model="tiny") == 3
    assert value(metrics, "images_total", model="tiny") == 3
    assert (
        value(metrics, "queue_wait_seconds_count", model="tiny"),
        value(metrics, "queue_wait_seconds_sum", model="tiny"),
    ) == (3, 1)
    assert value(metrics, "forward_seconds_sum", model="tiny") == 0.125


@pytest.mark.parametrize("reason", ["full", "too_large", "deadline", "draining"])
def test_refusal_is_counted_by_its_reason(reason: str) -> None:
    """Each reason of the batcher is a series of its own."""
    metrics = Metrics()
    BatchMetrics(metrics, "tiny").rejected(reason)

    assert value(metrics, "rejected_total", reason=reason) == 1


@pytest.mark.parametrize("stage", ["queued", "running"])
def test_departed_client_is_counted_by_its_stage(stage: str) -> None:
    """Clients that leave are told apart by whether the device had begun."""
    metrics = Metrics()
    BatchMetrics(metrics, "tiny").cancelled(stage)

    assert value(metrics, "cancelled_total", stage=stage) == 1


@dataclass
class FakeQueue:
    queued: int
    in_flight: int


def test_depths_of_several_models_add_up() -> None:
    """The gauges are of the service: a model that is idle does not hide another one's queue."""
    metrics = Metrics()
    one, other = FakeQueue(5, 2), FakeQueue(3, 1)
    metrics.watch(one)
    metrics.watch(other)
    assert (value(metrics, "queue_images"), value(metrics, "inflight_images")) == (8, 3)

    other.queued = other.in_flight = 0
    assert (value(metrics, "queue_images"), value(metrics, "inflight_images")) == (5, 2)
    one.queued = one.in_flight = 0
    assert (value(metrics, "queue_images"), value(metrics, "inflight_images")) == (0, 0)


async def test_batcher_and_its_metrics_agree() -> None:
    """Driven by a real batcher, every image is counted once and nothing is left over."""
    metrics = Metrics()

    async def run(items: "list[int]") -> "list[int]":
        await asyncio.sleep(0)
        return [item + 1 for item in items]

    batcher = Batcher(run, max_batch_size=4, max_queue=64, observer=BatchMetrics(metrics, "tiny"))
    metrics.watch(batcher)
    batcher.start()
    await asyncio.gather(*(batcher.submit(range(size), Terms(60)) for size in (1, 3, 7, 5)))
    await batcher.close()

    assert value(metrics, "images_total", model="tiny") == 16
    assert value(metrics, "batch_images_sum", model="tiny") == 16
    assert value(metrics, "queue_wait_seconds_count", model="tiny") == 16
    assert (value(metrics, "queue_images"), value(metrics, "inflight_images")) == (0, 0)


def test_buckets_reach_from_a_fast_batch_to_the_longest_deadline() -> None:
    """Times of a millisecond and of the request's limit of 30 s both fall into a bucket of their own."""
    metrics = Metrics()
    for name in ("queue_wait", "forward"):
        histogram = getattr(metrics, name)
        bounds = histogram._upper_bounds
        assert bounds[0] <= 0.001
        assert bounds[-2] >= 30
        assert bounds == sorted(set(bounds))

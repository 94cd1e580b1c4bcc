"""How long a picture takes."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from service.generator import Generator
from service.manifest import Manifest

ROUNDS = 4
BATCHES_PER_THREAD = 2
ENOUGH_S = 0.5  # of one arrangement; a large model on a slow machine must not delay the start


def seconds_per_image(
    generator: Generator,
    manifest: Manifest,
    device: torch.device,
    *,
    batch_images: int,
    engine_threads: int = 1,
    torch_threads: int = 1,
) -> float:
    """Return the seconds that a picture takes when every engine thread is busy, in the best of some rounds.

    Args:
        generator: On the device.
        manifest: Its bundle's.
        device: Where it lies.
        batch_images: Images per batch.
        engine_threads: Batches that run at the same time.
        torch_threads: Threads of torch for each of them.

    Returns:
        Seconds.
    """
    w = torch.randn(batch_images, manifest.num_ws, manifest.w_dim, device=device)
    batches = engine_threads * BATCHES_PER_THREAD

    def draw(number: int) -> None:
        with torch.inference_mode():
            generator.synthesis(w).cpu()

    with ThreadPoolExecutor(engine_threads, initializer=torch.set_num_threads, initargs=(torch_threads,)) as pool:
        list(pool.map(draw, range(batches)))  # TorchScript settles in the second call of a shape
        best, spent = float("inf"), 0.0
        for _ in range(ROUNDS):
            started = time.perf_counter()
            list(pool.map(draw, range(batches)))
            seconds = time.perf_counter() - started
            best, spent = min(best, seconds), spent + seconds
            if spent > ENOUGH_S:
                break
    return best / (batches * batch_images)

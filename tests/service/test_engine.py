"""The engine: the same bytes for a sample whatever shares its batch, exact end points, and golden pictures."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.bundle import Bundle, BundleError, verify
from service.engine import LocalEngine, Pixels, batch_sizes, check_golden, choose_device
from service.generator import Generator, load
from service.manifest import Golden, Manifest
from service.rng import latents
from service.sample import Sample
from service.sampler import Keyframe, path

CPU = torch.device("cpu")
MAX_BATCH = 6
# Other work on the machine is no failure.
unhurried = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def bundle(tiny_models: Path) -> Bundle:
    return verify(tiny_models / "tiny" / "1")


@pytest.fixture(scope="module")
def generator(bundle: Bundle) -> Generator:
    return load(bundle, CPU)


@pytest.fixture(scope="module")
def engine(bundle: Bundle, generator: Generator) -> Iterator[LocalEngine]:
    """Return an engine on the tiny bundle, warm."""
    engine = LocalEngine(generator, bundle.manifest, device=CPU, max_batch_size=MAX_BATCH, threads=2)
    asyncio.run(engine.warm_up(golden_samples(bundle.manifest)))
    yield engine
    asyncio.run(engine.drain())


def golden_samples(manifest: Manifest) -> list[Sample]:
    rows = latents([golden.seed for golden in manifest.golden], manifest.z_dim)
    return [Sample(z, g.label, g.truncation_psi) for z, g in zip(rows, manifest.golden, strict=True)]


def plain(seed: int, label: int = 0, psi: float = 1.0) -> Sample:
    return Sample(latents([seed], 8)[0], label, psi)


def frame(seed: int, seed_to: int, t: float, label: int = 0, label_to: int = 0, psi: float = 1.0) -> Sample:
    return Sample(latents([seed], 8)[0], label, psi, z_to=latents([seed_to], 8)[0], label_to=label_to, t=t)


def run(engine: LocalEngine, samples: Sequence[Sample]) -> list[Pixels]:
    return list(asyncio.run(engine.generate(samples)))


seeds = st.integers(0, 2**53 - 1)
labels = st.integers(0, 2)
psis = st.floats(0, 1, width=32)
plains = st.builds(plain, seeds, labels, psis)
frames = st.builds(frame, seeds, seeds, st.floats(0, 1, exclude_max=True, width=32), labels, labels, psis)
samples = plains | frames


@unhurried
@given(sample=samples, neighbours=st.lists(samples, max_size=MAX_BATCH - 1), data=st.data())
def test_sample_gives_the_same_bytes_in_any_batch(
    engine: LocalEngine, sample: Sample, neighbours: list[Sample], data: st.DataObject
) -> None:
    """Neither the size of a batch, nor the place in it, nor pictures and frames beside it change a picture."""
    place = data.draw(st.integers(0, len(neighbours)))
    (alone,) = run(engine, [sample])

    batch = run(engine, [*neighbours[:place], sample, *neighbours[place:]])

    assert len(batch) == len(neighbours) + 1
    assert batch[place].tobytes() == alone.tobytes()


@pytest.mark.parametrize("size", range(1, MAX_BATCH + 1))
def test_every_batch_size_gives_the_same_bytes(engine: LocalEngine, size: int) -> None:
    """First, last or in the middle of any batch that can run, in a batch of equals or of others."""
    batch = [plain(seed, seed % 3, 0.5) for seed in range(size)]
    alone = [run(engine, [sample])[0] for sample in batch]

    assert all(np.array_equal(a, b) for a, b in zip(run(engine, batch), alone, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(run(engine, batch[::-1]), alone[::-1], strict=True))
    assert all(np.array_equal(a, alone[0]) for a in run(engine, batch[:1] * size))


def test_pictures_come_in_the_order_of_the_samples(engine: LocalEngine, bundle: Bundle) -> None:
    """A batch gives one picture per sample, uint8 (H, W, C), and different seeds and labels differ."""
    pixels = run(engine, [plain(1), plain(2), plain(1, label=2)])

    assert [(picture.shape, picture.dtype) for picture in pixels] == [((16, 16, 1), np.uint8)] * 3
    assert not np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])
    assert np.array_equal(pixels[0], run(engine, [plain(1)])[0])


def test_several_threads_give_the_same_bytes(engine: LocalEngine) -> None:
    """Batches that run at the same time do not meet."""
    batches = [[plain(seed + row) for row in range(3)] for seed in range(8)]

    async def together() -> list[Sequence[Pixels]]:
        return await asyncio.gather(*map(engine.generate, batches))

    one_by_one = [run(engine, batch) for batch in batches]
    assert np.array_equal(np.array(asyncio.run(together())), np.array(one_by_one))
    assert engine.workers == 2


def test_too_many_samples_raise(engine: LocalEngine) -> None:
    """A batch beyond the limit is a mistake of the caller, not a size that nobody has warmed."""
    with pytest.raises(ValueError, match="7 samples do not fit into a batch of 6"):
        run(engine, [plain(seed) for seed in range(MAX_BATCH + 1)])


def test_batch_is_padded_to_a_warmed_size(bundle: Bundle, generator: Generator, engine: LocalEngine) -> None:
    """Where only some sizes run, rows are added, counted and thrown away, and the pictures stay the same."""
    added: list[int] = []
    restricted = LocalEngine(
        generator, bundle.manifest, device=CPU, max_batch_size=MAX_BATCH, threads=1, on_padding=added.append
    )
    restricted._sizes = (2, MAX_BATCH)
    batch = [plain(1), frame(2, 3, 0.5), plain(4)]
    try:
        assert np.array_equal(run(restricted, batch), run(engine, batch))
        run(restricted, batch[:2])
        run(restricted, batch[:1])
        assert added == [MAX_BATCH - 3, 1]
    finally:
        asyncio.run(restricted.drain())


@unhurried
@given(seeds, seeds, labels, labels, psis)
def test_frame_at_zero_is_the_plain_picture(
    engine: LocalEngine, seed: int, seed_to: int, label: int, label_to: int, psi: float
) -> None:
    """A partner of weight 0 has no part in the picture, not even in the last bit."""
    first = run(engine, [frame(seed, seed_to, 0.0, label, label_to, psi)])

    assert np.array_equal(first, run(engine, [plain(seed, label, psi)]))


@pytest.mark.parametrize("mode", ["w", "slerp", "lerp"])
@pytest.mark.parametrize("loop", ["none", "bounce"])
def test_interpolation_passes_through_its_key_frames(engine: LocalEngine, mode: str, loop: str) -> None:
    """The key frames of an animation are, pixel for pixel, the pictures of their seeds and labels alone."""
    stops = [Keyframe(latents([seed], 8)[0], label) for seed, label in ((3, 0), (4, 2), (5, 2))]
    way = path(stops, steps=4, mode=mode, easing="linear", loop=loop, truncation_psi=0.7)
    pixels = [run(engine, [sample])[0] for sample in way]

    for position, (seed, label) in {0: (3, 0), 3: (4, 2), 6: (5, 2)}.items():
        assert np.array_equal(pixels[position], run(engine, [plain(seed, label, 0.7)])[0])
    assert all(not np.array_equal(a, b) for a, b in pairwise(pixels))


def test_frames_lie_between_their_ends(engine: LocalEngine) -> None:
    """The nearer a frame is to its partner, the more it looks like it."""
    end = run(engine, [plain(2)])[0].astype(int)
    distances = [
        np.abs(run(engine, [frame(1, 2, t)])[0].astype(int) - end).mean() for t in (0.0, 0.25, 0.5, 0.75, 0.999)
    ]

    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 10 * distances[-1]


class FakeGenerator:
    """A generator of one pixel: the first component of w, as its four bytes; `batch_dependent` adds the batch's size.

    `w` is the latent, and the mean style of every label is a large number that does not go away when rounded.
    """

    def __init__(self, *, batch_dependent: bool = False) -> None:
        self.w_avg = torch.full((3, 1, 2), 1e6)
        self.batch_dependent = batch_dependent
        self.sizes: list[int] = []
        self.seen: set[tuple[int, int]] = set()
        self.mapped_rows: set[int] = set()

    def mapping(self, z: Tensor, label: Tensor) -> Tensor:
        self.mapped_rows.add(len(z))
        return z[:, None, :]

    def synthesis(self, w: Tensor) -> Tensor:
        self.sizes.append(len(w))
        self.seen.add((threading.get_ident(), len(w)))
        pixels = w[:, 0, :1].contiguous().view(torch.uint8).clone()
        if self.batch_dependent:
            pixels[:, 0] = len(w)
        return pixels.reshape(-1, 1, 1, 4)

    def __call__(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z, label))


def fake_engine(
    fake: FakeGenerator, thumbnail: bytes, *, max_batch_size: int = 4, threads: int = 1, exact: bool = True
) -> LocalEngine:
    golden = Golden(seed=1, label=0, truncation_psi=1, thumbnail=base64.b64encode(thumbnail).decode(), tolerance=0)
    manifest = Manifest.model_construct(
        name="fake", version=1, z_dim=2, w_dim=2, num_ws=1, height=1, width=1, channels=4, golden=(golden,), labels=()
    )
    return LocalEngine(fake, manifest, device=CPU, max_batch_size=max_batch_size, threads=threads, exact=exact)


SMALL = Sample(np.array([0.1, 0], np.float32), 0, 1.0)


def test_psi_one_is_the_style_itself() -> None:
    """Without truncation nothing is added and taken away again, which would round the style to its mean's precision."""
    engine = fake_engine(FakeGenerator(), bytes(1024))
    full, half = run(engine, [SMALL, Sample(SMALL.z, 0, 0.5)])
    asyncio.run(engine.drain())

    assert full.view(np.float32).item() == np.float32(0.1)
    assert half.view(np.float32).item() == np.float32(1e6) + np.float32(0.5) * (np.float32(0.1) - np.float32(1e6))


def test_mapping_always_has_the_same_number_of_rows() -> None:
    """A matrix product may round by its number of rows, so it has always as many: a picture and a partner for each."""
    fake = FakeGenerator()
    engine = fake_engine(fake, bytes(1024))
    for size in (1, 2, 4):
        run(engine, [SMALL] * size)
    run(engine, [Sample(SMALL.z, 0, 1.0, z_to=SMALL.z, t=0.5)] * 4)
    asyncio.run(engine.drain())

    assert fake.mapped_rows == {8}


def test_warm_up_runs_every_size_on_every_thread() -> None:
    """No batch size is met for the first time by a request."""
    fake = FakeGenerator()
    engine = fake_engine(fake, np.float32(0.1).tobytes() * 256, threads=3)
    asyncio.run(engine.warm_up([SMALL]))
    asyncio.run(engine.drain())

    assert engine.status().batch_sizes == (1, 2, 3, 4)
    assert {size for _, size in fake.seen} == {1, 2, 3, 4}
    assert len(fake.seen) == 3 * 4


def test_pictures_that_depend_on_the_batch_size_make_it_fixed() -> None:
    """On a machine that rounds by the batch's size, all batches are padded to the one size that then runs."""
    fake = FakeGenerator(batch_dependent=True)
    expected = bytearray(np.float32(0.1).tobytes())
    expected[0] = 4
    engine = fake_engine(fake, bytes(expected) * 256)
    asyncio.run(engine.warm_up([SMALL]))
    alone, batch = run(engine, [SMALL])[0], run(engine, [SMALL] * 3)
    asyncio.run(engine.drain())

    assert engine.status().batch_sizes == (4,)
    assert all(np.array_equal(picture, alone) for picture in batch)
    assert fake.sizes[-2:] == [4, 4]


class RoundsFewRows(FakeGenerator):
    """A generator that draws one byte of every eighth picture differently in batches of 2 or 3."""

    def synthesis(self, w: Tensor) -> Tensor:
        pixels = super().synthesis(w)
        if len(w) in (2, 3):
            pixels[:, 0, 0, 0] += pixels[:, 0, 0, 0] % 8 == 7
        return pixels


def test_sizes_that_rarely_differ_are_not_used() -> None:
    """A difference that no single picture would have shown takes a size out; the rest stay."""
    engine = fake_engine(RoundsFewRows(), np.float32(0.1).tobytes() * 256)
    asyncio.run(engine.warm_up([SMALL]))
    asyncio.run(engine.drain())

    assert engine.status().batch_sizes == (1, 4)


def test_seed_stands_for_its_latent(engine: LocalEngine) -> None:
    """A sample may name the seed instead of the latent, also beside samples that have one."""
    by_latent = [plain(5), frame(6, 7, 0.5), plain(8)]
    by_seed = [Sample(5, 0, 1.0), by_latent[1], Sample(8, 0, 1.0)]

    assert np.array_equal(run(engine, by_seed), run(engine, by_latent))


def test_fast_engine_runs_every_batch_size() -> None:
    """Without the promise of equal bytes nothing is padded."""
    fake = FakeGenerator(batch_dependent=True)
    expected = bytearray(np.float32(0.1).tobytes())
    expected[0] = 1
    engine = fake_engine(fake, bytes(expected) * 256, exact=False)
    asyncio.run(engine.warm_up([SMALL]))
    run(engine, [SMALL] * 3)
    asyncio.run(engine.drain())

    assert engine.status().batch_sizes == (1, 2, 3, 4)
    assert fake.sizes[-1] == 3


@torch.jit.script
def takes_all_memory(w: Tensor) -> Tensor:
    return torch.empty([1 << 50], dtype=torch.uint8) + w.shape[0]


@torch.jit.script
def breaks(w: Tensor) -> Tensor:
    return torch.ones(2, 3) @ torch.ones(2, 3)


def test_full_memory_is_a_memory_error() -> None:
    """TorchScript hides the type of what went wrong; what the batcher can do something about is found out anyway."""
    fake = FakeGenerator()
    engine = fake_engine(fake, bytes(1024))
    synthesis, fake.synthesis = fake.synthesis, takes_all_memory
    with pytest.raises(MemoryError, match="can't allocate memory"):
        run(engine, [SMALL])
    fake.synthesis = raising(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        run(engine, [SMALL])
    fake.synthesis = synthesis
    assert len(run(engine, [SMALL])) == 1
    assert engine.status().failure is None
    asyncio.run(engine.drain())


def test_lost_device_stays_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is of its batch alone while the device goes on computing; when it does not, the engine says so."""
    fake = FakeGenerator()
    engine = fake_engine(fake, bytes(1024))
    synthesis, fake.synthesis = fake.synthesis, breaks
    with pytest.raises(RuntimeError):
        run(engine, [SMALL])
    assert engine.status().failure is None
    monkeypatch.setattr("service.engine.local.answers", lambda device: False)
    with pytest.raises(RuntimeError):
        run(engine, [SMALL])
    fake.synthesis = synthesis
    run(engine, [SMALL])
    assert engine.status().failure
    asyncio.run(engine.drain())


def raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def synthesis(w: Tensor) -> Tensor:
        raise error

    return synthesis


def test_warm_up_fails_on_a_wrong_golden_picture() -> None:
    """An engine that draws something else never gets warm."""
    engine = fake_engine(FakeGenerator(), bytes(1024))

    with pytest.raises(BundleError, match="golden picture of seed 1, label 0 differs by"):
        asyncio.run(engine.warm_up([SMALL]))
    asyncio.run(engine.drain())


class BrokenOnce(FakeGenerator):
    """A generator whose first call fails, as on a device without memory."""

    def synthesis(self, w: Tensor) -> Tensor:
        if not self.sizes:
            self.sizes.append(len(w))
            raise RuntimeError("a kernel failed")
        return super().synthesis(w)


def test_failing_generator_fails_its_batch_only() -> None:
    """An error of the device reaches the caller of that batch, and the thread goes on."""
    engine = fake_engine(BrokenOnce(), bytes(1024))
    with pytest.raises(RuntimeError, match="a kernel failed"):
        run(engine, [SMALL])

    assert len(run(engine, [SMALL])) == 1
    asyncio.run(engine.drain())


def golden(thumbnail: np.ndarray, tolerance: int) -> Golden:
    encoded = base64.b64encode(thumbnail.astype(np.uint8).tobytes()).decode()
    return Golden(seed=5, label=2, truncation_psi=1, thumbnail=encoded, tolerance=tolerance)


def test_golden_picture_within_its_tolerance_holds() -> None:
    """A thumbnail is the mean over a 16x16 grid, rounded; it may differ by the tolerance, up or down."""
    pixels = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 2, axis=0), 2, axis=1)
    means = np.arange(256).reshape(16, 16, 1)

    check_golden(pixels, golden(means, 0))
    check_golden(pixels, golden(np.clip(means + 3, 0, 255), 3))
    check_golden(pixels, golden(np.clip(means - 3, 0, 255), 3))


@pytest.mark.parametrize("change", [4, -4])
def test_golden_picture_beyond_its_tolerance_is_refused(change: int) -> None:
    """One value of one cell is enough, and the reason says which picture and how far off."""
    pixels = np.full((16, 16, 3), 100, np.uint8)
    thumbnail = np.full((16, 16, 3), 100)
    thumbnail[7, 8, 1] += change

    check_golden(pixels, golden(thumbnail, 4))
    reason = "golden picture of seed 5, label 2 differs by 4 grey levels, allowed are 3"
    with pytest.raises(BundleError, match=reason):
        check_golden(pixels, golden(thumbnail, 3))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (20, 40)])
def test_golden_picture_of_any_size_is_compared(height: int, width: int) -> None:
    """Sizes that 16 does not divide, or that are smaller, have a thumbnail too."""
    pixels = np.full((height, width, 1), 9, np.uint8)

    check_golden(pixels, golden(np.full((16, 16, 1), 9), 0))
    with pytest.raises(BundleError):
        check_golden(pixels, golden(np.full((16, 16, 1), 10), 0))


@pytest.mark.parametrize(
    ("device", "max_batch_size", "sizes"),
    [
        ("cpu", 1, (1,)),
        ("cpu", 5, (1, 2, 3, 4, 5)),
        ("cpu", 13, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13)),
        ("cpu", 40, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40)),
        ("cuda", 1, (1,)),
        ("cuda", 16, (1, 2, 4, 8, 16)),
        ("cuda", 12, (1, 2, 4, 8, 12)),
        ("cuda", 17, (1, 2, 4, 8, 16, 17)),
    ],
)
def test_batch_sizes_of_a_device(device: str, max_batch_size: int, sizes: tuple[int, ...]) -> None:
    """A CPU runs every small size and some larger ones, a GPU powers of two, and both the largest."""
    assert batch_sizes(max_batch_size, torch.device(device)) == sizes


@pytest.mark.parametrize(
    ("name", "has_cuda", "chosen"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_device_is_chosen(monkeypatch: pytest.MonkeyPatch, name: str, has_cuda: bool, chosen: str) -> None:
    """A GPU is used where there is one, unless the CPU was asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)

    assert choose_device(name) == torch.device(chosen)


def test_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for CUDA is told that there is none, rather than served slowly."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ValueError, match="VITRINE_DEVICE=cuda, but this torch sees no CUDA device; use auto or cpu"):
        choose_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_same_bytes_in_any_batch(bundle: Bundle) -> None:
    """On a GPU too, a picture does not depend on its batch."""
    device = torch.device("cuda")
    engine = LocalEngine(load(bundle, device), bundle.manifest, device=device, max_batch_size=MAX_BATCH)
    asyncio.run(engine.warm_up(golden_samples(bundle.manifest)))
    batch = [plain(seed, seed % 3, 0.5) for seed in range(MAX_BATCH)]
    alone = [run(engine, [sample])[0] for sample in batch]

    for size in range(1, MAX_BATCH + 1):
        assert np.array_equal(run(engine, batch[:size]), alone[:size])
    asyncio.run(engine.drain())

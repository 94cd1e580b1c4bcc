"""`make bench-gpu`: the engine on one GPU beside the bare forward pass and the roofline, for every batch size.

The roofline (`benchmarks.serving.roofline`) is of the operations and bytes of the synthesis and of peaks measured in
the same run. `--device cpu` runs the same without graphs, to try it.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.serving.__main__ import FASHION
from benchmarks.serving.inside import bare_s, copied_s, engine_images_per_s, engine_of
from benchmarks.serving.load import saturate
from benchmarks.serving.models import dcgan
from benchmarks.serving.peaks import measured
from benchmarks.serving.roofline import Peaks, Work, count
from benchmarks.serving.servers import serving
from benchmarks.store import Result, Verdict, arguments, store, table
from service.bundle import Bundle, verify
from service.engine import batch_sizes, choose_device
from service.manifest import GENERATOR_NAME
from service.sample import Sample
from service.variants import Candidate, Pins, choose

OF_THE_LIMIT = 0.75
NO_GPU = "error: make bench-gpu needs an NVIDIA GPU and a CUDA build of torch; --device cpu tries it without"


@dataclass
class Row:
    """A batch size: seconds of a batch by the roofline and in bare loops, and the engine's pictures per second.

    Attributes:
        size: Images of a batch.
        operations: Of a batch.
        weight_bytes: Read by a batch.
        activation_bytes: Read and written by a batch.
        bound_by_bytes: Share of the roofline's seconds that wait for memory.
        roofline_s: At the measured peaks.
        bare_s: Forward pass alone.
        copied_s: Forward pass and the copy to the host.
        engine: Pictures per second, by batches in flight.
        png: The same with encoding.
    """

    size: int
    operations: int
    weight_bytes: int
    activation_bytes: int
    bound_by_bytes: float
    roofline_s: float
    bare_s: float
    copied_s: float
    engine: dict[int, float] = field(default_factory=dict)
    png: dict[int, float] = field(default_factory=dict)

    @property
    def of_the_limit(self) -> float:
        """The engine at its best, of the bare loop with copies."""
        return max(self.engine.values()) * self.copied_s / self.size


def main() -> int:
    """Measure, print and store; return the exit status: 2 where there is no such device."""
    parser = arguments("benchmarks.serving.gpu", __doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--largest", type=int, default=128, help="images of the largest batch (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8], help="batches at the same time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: what the service would choose")
    parser.add_argument("--no-http", action="store_true", help="leave out the service over HTTP")
    options = parser.parse_args()
    try:
        device = choose_device(options.device)
    except ValueError:
        print(NO_GPU, file=sys.stderr)
        return 2
    models: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        for name, write in (("dcgan64", dcgan), ("fashion", _fashion)):
            write(Path(folder))
            (version,) = (Path(folder) / name).iterdir()
            models[name] = model(version, device, options)
            if not options.no_http:
                models[name]["http_requests_per_s"] = _over_http(write, options)
                print(f"{name}: {models[name]['http_requests_per_s']:.1f} requests/s over HTTP", flush=True)
    store(result(models, device, options), options)
    return 0


def model(folder: Path, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a bundle.

    Args:
        folder: The bundle.
        device: Where it runs.
        options: Of the command.

    Returns:
        Its variant, the device's peaks in its type, and a `Row` for each batch size.
    """
    bundle = verify(folder)
    candidate = choose(bundle, device, Pins(dtype=options.dtype, max_batch_images=options.largest))
    torch.set_num_threads(candidate.variant.torch_threads)
    peaks = measured(device, getattr(torch, candidate.variant.dtype), options.seconds)
    rows = [
        _bare(bundle, candidate, size, peaks, device, options.seconds) for size in batch_sizes(options.largest, device)
    ]
    for threads in options.in_flight:
        rows = asyncio.run(_engine(bundle, candidate, rows, device, threads, options.seconds))
    return {"variant": asdict(candidate.variant), "peaks": asdict(peaks), "rows": rows}


def work_of(folder: Path, dtype: torch.dtype, w_shape: tuple[int, int, int]) -> Work:
    """Count what a batch does, on the CPU, in the bundle's module as it was exported.

    Args:
        folder: The bundle.
        dtype: What it computes in.
        w_shape: Of the styles, (N, num_ws, w_dim).

    Returns:
        The work of the synthesis.
    """
    module = torch.jit.load(folder / GENERATOR_NAME, map_location="cpu").eval().to(dtype)
    frozen = torch.jit.freeze(module, preserved_attrs=["synthesis"])
    return count(lambda w: frozen.synthesis(w.to(dtype)), torch.randn(w_shape))


def _bare(bundle: Bundle, candidate: Candidate, size: int, peaks: Peaks, device: torch.device, seconds: float) -> Row:
    shape = (size, bundle.manifest.num_ws, bundle.manifest.w_dim)
    work = work_of(bundle.folder, getattr(torch, candidate.variant.dtype), shape)
    w = torch.randn(shape, device=device)
    row = Row(
        size,
        work.operations,
        work.weight_bytes,
        work.activation_bytes,
        work.share_bound_by_bytes(peaks),
        work.seconds(peaks),
        bare_s(candidate.generator, w, seconds),
        copied_s(candidate.generator, w, seconds),
    )
    print(f"{bundle.manifest.id} batch {size:4}: bare {1e6 * row.bare_s:.1f} us, copied {1e6 * row.copied_s:.1f}")
    return row


async def _engine(
    bundle: Bundle, candidate: Candidate, rows: Sequence[Row], device: torch.device, threads: int, seconds: float
) -> list[Row]:
    """Return the rows at whose sizes the engine draws, with its pictures per second when `threads` are in flight."""
    manifest = bundle.manifest
    engine = engine_of(candidate, manifest, device, threads)
    await engine.warm_up([Sample(one.seed, one.label, one.truncation_psi) for one in manifest.golden])
    kept = [row for row in rows if row.size in engine.status().batch_sizes]
    for row in kept:
        for found, png in ((row.engine, False), (row.png, True)):
            found[threads] = await engine_images_per_s(
                engine, row.size, seconds, num_classes=manifest.num_classes, png=png
            )
        print(
            f"{manifest.id} batch {row.size:4}, {threads} in flight: {row.engine[threads]:.1f} pictures/s, "
            f"{row.png[threads]:.1f} as PNG",
            flush=True,
        )
    await engine.drain()
    return kept


def _fashion(models_dir: Path) -> None:
    shutil.copytree(FASHION, models_dir / "fashion" / "2", dirs_exist_ok=True)


def _over_http(write: Callable[[Path], object], options: argparse.Namespace) -> float:
    settings = {"VITRINE_DEVICE": options.device}
    if options.dtype is not None:
        settings["VITRINE_DTYPE"] = options.dtype
    with serving(write, settings) as running:
        saturate(running.port, options.seconds)
        return saturate(running.port, options.seconds).requests_per_s


def result(models: dict[str, dict[str, Any]], device: torch.device, options: argparse.Namespace) -> Result:
    """Return what was found, as it is stored.

    Args:
        models: What `model` returned, by name, with `http_requests_per_s` where it was measured.
        device: Where they ran.
        options: Of the command.

    Returns:
        Figures, page and verdicts.
    """
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    lines: list[str] = []
    verdicts = []
    for name, found in models.items():
        rows: list[Row] = found["rows"]
        lines += [*_page(name, found), ""]
        if device.type == "cuda":
            claim = f"{name}, batches of {rows[-1].size}, the engine of the limit with copies"
            verdicts.append(Verdict(claim, rows[-1].of_the_limit, OF_THE_LIMIT, at_least=True))
    facts = {
        "device": hardware,
        "models": {name: found | {"rows": [asdict(row) for row in found["rows"]]} for name, found in models.items()},
    }
    how = (
        f"{hardware}; {options.seconds:g} s for each figure; bare: "
        f"{'a captured graph' if device.type == 'cuda' else 'the forward pass'} over and over, nothing copied to the "
        "host; the engine at the best number of batches in flight; a share of the roofline above 1 means that "
        "operators run as one or find their input in a cache"
    )
    names = ("gpu", "On a GPU") if device.type == "cuda" else ("gpu-on-cpu", "The GPU's benchmark, tried on a CPU")
    return Result(*names, how, facts, lines, verdicts)


def _page(name: str, found: dict[str, Any]) -> list[str]:
    variant, peaks = found["variant"], found["peaks"]
    heads = ["batch", "GFLOP", "MB", "waits for memory", "roofline, pictures/s", "bare", "of the roofline"]
    heads += ["with copies", "engine", "in flight", "of the limit with copies", "engine and PNG", "in flight"]
    cells = []
    for row in found["rows"]:
        bare, copied, roofline = (row.size / seconds for seconds in (row.bare_s, row.copied_s, row.roofline_s))
        cell = [row.size, row.operations / 1e9, (row.weight_bytes + row.activation_bytes) / 1e6]
        cell += [f"{row.bound_by_bytes:.0%}", roofline, bare, row.roofline_s / row.bare_s, copied]
        cell += [*_best(row.engine), row.of_the_limit, *_best(row.png)]
        cells.append(cell)
    lines = [
        f"## {name}",
        "",
        f"{variant['dtype']}, {variant['memory_format']}; measured peaks: "
        f"{peaks['operations_per_s'] / 1e12:.4g} TFLOP/s, {peaks['bytes_per_s'] / 1e9:.4g} GB/s.",
        "",
        *table(heads, cells),
    ]
    if "http_requests_per_s" in found:
        lines += ["", f"Over HTTP, one picture per request, 64 connections: {found['http_requests_per_s']:,.0f}/s."]
    return lines


def _best(by_number: dict[int, float]) -> tuple[float, int]:
    """Return the highest rate, and the batches in flight that gave it."""
    number = max(by_number, key=lambda one: by_number[one])
    return by_number[number], number


if __name__ == "__main__":
    sys.exit(main())

"""The models that are measured, as bundles in a folder: written by the real export, with weights that were drawn.

What a network costs does not depend on its weights, but what a PNG costs depends on the picture. So the last layer is
scaled until the pictures' values spread as those of photographs do, and a result says how large its files were.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from training.export import BundleFacts, export_bundle
from training.manifest import TrainingFacts
from training.networks.classic import ClassicConfig
from training.networks.families import Architecture, GeneratorNetwork, build_generator
from training.networks.style_residual import StyleResidualConfig

SPREAD = 0.5  # standard deviation of the values before tanh
PRODUCT_WIDTHS = (160, 112, 64, 32, 16, 16)  # `product64-cpu` takes four of them, and one more for each doubling
RESOLUTIONS = (64, 128, 256)


def dcgan(models_dir: Path) -> Path:
    """Write `dcgan64/1`, the tutorials' DCGAN for 64x64x3: latent 100, 3.6 M parameters."""
    return _write(models_dir, "dcgan64", ClassicConfig("dcgan64", 3, 0, 64))


def products(models_dir: Path) -> list[Path]:
    """Write `product64/1`, `product128/1` and `product256/1`: one generator family at growing sizes, in colour."""
    folders = []
    for number, resolution in enumerate(RESOLUTIONS):
        config = StyleResidualConfig(3, 0, base_size=4, widths=PRODUCT_WIDTHS[: 4 + number])
        folders.append(_write(models_dir, f"product{resolution}", config))
    return folders


def _write(models_dir: Path, name: str, config: Architecture) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = build_generator(config).eval().requires_grad_(False)
        for key, parameter in generator.named_parameters():
            if key.endswith("conv_out.weight"):  # zero in a generator that has not been trained
                nn.init.normal_(parameter, std=0.05)
    _spread(generator, config)
    facts = TrainingFacts(
        preset=name,
        config={},
        images_seen=0,
        minutes=0.0,
        device="cpu",
        git_revision="unknown",
        data_name="none",
        data_digest="0" * 64,
        data_licence="CC0-1.0",
    )
    return export_bundle(
        generator, BundleFacts(name, 1, (), [], facts, "Benchmarks; the weights were drawn.", "Apache-2.0"), models_dir
    )


def _spread(generator: nn.Module, config: Architecture) -> None:
    """Scale the last layer so that its values have a standard deviation of `SPREAD`."""
    last = [module for module in generator.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    values: list[Tensor] = []
    hook = last.register_forward_hook(lambda module, inputs, output: values.append(output))
    network: GeneratorNetwork = generator  # type: ignore[assignment]
    random = torch.Generator().manual_seed(1)
    network.synthesis(
        network.mapping(torch.randn(64, config.z_dim, generator=random), torch.zeros(64, dtype=torch.int64))
    )
    hook.remove()
    last.weight.mul_(SPREAD / values[0].std())

"""Every hyper-parameter of a run, and the named sets of them."""

from dataclasses import dataclass, replace
from typing import Any

from training.augment import AUGMENTATIONS, chosen_for
from training.errors import TrainingError
from training.losses import LOSSES
from training.networks.classic import RESOLUTIONS, ClassicConfig, System
from training.networks.families import Architecture
from training.networks.style_residual import StyleResidualConfig


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What defines a run apart from its data and its budget. Pairs are (start, end) of a half cosine over the run.

    Networks: `system` names a classic one; without it, `base_size`, `widths` and what follows shape a style-residual
    one, and `half_resolution` adds a second discriminator that sees halved pictures.

    Data: `mirror` shows every other real picture mirrored: more pictures, where left and right mean nothing. `augment`
    names augmentations of what the discriminator sees, with commas; "auto" chooses by the number of pictures, "none".

    Objective: `loss`, a key of `LOSSES`; `gamma` / 2 times the squared gradients at real (`r1`) and generated (`r2`)
    pictures, on every `penalty_every`-th step and as many times heavier; `gp` times WGAN-GP's penalty; spectral
    normalisation of the discriminator; `l1` and `l2` times the absolute and squared kernels of both networks; `mse`
    times the squared distance of a generated picture from the real one that it is paired with.
    """

    preset: str
    base_size: int = 0
    widths: tuple[int, ...] = ()
    blocks_per_stage: int = 1
    z_dim: int = 64
    w_dim: int = 128
    system: System | None = None
    dropout: bool = True
    half_resolution: bool = False
    batch_size: int = 64
    loss: str = "rpgan"
    gamma: tuple[float, float] = (8.0, 0.8)
    r1: bool = True
    r2: bool = True
    penalty_every: int = 1
    gp: float = 0.0
    spectral: bool = False
    l1: float = 0.0
    l2: float = 0.0
    mse: float = 0.0
    learning_rate: tuple[float, float] = (1e-3, 1e-4)
    beta1: float = 0.0
    beta2: tuple[float, float] = (0.9, 0.99)
    label_warmup: float = 0.15
    ema_halflife_kimg: float = 20.0
    mirror: bool = False
    augment: str = "auto"
    seed: int = 0

    def augmentations(self, num_pictures: int) -> tuple[str, ...]:
        """Return the augmentations for a training split of that size."""
        if self.augment == "auto":
            return chosen_for(num_pictures) if self.loss == "rpgan" else ()
        return () if self.augment == "none" else tuple(self.augment.split(","))

    def network(self, *, size: tuple[int, int, int], num_classes: int) -> Architecture:
        """Return the shape of the networks for a data set.

        Args:
            size: Height, width and channels of its pictures.
            num_classes: Its classes, 0 for none.

        Returns:
            The architecture.

        Raises:
            TrainingError: If the preset makes pictures of another size.
        """
        height, width, channels = size
        if self.system is not None:
            possible = RESOLUTIONS[self.system]
            if height != width or height not in possible:
                wanted = f"{possible[0]}" if len(possible) == 1 else f"{possible[0]} to {possible[-1]}"
                raise TrainingError(
                    f"preset {self.preset} makes square pictures of {wanted} pixels, the data has {width}x{height}; "
                    f"prepare it with --size {possible[-1] if height > possible[-1] else possible[0]}"
                )
            return ClassicConfig(self.system, channels, num_classes, height, self.z_dim, self.dropout)
        resolution = self.base_size * 2 ** len(self.widths)
        if (height, width) != (resolution, resolution):
            raise TrainingError(
                f"preset {self.preset} makes {resolution}x{resolution} pictures, the data has {width}x{height}; "
                f"prepare it with --size {resolution}"
            )
        return StyleResidualConfig(
            channels, num_classes, self.base_size, self.widths, self.blocks_per_stage, self.z_dim, self.w_dim
        )


def _classic(name: str, system: System, **changes: Any) -> TrainConfig:
    """Return a classic system with the settings that its time gave all of them."""
    common = TrainConfig(
        f"classic-{name}",
        system=system,
        z_dim=100,
        loss="bce",
        gamma=(0.0, 0.0),
        learning_rate=(2e-4, 2e-4),
        beta1=0.5,
        beta2=(0.999, 0.999),
        label_warmup=0.0,
    )
    return replace(common, **changes)


def _product_cpu(name: str, widths: tuple[int, ...], gamma: tuple[float, float]) -> TrainConfig:
    """Return a style-residual system that two cores can train on coloured or transparent pictures."""
    return TrainConfig(
        name, base_size=4, widths=widths, batch_size=32, learning_rate=(5e-4, 5e-5), gamma=gamma, mirror=True
    )


PRESETS = {
    config.preset: config
    for config in (
        _classic("conv4", "conv4"),
        _classic("mlp-lsgan", "mlp-lsgan", loss="lsgan", mse=1e-4),
        _classic("dcgan64", "dcgan64", l2=1e-4),
        _classic("gen7", "gen7", loss="lsgan", l1=1e-6, l2=1e-5),
        # 23 million weights: a step costs as much for 256 pictures as for 64, since it waits for memory.
        _classic("mlp-bn", "mlp-bn", batch_size=256, learning_rate=(4e-4, 4e-4)),
        # The settings of PyTorch's examples, to be compared with (benchmarks/training/dcgan.py).
        replace(_classic("dcgan", "dcgan"), preset="dcgan"),
        # Chosen among those of benchmarks/training/settings.py; a learning rate of 2e-3 dies within 400 steps.
        TrainConfig("fashion28", base_size=7, widths=(96, 64), penalty_every=4),
        # With gamma 10 and a learning rate of 1e-3 the discriminator ran away on RGBA (logit gap 3 after 12k images).
        _product_cpu("product64-cpu", (160, 112, 64, 32), gamma=(30.0, 3.0)),
        # Not run yet: the same for other sizes, and published settings for 64 and 128 pixels on a GPU.
        _product_cpu("product32-cpu", (160, 112, 64), gamma=(15.0, 1.5)),
        _product_cpu("product128-cpu", (160, 112, 64, 32, 16), gamma=(60.0, 6.0)),
        TrainConfig(
            "product64",
            base_size=4,
            widths=(384, 256, 192, 96),
            w_dim=256,
            batch_size=128,
            learning_rate=(4e-4, 5e-5),
            gamma=(10.0, 1.0),
            mirror=True,
        ),
        TrainConfig(
            "product128",
            base_size=4,
            widths=(384, 256, 192, 128, 64),
            w_dim=256,
            batch_size=128,
            learning_rate=(3e-4, 5e-5),
            gamma=(40.0, 4.0),
            mirror=True,
        ),
    )
}


def suited_to(size: tuple[int, int, int], device: str) -> str:
    """Return the name of the preset for pictures of a size.

    Args:
        size: Height, width and channels.
        device: "cpu" or "cuda".

    Returns:
        A key of `PRESETS`.

    Raises:
        TrainingError: If no preset makes pictures of that size.
    """
    height, width, _ = size
    sides = {"fashion28": 28, "product32-cpu": 32, "product64-cpu": 64, "product128-cpu": 128}
    if device == "cuda":
        sides = {"fashion28": 28, "product32-cpu": 32, "product64": 64, "product128": 128}
    for name, side in sides.items():
        if (height, width) == (side, side):
            return name
    known = ", ".join(map(str, sides.values()))
    raise TrainingError(f"no preset makes pictures of {width}x{height}; prepare them with --size and one of {known}")


def modernised(config: TrainConfig) -> TrainConfig:
    """Return a configuration with the networks of `config`, without dropout, and the modern objective and optimiser."""
    return replace(
        config,
        dropout=False,
        loss="rpgan",
        gamma=(8.0, 0.8),
        r1=True,
        r2=True,
        penalty_every=4,
        gp=0.0,
        l1=0.0,
        l2=0.0,
        mse=0.0,
        learning_rate=(5e-4, 5e-5),
        beta1=0.0,
        beta2=(0.9, 0.99),
    )


def preset(name: str, *, modern: bool = False, **changes: Any) -> TrainConfig:
    """Return a named preset, with what the user changed.

    Args:
        name: A key of `PRESETS`.
        modern: Take the modern objective in place of the preset's.
        **changes: Fields of `TrainConfig` with their values; `None` keeps the preset's.

    Returns:
        A configuration of its own.

    Raises:
        TrainingError: If there is no such preset, or a value is out of range.
    """
    if name not in PRESETS:
        raise TrainingError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    base = modernised(PRESETS[name]) if modern else PRESETS[name]
    config = replace(base, **{key: value for key, value in changes.items() if value is not None})
    if config.batch_size < 1:
        raise TrainingError(f"batch size {config.batch_size} is not positive")
    if config.penalty_every < 1:
        raise TrainingError(f"penalty-every {config.penalty_every} is not 1 or more")
    if not 0 <= config.seed < 2**32:
        raise TrainingError(f"seed {config.seed} is not in 0..2**32 - 1")
    if config.loss not in LOSSES:
        raise TrainingError(f"unknown loss {config.loss!r}; known: {', '.join(LOSSES)}")
    if config.half_resolution and (config.system is not None or len(config.widths) < 2):
        raise TrainingError(f"preset {name} takes no second discriminator at half resolution")
    unknown = set(config.augmentations(0)) - AUGMENTATIONS.keys()
    if unknown:
        raise TrainingError(f"unknown augmentation {', '.join(sorted(unknown))}; known: {', '.join(AUGMENTATIONS)}")
    weights = {"gamma": min(config.gamma), "gp": config.gp, "l1": config.l1, "l2": config.l2, "mse": config.mse}
    for field, value in weights.items():
        if not 0 <= value < float("inf"):
            raise TrainingError(f"{field} {value} is not a number from 0 up")
    if not all(0 < rate < float("inf") for rate in config.learning_rate):
        raise TrainingError(f"learning rate {config.learning_rate} is not above 0")
    return config


def config_of(document: dict[str, Any]) -> TrainConfig:
    """Return the configuration that a run's `run.json` holds; what it does not name has its default.

    Args:
        document: The configuration as JSON.

    Returns:
        The configuration.

    Raises:
        TrainingError: If it is not one of this version.
    """
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
    }
    try:
        return TrainConfig(**values)
    except TypeError as error:
        raise TrainingError(f"the run has settings that this version does not know: {error}") from error

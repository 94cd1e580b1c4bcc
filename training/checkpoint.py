"""The full state of a run, written atomically and read back exactly."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

from training.errors import TrainingError
from training.files import replacing
from training.presets import TrainConfig, config_of

FORMAT = "vitrine-checkpoint/1"
FILE_NAME = "checkpoint.pt"
DISCRIMINATOR_PREFIX = "discriminator."  # in a snapshot; the generator's weights have no prefix


def save(path: Path, state: dict[str, Any], *, config: TrainConfig, data_digest: str) -> None:
    """Write `state` with what it belongs to; the file appears whole or not at all."""
    whole = {"format": FORMAT, "config": asdict(config), "data_digest": data_digest, **state}
    with replacing(path) as beside:
        torch.save(whole, beside)


def load(path: Path, *, config: TrainConfig, data_digest: str) -> dict[str, Any]:
    """Return the state of a run.

    Args:
        path: File that `save` has written.
        config: Settings that the run must have.
        data_digest: Digest of the data that the run must have been trained on.

    Returns:
        What was given to `save`, tensors on the CPU.

    Raises:
        TrainingError: If the file is damaged, or belongs to other settings or other data.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes lead the unpickler to errors of any kind
        raise TrainingError(f"{path} is damaged or not a checkpoint; remove it to begin the run again") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise TrainingError(f"{path} is not a checkpoint of this version ({FORMAT})")
    wanted, had = asdict(config), asdict(config_of(state["config"]))
    differing = [key for key in wanted if had[key] != wanted[key]]
    if differing:
        found = ", ".join(f"{key} was {had[key]!r}, is {wanted[key]!r}" for key in differing)
        raise TrainingError(f"{path} belongs to other settings ({found}); use another --out or the same settings")
    if state["data_digest"] != data_digest:
        raise TrainingError(f"{path} was trained on other data ({state['data_digest'][:12]}, now {data_digest[:12]})")
    return dict(state)


def save_snapshot(
    path: Path, generator_ema: nn.Module, details: dict[str, Any], discriminator: nn.Module | None = None
) -> None:
    """Write the averaged generator's weights as safetensors, and the discriminator's as it judges.

    Args:
        path: File to write, atomically.
        generator_ema: Its weights keep their names.
        details: Metadata, as JSON can hold it.
        discriminator: Its weights get the prefix `DISCRIMINATOR_PREFIX`; what training put around them, spectral
            norms, is worked in.
    """
    tensors = {name: tensor.contiguous() for name, tensor in generator_ema.state_dict().items()}
    if discriminator is not None:
        state = _as_it_judges(discriminator)
        tensors |= {DISCRIMINATOR_PREFIX + name: tensor.contiguous() for name, tensor in state.items()}
    with replacing(path) as beside:
        save_file(tensors, beside, {"details": json.dumps(details)})


@torch.no_grad()
def _as_it_judges(discriminator: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights that a discriminator computes with, under the names that they have without norms around them.

    They are read off, not removed from a copy: a copy shares the class, from which removing takes the weight away.
    """
    state: dict[str, torch.Tensor] = dict(discriminator.state_dict())
    for name, module in discriminator.named_modules():
        if parametrize.is_parametrized(module):
            prefix = f"{name}." if name else ""
            state = {key: value for key, value in state.items() if not key.startswith(f"{prefix}parametrizations.")}
            state |= {
                prefix + tensor: getattr(module, tensor) for tensor in cast("nn.ModuleDict", module.parametrizations)
            }
    return state

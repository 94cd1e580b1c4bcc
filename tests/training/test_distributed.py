"""Several processes: they take the step of one on the joint batch, agree on the end, and say when one is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training import checkpoint
from training.data import PictureSet
from training.distributed import Group
from training.errors import TrainingError
from training.presets import TrainConfig
from training.trainer import Trainer

WORKER = """
import json, sys, torch
from safetensors.torch import save_file
from pathlib import Path
from training import data
from training.distributed import joined
from training.presets import config_of
from training.trainer import Trainer

facts = json.loads(sys.argv[1])
with joined(torch.device("cpu")) as group:
    trainer = Trainer(config_of(facts["config"]), data.load(Path(facts["data"])), amp=False, group=group,
                      sync_every=facts["sync_every"])
    for _ in range(facts["steps"]):
        stats = trainer.step(0.3)
    trainer.synchronise()
    networks = {"g": trainer.generator, "d": trainer.discriminator, "ema": trainer.generator_ema}
    tensors = {f"{n}.{k}": v.contiguous() for n, net in networks.items() for k, v in net.state_dict().items()}
    tensors["stats"] = torch.tensor([stats.d_loss, stats.g_loss, stats.r1, stats.r2, stats.gap], dtype=torch.float64)
    save_file(tensors, f"{facts['out']}.{group.rank}")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(arguments: list[str], rank: int, port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start one process of two, as torchrun would."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    environment = os.environ | {key: str(value) for key, value in group.items()}
    environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=file, stderr=file)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Return a list for the processes of a test; they are gone after it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def two_processes(
    pair: list["subprocess.Popen[bytes]"], tmp_path: Path, data: Path, config: TrainConfig, steps: int, sync_every: int
) -> list[dict[str, torch.Tensor]]:
    facts = {"config": asdict(config), "data": str(data), "steps": steps, "sync_every": sync_every}
    facts["out"] = str(tmp_path / "weights")
    port = free_port()
    pair += [start(["-c", WORKER, json.dumps(facts)], rank, port, tmp_path / f"{rank}.log") for rank in range(2)]
    for rank, process in enumerate(pair):
        assert process.wait(120) == 0, (tmp_path / f"{rank}.log").read_text()
    return [load_file(f"{facts['out']}.{rank}") for rank in range(2)]


@pytest.fixture
def packed(tiny_set: PictureSet, tmp_path: Path) -> Path:
    """Return the path of the tiny set's file."""
    return tmp_path / "tiny.safetensors"


# Batch norm sees its own shard, with processes as with threads: a system without it.
@pytest.mark.parametrize("changes", [{}, {"system": "mlp-lsgan", "loss": "lsgan", "mse": 1e-4}, {"mirror": True}])
def test_two_processes_take_the_step_of_one(
    pair: list["subprocess.Popen[bytes]"],
    tmp_path: Path,
    packed: Path,
    tiny_set: PictureSet,
    tiny_config: TrainConfig,
    changes: dict[str, object],
) -> None:
    """On gloo: weights, averages and figures after three steps, to 1e-6 of the one that has the whole batch."""
    config = replace(tiny_config, learning_rate=(1e-3, 1e-3), **changes)  # type: ignore[arg-type]
    alone = Trainer(config, tiny_set, threads=1, amp=False)
    for _ in range(3):
        stats = alone.step(0.3)
    first, second = two_processes(pair, tmp_path, packed, config, steps=3, sync_every=1)

    networks = {"g": alone.generator, "d": alone.discriminator, "ema": alone.generator_ema}
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(first[f"{name}.{key}"], second[f"{name}.{key}"])
            # The relativistic loss does not feel the logit's bias: Adam turns the rounding of its gradient into steps.
            if (name, key) != ("d", "logit.bias"):
                torch.testing.assert_close(first[f"{name}.{key}"], value, rtol=1e-4, atol=1e-6)
    expected = torch.tensor([stats.d_loss, stats.g_loss, stats.r1, stats.r2, stats.gap], dtype=torch.float64)
    torch.testing.assert_close(first["stats"], expected, rtol=1e-4, atol=1e-6)


def test_rarely_synchronised_processes_end_as_one(
    pair: list["subprocess.Popen[bytes]"], tmp_path: Path, packed: Path, tiny_config: TrainConfig
) -> None:
    """With --sync-every 2 they step apart, and every second step makes their weights the same."""
    first, second = two_processes(pair, tmp_path, packed, tiny_config, steps=5, sync_every=2)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_lost_process_ends_the_run_and_leaves_a_checkpoint(
    pair: list["subprocess.Popen[bytes]"], tmp_path: Path, fashion_mini: Path
) -> None:
    """Kill -9 of one: the other says so and ends with status 1; the same command resumes from the checkpoint."""
    data, run = tmp_path / "data.safetensors", tmp_path / "run"
    subprocess.run([sys.executable, "-m", "training", "prepare", str(fashion_mini), str(data)], check=True)
    command = ["-m", "training", "train", str(data), "--out", str(run), "--preset", "classic-mlp-lsgan"]
    command += ["--checkpoint-minutes", "0.01", "--device", "cpu"]
    port = free_port()
    pair += [start([*command, "--minutes", "10"], rank, port, tmp_path / f"{rank}.log") for rank in range(2)]
    deadline = time.monotonic() + 100
    while not (run / checkpoint.FILE_NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    pair[1].send_signal(signal.SIGKILL)

    assert pair[0].wait(60) == 1
    text = (tmp_path / "0.log").read_text()
    assert "rank 0 lost another process of the group" in text
    assert "Traceback" not in text
    state = torch.load(run / checkpoint.FILE_NAME, weights_only=True)
    kimg = state["nimg"] / 1000 + 0.2
    resumed = subprocess.run(
        [sys.executable, *command, "--kimg", str(kimg)], capture_output=True, text=True, check=True, timeout=100
    )
    assert "resuming classic-mlp-lsgan" in resumed.stdout


def test_alone_nothing_is_exchanged() -> None:
    """A group of one gives numbers and tensors back as they are."""
    tensor = torch.ones(2)
    Group().average([tensor])
    assert Group().sum([1.0, 2.0]) == [1.0, 2.0]
    assert torch.equal(tensor, torch.ones(2))


def test_batch_that_processes_cannot_share_is_refused(tiny_config: TrainConfig, tiny_set: PictureSet) -> None:
    """The message names batch, threads and processes."""
    with pytest.raises(TrainingError, match="batch size 8 cannot be shared evenly by 2 threads in each of 3 processes"):
        Trainer(tiny_config, tiny_set, threads=2, group=Group(0, 3))
    with pytest.raises(TrainingError, match="--sync-every 0"):
        Trainer(tiny_config, tiny_set, sync_every=0)

"""The benchmark of a GPU, on a CPU: the way from a bundle to a page, and what it says where there is no GPU."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.serving import gpu, peaks
from benchmarks.store import store

CPU = torch.device("cpu")


def test_without_a_gpu_there_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured or stored."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 2
    out, error = capsys.readouterr()
    assert (out, error) == ("", gpu.NO_GPU + "\n")


def test_bundle_is_measured_and_shown(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every batch size has its work, its loops, and the engine with each number of batches in flight."""
    monkeypatch.setattr(peaks, "MATRIX", {"cpu": 32})
    monkeypatch.setattr(peaks, "COPY_BYTES", {"cpu": 1 << 16})
    options = argparse.Namespace(dtype="float32", largest=2, in_flight=[1, 2], seconds=0.01, results=tmp_path)
    found = gpu.model(tiny_models / "tiny" / "1", CPU, options)
    rows = found["rows"]
    assert rows[-1].size == 2
    for row in rows:
        assert 0 < row.roofline_s < row.bare_s
        assert 0 <= row.bound_by_bytes <= 1
        assert all(set(rates) == {1, 2} and min(rates.values()) > 0 for rates in (row.engine, row.png))
    store(gpu.result({"tiny": found}, CPU, options), options)
    document = json.loads((tmp_path / "gpu-on-cpu.json").read_text())
    assert document["models"]["tiny"]["rows"][-1]["operations"] == rows[-1].operations
    assert "TFLOP/s" in (tmp_path / "gpu-on-cpu.md").read_text()


def test_work_grows_with_the_batch_but_not_its_weights(tiny_models: Path) -> None:
    """So a larger batch waits less for memory."""
    one, four = (gpu.work_of(tiny_models / "tiny" / "1", torch.float32, (size, 3, 16)) for size in (1, 4))
    assert four.operations == 4 * one.operations > 0
    assert four.weight_bytes == one.weight_bytes > 0
    assert four.activation_bytes == 4 * one.activation_bytes

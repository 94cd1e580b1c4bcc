"""What was found before, in a hidden file of the models folder: by bundle, machine and pins."""

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import structlog
import torch
from pydantic import TypeAdapter, ValidationError

from service.variants.variant import Pins, Variant

FILE_NAME = ".variants.json"
MAX_ENTRIES = 256
CHOICE = 4  # raised when there is more to choose from, or it is chosen otherwise: then it is measured anew
_VARIANT = TypeAdapter(Variant)
_log = structlog.get_logger()


class Memo:
    """Variants that were measured; a folder that cannot be written to, or a spoilt file, only costs a measurement.

    Args:
        models_dir: The models folder.
    """

    def __init__(self, models_dir: Path) -> None:
        self._path = models_dir / FILE_NAME

    def find(self, digest: str, device: torch.device, pins: Pins) -> Variant | None:
        """Return what was kept for a bundle on this machine with these pins."""
        try:
            return _VARIANT.validate_python(self._read().get(_key(digest, device, pins)))
        except ValidationError:
            return None

    def keep(self, digest: str, device: torch.device, pins: Pins, variant: Variant) -> None:
        """Remember a variant; the file is replaced as a whole."""
        entries = self._read()
        key = _key(digest, device, pins)
        entries.pop(key, None)
        entries[key] = asdict(variant)
        newest = dict(list(entries.items())[-MAX_ENTRIES:])
        beside = self._path.with_name(f"{FILE_NAME}.{os.getpid()}.part")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(newest, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            _log.info("variants are not kept", path=str(self._path), reason=error.strerror)

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def _key(digest: str, device: torch.device, pins: Pins) -> str:
    """Return what a measurement depends on, in words."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{_processor()} {torch.backends.cpu.get_cpu_capability()} x{len(os.sched_getaffinity(0))}"
    pinned = " ".join(f"{name}={value}" for name, value in asdict(pins).items() if value is not None)
    software = f"torch {torch.__version__}, choice {CHOICE}"
    return f"sha256:{digest} | {hardware} | {software} | {pinned or 'nothing pinned'}"


def _processor() -> str:
    """Return the processor's name with its flags' number, since one name may hide several steppings."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    return f"{facts.get('model name', platform.machine())} {len(facts.get('flags', '').split())} flags"

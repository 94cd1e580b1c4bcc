"""Samples to pixels on a device: the protocol, and the engine in this process."""

from service.engine.devices import batch_sizes, choose_device
from service.engine.golden import check_golden
from service.engine.local import LocalEngine
from service.engine.protocol import Engine, EngineStatus, Pixels

__all__ = ["Engine", "EngineStatus", "LocalEngine", "Pixels", "batch_sizes", "check_golden", "choose_device"]

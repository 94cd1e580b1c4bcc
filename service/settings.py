"""Every tunable, validated once. The environment's prefix is `VITRINE_`; an unknown variable stops the start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "VITRINE_"


class Settings(BaseSettings):
    """The service's configuration."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    reuse_port: bool = False
    models_dir: Path = Path("models")
    default_model: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    determinism: Literal["exact", "fast"] = "exact"
    memory_format: Literal["auto", "channels_last", "contiguous", "packed"] = "auto"
    engine_threads: int | None = Field(default=None, ge=1, le=256)
    torch_threads: int | None = Field(default=None, ge=1, le=256)
    max_batch_images: int | None = Field(default=None, ge=1, le=1024)
    max_queue_images: int = Field(default=512, ge=1)
    max_n: int = Field(default=64, ge=1, le=1024)
    max_megapixels: float = Field(default=64, gt=0)
    max_frames: int = Field(default=240, ge=2)
    request_timeout_s: float = Field(default=30, gt=0, le=3600)
    encode_threads: int = Field(default=2, ge=1, le=64)
    cache_mb: float = Field(default=64, ge=0, le=65536)
    auth: Literal["on", "off"] = "on"
    get_policy: Literal["open", "preset", "signed"] = "preset"
    cors_origins: str = ""
    stall_s: float = Field(default=30, gt=0, le=3600)
    drain_delay_s: float = Field(default=5, ge=0, le=600)
    drain_timeout_s: float = Field(default=25, ge=0, le=3600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _refuse_what_is_not_built_yet(self) -> Self:
        """Never run more open than was said: what would need keys or signatures is refused until they exist."""
        if self.auth == "on":
            raise ValueError("VITRINE_AUTH=on needs API keys, which this version does not have; say VITRINE_AUTH=off")
        if self.get_policy != "open":
            raise ValueError(
                f"VITRINE_GET_POLICY={self.get_policy} is not in this version; say VITRINE_GET_POLICY=open"
            )
        return self


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the `VITRINE_*` variables of `environment` that are no setting, sorted."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)

"""Configuration of a served application: file < environment ``PATCHBAY_*`` < flags."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from adapters_store.errors import UsageError
from adapters_store.formats.sources import source_root
from adapters_store.location import location_path
from adapters_store.signing import Trust
from serving.device import DEVICE_PATTERN

BUNDLED_NAME = "bytes-small"
DEFAULT_STORE = "~/.patchbay"


def bundled_backbone() -> Path:
    """Folder of the backbone that ships with the distribution; raises UsageError without it."""
    spec = find_spec("patchbay")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the bundled backbone is not installed; name one with --backbone")
    return Path(spec.submodule_search_locations[0]) / "bundled" / "backbone"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneConfig(_Section):
    """One served backbone: ``name`` is its model name, ``folder`` a Hugging Face folder.

    ``device`` is that of its engine core: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    folder: Path
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = Field(default="auto", pattern=rf"^({DEVICE_PATTERN})$")


class EngineSection(_Section):
    """Limits of each engine core; those fields of ``serving.engine.EngineConfig`` that a
    backbone does not set.

    ``num_threads`` is torch's thread count in the core's process.
    """

    num_threads: int = Field(default=1, ge=1)
    max_rows: int = Field(default=32, ge=1)
    max_step_tokens: int = Field(default=2048, ge=1)
    max_input_tokens: int = Field(default=2048, ge=1)
    max_output_tokens: int = Field(default=2048, ge=1)
    max_waiting: int = Field(default=1024, ge=1)
    max_lookahead: int = Field(default=64, ge=1)
    max_adapter_bytes: int = Field(default=2 * 2**30, ge=1)
    max_host_bytes: int = Field(default=2**30, ge=1)
    max_kv_bytes: int = Field(default=4 * 2**30, ge=1)
    prefix_cache_bytes: int = Field(default=2**28, ge=0)
    mixture_form: Literal["auto", "composed", "shared"] = "auto"
    kernels: Literal["auto", "torch", "triton"] = "auto"
    graphs: Literal["auto", "off", "unrecorded"] = "auto"
    balance_flops_per_byte: float = Field(default=4.0, gt=0)
    policy: Literal["fair", "fifo"] = "fair"
    tenant_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_step_adapters: int = Field(default=1024, ge=1)
    max_wait_s: float = Field(default=30.0, gt=0)
    burst_tokens: int = Field(default=4096, ge=0)


class LimitsSection(_Section):
    """Limits of one HTTP request; sizes in bytes, lengths in tokens."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    max_artefact_bytes: int = Field(default=512 * 2**20, ge=1)
    default_output_tokens: int = Field(default=64, ge=1)
    max_prompts: int = Field(default=256, ge=1)


class KeySection(_Section):
    """One API key, stored as ``sha256:<hex>`` of the secret; ``tenant`` None means all tenants."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    name: str = "key"
    tenant: str | None = None
    scopes: frozenset[Literal["infer", "register", "admin"]] = frozenset({"infer"})


class ServeConfig(_Section):
    """The whole application.

    ``store`` is a folder or a ``store.yaml``, or the ``file://`` URL of one.
    ``keys`` empty means development mode: loopback only, requests without a key are accepted.
    ``sources`` are the only places that ``POST /v1/adapters`` reads from: folders,
    ``s3://bucket[/prefix]`` and ``hf://owner[/repo]``. ``signing`` gives tenants the public keys of
    which one must have signed whatever is registered and served for them.
    ``run_folder`` is shared by the replicas of one application for their metric snapshots.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    num_replicas: int = Field(default=1, ge=1)
    max_ongoing_requests: int = Field(default=2048, ge=1)
    proxy: Literal["python", "haproxy"] = "python"
    store: Annotated[Path, BeforeValidator(location_path)] = Path(DEFAULT_STORE)
    backbones: tuple[BackboneConfig, ...] = ()
    engine: EngineSection = EngineSection()
    limits: LimitsSection = LimitsSection()
    keys: tuple[KeySection, ...] = ()
    development_key_hash: str | None = None
    sources: tuple[Annotated[str, BeforeValidator(source_root)], ...] = ()
    signing: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    run_folder: Path | None = None
    start_timeout_s: float = Field(default=300.0, gt=0)
    stall_timeout_s: float = Field(default=120.0, gt=0)
    drain_timeout_s: float = Field(default=20.0, ge=0)
    health_period_s: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [backbone.name for backbone in self.backbones]
        if len(set(names)) != len(names):
            raise ValueError(f"backbone names repeat: {names}")
        if not self.keys and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} is not loopback and no keys are configured; "
                "add `keys` or serve on 127.0.0.1"
            )
        try:
            Trust(self.signing)
        except UsageError as error:
            raise ValueError(f"signing: {error.message}") from error
        return self

    @property
    def is_development(self) -> bool:
        """True where no key is configured, which implies loopback."""
        return not self.keys

    def with_defaults(self) -> ServeConfig:
        """The same configuration with the bundled backbone filled in and paths made absolute."""
        backbones = self.backbones or (
            BackboneConfig(name=BUNDLED_NAME, folder=bundled_backbone()),
        )
        return self.model_copy(
            update={
                "store": self.store.expanduser().absolute(),
                "backbones": tuple(
                    one.model_copy(update={"folder": one.folder.expanduser().absolute()})
                    for one in backbones
                ),
            }
        )


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and for addresses of the loopback networks."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> ServeConfig:
    """Merge a YAML file, ``PATCHBAY_HOST|PORT|REPLICAS|STORE|PROXY`` and flags that are not None.

    Raises :class:`UsageError` with every problem found, naming the key.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        merged.update(_read_yaml(file))
    environment = os.environ if environment is None else environment
    for key, field in (
        ("PATCHBAY_HOST", "host"),
        ("PATCHBAY_PORT", "port"),
        ("PATCHBAY_REPLICAS", "num_replicas"),
        ("PATCHBAY_STORE", "store"),
        ("PATCHBAY_PROXY", "proxy"),
    ):
        if environment.get(key):
            merged[field] = environment[key]
    merged.update({key: value for key, value in (flags or {}).items() if value is not None})
    try:
        return ServeConfig.model_validate(merged).with_defaults()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in one['loc']) or 'configuration'}: {one['msg']}"
            for one in error.errors()
        )
        raise UsageError(f"invalid configuration: {problems}") from error


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the configuration {file}: {error}") from error
    if not isinstance(read, dict):
        raise UsageError(f"{file} holds {type(read).__name__}; expected a mapping of settings")
    return read

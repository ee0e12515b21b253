"""The server's configuration: flags, then INNERLOOP_* variables, then a TOML file, then defaults."""

import os
import re
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from innerloop_learner.signatures import KeyFileError, read_trusted_keys
from innerloop_learner.zoo import zoo_folder
from innerloop_server.backends import parse_backends

CLEARER = {"byte_size": "is not a size; write a number of bytes, or for example 512MiB"}
"""Plainer messages than pydantic's, by pydantic's type of error."""

PATTERNS = {"store": "is none of memory, sqlite:PATH, redis://HOST:PORT/DB and rediss://HOST:PORT/DB"}
"""Plainer messages for settings that must match a pattern, by name."""

LONGEST_LIFE = 100 * 365 * 86400.0
"""Longest life of an adaptation, in seconds: about 100 years, since a timestamp holds no much later time."""

USUAL_LIFE = 30 * 86400.0
"""Life of an adaptation, in seconds, when neither a request nor the operator names one: 30 days."""


USUAL_LOOK_SECONDS = 60.0
"""Seconds between two looks at an object store, unless the operator says otherwise."""


class ConfigurationError(ValueError):
    """A configuration that can't be served with; one problem per line of the message."""


class ServerSettings(BaseSettings):
    """The settings of a server. Every field is a flag, an environment variable and a key of a TOML file."""

    model_config = SettingsConfigDict(env_prefix="INNERLOOP_", extra="forbid", frozen=True)

    models: Annotated[str, BeforeValidator(str)] = Field(
        default_factory=lambda: str(zoo_folder()),
        description="Folder with a sub-folder for each model, which is a bundle or holds one for each version; or a "
        "bundle itself. Or the URL of one in an object store, for example s3://BUCKET/FOLDER. (default: the models "
        "that come with Innerloop)",
    )
    model_cache_bytes: ByteSize = Field(
        ByteSize(16 * 2**30),
        gt=0,
        description="Most bytes on disk, below data_dir, of bundles that come from an object store.",
    )
    watch: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between two looks at the models, to load what is new there, unload what is gone, and "
        "follow aliases; with 0 that takes LoadModel, UnloadModel and SetAlias. (default: 0 for a folder, 60 for a "
        "URL)",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    backend: str = Field(
        "auto",
        description="torch, onnxruntime (for bundles with ONNX graphs), or auto: torch where it is installed. "
        "MODEL=BACKEND is for one model; commas separate several.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Most CPU threads of a computation that runs alone. The server takes as many as are fastest, which "
        "changes answers by rounding only. Computations that run side by side take one thread each. "
        "ONNX Runtime takes several threads only if there is one lane. (default: half of the cores, at most 4)",
    )
    lanes: int | None = Field(
        None, ge=1, description="Batches that a CPU computes side by side. (default: one for every core)"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Precision of convolutions and matrix products: float32, or the faster but less exact tf32 or "
        "(PyTorch only) bfloat16.",
    )
    compile: bool = Field(
        False,
        description="Compile models with PyTorch's inductor while they serve already, which takes minutes and makes "
        "models faster on a GPU. With ONNX Runtime, TensorRT compiles them where it is installed, whenever a batch of "
        "a new size comes.",
    )
    max_load_seconds: float = Field(
        600.0, gt=0, allow_inf_nan=False, description="Longest time that reading or downloading one bundle may take."
    )
    require_signed: Path | None = Field(
        None,
        description="PEM file of public keys, one or more: only bundles that one of them has signed are loaded "
        "(`innerloop sign`). It is read anew for each bundle.",
    )
    admin: bool = Field(False, description="Allow LoadModel, UnloadModel, SetAlias and MigrateAdaptations.")
    downloads: bool = Field(
        False,
        description="Allow DownloadAdaptation: callers may take their adaptations home, and with them the graphs of "
        "models, parameters included.",
    )
    admin_subjects: str | None = Field(
        None,
        description="Subjects of the client certificates that may call what --admin allows, with "
        "semicolons between them, for example CN=ops,O=Example.",
    )
    api_keys: Path | None = Field(
        None,
        description="TOML file of the API keys that callers may send; `innerloop key` makes its entries. Read again "
        "when it changes.",
    )
    jwt_keys: str | None = Field(
        None,
        description="Public keys that check the signatures of callers' JSON Web Tokens: a PEM file or a JSON Web Key "
        "Set, which is read again when it changes, or the https:// URL of such a set, which is read every 5 minutes.",
    )
    jwt_issuer: str | None = Field(None, min_length=1, description="Claim `iss` of the tokens that are accepted.")
    jwt_audience: str | None = Field(
        None, min_length=1, description="Word that the claim `aud` of the tokens that are accepted must name."
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    insecure: bool = Field(
        False,
        description="Listen beyond this machine without asking callers who they are, so that whoever reaches the port "
        "is served, all as one owner; or without TLS, so that API keys and tokens travel in the clear.",
    )
    port: int = Field(50051, ge=0, le=65535, description="Port of the gRPC services; 0 takes a free one.")
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address of the Prometheus metrics, which anybody who reaches it may read.",
    )
    metrics_port: int = Field(
        9464, ge=-1, le=65535, description="Port of the Prometheus metrics; 0 takes a free one, -1 opens none."
    )
    ready_file: Path | None = Field(
        None, description="File to write the ports and process id to, as JSON, once the models are loaded."
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file of the server's private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authority that client certificates must come from; asks clients for one."
    )

    frontends: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that answer gRPC in front of the process that computes, to serve more clients; "
        "with 0 it answers itself.",
    )
    frontend_bytes: ByteSize = Field(
        ByteSize(256 * 2**20), ge=2**20, description="Memory of each front end for requests under way."
    )

    max_message_bytes: ByteSize = Field(ByteSize(64 * 2**20), gt=0, description="Largest request accepted.")
    max_support: int = Field(1000, ge=1, description="Most support examples a request may carry.")
    max_query: int = Field(10_000, ge=1, description="Most queries a request may carry.")
    max_batch_tasks: int | None = Field(
        None, ge=1, description="Most requests computed together. (default: 8 on a CPU, 256 on a GPU)"
    )
    max_batch_bytes: ByteSize = Field(
        ByteSize(8 * 2**20), gt=0, description="Most input bytes computed together; a larger request runs alone."
    )
    adapt_weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Share of the device's time that adapting gets when both wait."
    )
    predict_weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Share of the device's time that predicting gets when both wait."
    )
    max_queue_requests: int = Field(512, ge=1, description="Requests of one model that may wait for the device.")
    max_queue_bytes: ByteSize = Field(
        ByteSize(512 * 2**20), gt=0, description="Input bytes of one model that may wait for the device."
    )
    max_queue_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest estimated wait of a request without a deadline; others are refused if they would be late.",
    )
    owner_queue_requests: int | None = Field(
        None, ge=1, description="Requests of one caller and model that may wait for the device. (default: no limit)"
    )
    owner_requests_per_second: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Requests a second that each caller may send. (default: no limit)"
    )
    owner_examples_per_second: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Support examples and queries a second that each caller may send. (default: no limit)",
    )

    owner_adaptations: int | None = Field(
        None,
        ge=1,
        description="Adaptations that one owner may have, in memory and store together; more are refused until some "
        "are deleted or expire. (default: no limit)",
    )
    adaptation_bytes: ByteSize = Field(
        ByteSize(2**30),
        gt=0,
        description="Memory of the device for adaptations; of whoever has most, the least recently used ones give way. "
        "Those come back from the store when they are used.",
    )
    owner_adaptation_bytes: ByteSize | None = Field(
        None,
        gt=0,
        description="Memory for one owner's adaptations, of both; its least recently used ones give way. "
        "(default: no limit; where there is too little memory, those of whoever has most give way)",
    )
    host_adaptation_bytes: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Memory of the host for adaptations that give way on a GPU; they come back when they are used.",
    )
    time_to_live: float | None = Field(
        None,
        ge=0,
        le=LONGEST_LIFE,
        description="Seconds an unused adaptation lives when a request names none; 0 for ever. "
        "(default: 30 days, or max_time_to_live if that is shorter)",
    )
    max_time_to_live: float = Field(
        365 * 86400.0,
        ge=0,
        le=LONGEST_LIFE,
        description="Longest life a request may ask for, in seconds; with 0 there is no limit, and a request may ask "
        "for an adaptation that never expires.",
    )

    store: str | None = Field(
        None,
        pattern=r"^(memory|sqlite:.+|(redis|rediss|unix)://.+)$",
        description="Where adaptations are kept: memory (a restart loses them), sqlite:PATH, or redis://HOST:PORT/DB "
        "(rediss:// with TLS) for several servers that share them. (default: a SQLite file in data_dir)",
    )
    data_dir: Path | None = Field(
        None,
        description="Folder of this server's own data; one server uses it at a time. "
        "(default: $XDG_DATA_HOME/innerloop or ~/.local/share/innerloop)",
    )
    durability: Literal["none", "behind", "through"] = Field(
        "through",
        description="When a change counts: through once it is on the disk, so that no crash undoes what was answered; "
        "behind at once, and a crash loses the last second at most; none at once, and the disk is never waited for.",
    )
    store_failure: Literal["refuse", "memory"] = Field(
        "refuse",
        description="What becomes of Adapt requests while the store is away: they are refused, or what they make is "
        "kept in memory only.",
    )
    recipe_bytes: ByteSize = Field(
        ByteSize(2**20),
        ge=0,
        description="Largest support set that is kept with its adaptation, to make the task state again; 0 keeps none.",
    )
    state_bytes: ByteSize = Field(
        ByteSize(64 * 2**10),
        ge=0,
        description="Largest task state that is stored although the support set that makes it again is smaller.",
    )
    migrate: Literal["never", "on-use", "background"] = Field(
        "on-use",
        description="When adaptations are made again on another version of their model: never; when they are used and "
        "the version that made them is gone; or in the background also, as soon as `stable` is another version. "
        "`innerloop migrate` does so whenever asked.",
    )

    drain_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long to go on accepting requests after a stop signal while health says NOT_SERVING.",
    )
    grace_seconds: float = Field(
        30.0, ge=0, allow_inf_nan=False, description="How long to wait for requests under way when stopping."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity to log.")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto is console on a terminal.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.models_are_remote or Path(self.models).is_dir()):
            raise ValueError(f"models: there is no folder {self.models}")
        try:
            parse_backends(self.backend)
        except ValueError as error:
            raise ValueError(f"backend: {error}") from error
        if self.port == self.metrics_port != 0 and self.host == self.metrics_host:
            raise ValueError(f"metrics_port: is the same as port ({self.port}); choose another")
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing, given = ("tls_key", "tls_certificate") if self.tls_key is None else ("tls_certificate", "tls_key")
            raise ValueError(f"{missing}: is needed together with {given}")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca: needs tls_certificate and tls_key")
        self._check_callers_are_known()
        for name in ("tls_certificate", "tls_key", "tls_client_ca", "api_keys", "jwt_keys"):
            file = getattr(self, name)
            if file is None or (name == "jwt_keys" and self.jwt_keys_are_remote):
                continue
            if not Path(file).is_file():
                raise ValueError(f"{name}: there is no file {file}")
        if self.require_signed is not None:
            try:
                read_trusted_keys(self.require_signed)
            except KeyFileError as error:
                raise ValueError(f"require_signed: {error}") from error
        if self.ready_file is not None and not self.ready_file.parent.is_dir():
            raise ValueError(f"ready_file: there is no folder {self.ready_file.parent}")
        if self.frontends and not hasattr(os, "memfd_create"):
            raise ValueError("frontends: needs Linux; leave it at 0")
        if self.max_time_to_live and not 0 < self.usual_time_to_live <= self.max_time_to_live:
            raise ValueError(f"time_to_live: is longer than max_time_to_live ({self.max_time_to_live:g} s)")
        return self

    def _check_callers_are_known(self) -> None:
        """Refuse settings by which callers would not be known who should be."""
        for name in ("jwt_issuer", "jwt_audience"):
            if (self.jwt_keys is None) != (getattr(self, name) is None):
                missing, given = (name, "jwt_keys") if self.jwt_keys is not None else ("jwt_keys", name)
                raise ValueError(f"{missing}: is needed together with {given}")
        if (self.jwt_keys or "").startswith("http://"):
            raise ValueError("jwt_keys: whoever changes what http:// brings could sign tokens; give an https:// URL")
        if not (self.insecure or _is_loopback(self.host)):
            if self.tls_client_ca is None and not self.takes_credentials:
                raise ValueError(
                    f"host: {self.host} is open to others, and nobody would be asked who they are; give "
                    "tls_certificate and tls_key with tls_client_ca, api_keys or jwt_keys, or say insecure"
                )
            if self.tls_certificate is None:
                raise ValueError(
                    f"host: {self.host} is open to others, and keys and tokens would travel in the clear; give "
                    "tls_certificate and tls_key, or say insecure"
                )
        if self.admin and self.tls_client_ca is not None and not (self.subjects_of_admins or self.takes_credentials):
            raise ValueError("admin: needs admin_subjects, which say whose certificates may load and unload models")

    @property
    def takes_credentials(self) -> bool:
        """Whether callers are known by what they send: API keys or tokens."""
        return self.api_keys is not None or self.jwt_keys is not None

    @property
    def jwt_keys_are_remote(self) -> bool:
        """Whether the keys of tokens come from a URL."""
        return (self.jwt_keys or "").startswith("https://")

    @property
    def models_are_remote(self) -> bool:
        """Whether models come from a store that has a URL, and not from a folder."""
        return "://" in self.models

    @property
    def look_seconds(self) -> float:
        """Seconds between two looks at the models; zero for none."""
        if self.watch is not None:
            return self.watch
        return USUAL_LOOK_SECONDS if self.models_are_remote else 0.0

    @property
    def subjects_of_admins(self) -> tuple[str, ...]:
        """Subjects of admins in the form of RFC 4514, one each."""
        subjects = re.split(r"(?<!\\);", self.admin_subjects or "")
        return tuple(subject.strip() for subject in subjects if subject.strip())

    @property
    def usual_time_to_live(self) -> float:
        """Seconds an unused adaptation lives when a request names none; zero for ever."""
        if self.time_to_live is not None:
            return self.time_to_live
        return min(USUAL_LIFE, self.max_time_to_live or USUAL_LIFE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out sources that nobody asked for (.env files, secret folders)."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


def load_settings(flags: dict[str, Any], config: Path | None = None) -> ServerSettings:
    """The settings that flags, environment and TOML file make together.

    Args:
        flags: values given on the command line.
        config: TOML file.

    Raises:
        ConfigurationError: unknown, malformed or contradictory settings.
    """
    try:
        return _with_file(config)(**flags)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_problems(error))) from error


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _with_file(config: Path | None) -> type[ServerSettings]:
    """ServerSettings that also reads `config`."""
    if config is None:
        return ServerSettings
    try:
        tomllib.loads(config.read_text())
    except OSError as error:
        raise ConfigurationError(f"config: can't read {config} ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"config: {config} is not valid TOML: {error}") from error

    class FileSettings(ServerSettings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **kwargs: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            inherited = super().settings_customise_sources(settings_cls, *args, **kwargs)
            return *inherited, TomlConfigSettingsSource(settings_cls, config)

    return FileSettings


def _problems(error: ValidationError) -> list[str]:
    """One line per problem, led by the setting's name."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: no such setting")
        elif problem["type"] == "missing":
            lines.append(f"{name}: is needed")
        else:
            known = PATTERNS.get(name) if problem["type"] == "string_pattern_mismatch" else None
            message = known or CLEARER.get(problem["type"], problem["msg"].removeprefix("Value error, "))
            lines.append(f"{name}: {message}" if name else message)
    return lines

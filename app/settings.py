"""All settings: flags over `REMEDIATOR_…` variables over the config file over defaults.

Read once by `app.main` and `app.cli`; everything below gets values, never settings.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from app.backends.connections import Connections
from app.backends.scope import Scope
from app.backends.secrets import SecretSource
from app.catalog.diagnostics import sentence
from app.catalog.fields import unknown_field
from app.domain.durations import Duration, Rate, Rates, format_duration
from app.domain.episodes import REPLICA_LABELS
from app.domain.errors import ConfigError, Diagnostic
from app.domain.model import Value
from app.domain.moments import MAX_COUNT, Positive
from app.domain.names import did_you_mean
from app.domain.remediation import Mode

_PREFIX = "REMEDIATOR_"
_OTHER_VARIABLES = {"config", "url", "token", "hypothesis"}  # of the command line and of the tests
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)")
_OF_A_SERVICE = "; the cluster may have set it, for a Service named remediator: enableServiceLinks: false keeps it away"
_SHORTEST_RETENTION = timedelta(days=7)
_SECRETIVE = {"audit", "auth", "connections", "store"}  # their values are never repeated


class Token(SecretSource):
    """A bearer token (or basic auth password) and its role; give `file` or `value`."""

    name: str = Field(description="The actor in the audit.")
    role: Literal["alertmanager", "viewer", "approver", "admin"]


class AuthSettings(Value):
    """Tokens and roles; without tokens everything is open and the service only listens on loopback."""

    tokens: tuple[Token, ...] = ()


class TlsSettings(Value):
    """Certificates to serve with; changed files are taken up without a restart."""

    cert_file: Path | None = Field(default=None, description="The certificate chain, PEM; without it HTTP is served.")
    key_file: Path | None = Field(default=None, description="Its private key, PEM.")
    client_ca_file: Path | None = Field(
        default=None, description="Clients must have a certificate of this authority, besides their token."
    )

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file must be given together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class LogSettings(Value):
    """How to log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json."
    )


class AuditSettings(Value):
    """How the audit is protected."""

    key: SecretSource | None = Field(
        default=None, description="The secret key of the chained hashes; without it no hash can be forged."
    )


class EpisodeSettings(Value):
    """How deliveries are put together to episodes."""

    ignored_labels: tuple[str, ...] = Field(
        default=REPLICA_LABELS,
        description="Labels in which only the replicas of one HA Prometheus differ.",
    )
    late_within: Duration = Field(
        default=timedelta(minutes=5), description="How long after a resolve a retry may come."
    )
    restart_after: Duration = Field(
        default=timedelta(hours=1), description="startsAt so long after the last delivery begins a new episode."
    )


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ValueError(f"{text!r} is not host:port, for example 127.0.0.1:8080")
    if not host:
        raise ValueError(f"{text!r} names no host; write 0.0.0.0:{port} for all addresses")
    return text


def _paths(value: object) -> object:
    """A variable holds several paths with commas between them."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )
    config_file: ClassVar[Path | None] = None

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8080", description="Address to serve on, host:port."
    )
    data: Path = Field(default=Path("data"), description="Directory of the SQLite store.")
    store: str | None = Field(
        default=None, description="sqlite:///file.db or postgresql://…; default: remediator.db in the data directory."
    )
    store_file: Path | None = Field(default=None, description="A file that holds the store's URL, for its password.")
    catalog: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = Field(
        default=(Path("remediations"),), description="Files or directories of remediations."
    )
    mode: Mode = Field(default=Mode.AUTO, description="The most that any remediation may do: observe, approve or auto.")
    rate: Annotated[Rates, NoDecode] = Field(
        default=(Rate(60, timedelta(hours=1)),), description="Admitted runs over all remediations and replicas."
    )
    concurrency: Positive = Field(default=10, description="Runs that act at the same time, over all replicas.")
    storm: Annotated[Rates, NoDecode] = Field(
        default=(Rate(200, timedelta(minutes=10)),),
        description="More alerts that trigger a remediation than this are one outage: nothing is done.",
    )
    storm_pause: Duration = Field(
        default=timedelta(minutes=10), description="How long nothing is done after the last alert of a storm."
    )
    channel: str | None = Field(
        default=None, description="The channel of connections.notify that is asked for approval and told of storms."
    )
    external_url: str = Field(
        default="", description="Where people reach this service; links in messages begin with it."
    )
    lease: Duration = Field(
        default=timedelta(seconds=30), description="How long a dead replica's runs wait for another one."
    )
    workers: int = Field(
        default=32, ge=1, le=1000, description="Runs that plan at the same time, and as many that apply."
    )
    recheck: Duration = Field(
        default=timedelta(seconds=30), description="How soon a refusal that has no known end is decided again."
    )
    lookup: Duration = Field(
        default=timedelta(minutes=1),
        description="How often to ask Alertmanager for alerts without a notification, if it is configured; 0: never.",
    )
    stability: Duration = Field(
        default=timedelta(seconds=5),
        le=timedelta(hours=1),
        description="How long a target must keep a change before the run counts as verified.",
    )
    plan_timeout: Duration = Field(default=timedelta(seconds=30), description="How long planning a run may take.")
    approval_timeout: Duration = Field(default=timedelta(hours=1), description="How long an approval is waited for.")
    tell_waiting: Duration = Field(
        default=timedelta(minutes=30), description="After this people are told that a run is deferred; 0: never."
    )
    drain: Duration = Field(default=timedelta(seconds=25), description="How long SIGTERM waits for running steps.")
    preflight: Duration = Field(
        default=timedelta(minutes=10),
        description="How often it is found out whether each remediation could run; 0 turns that off.",
    )
    max_body_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, le=MAX_COUNT, description="The largest notification that is accepted."
    )
    max_alerts: Positive = Field(default=20_000, description="The most alerts that one notification may have.")
    max_requests: Positive = Field(
        default=128, description="Notifications that are received at once; more are told to come again."
    )
    episodes: EpisodeSettings = EpisodeSettings()
    retention: Duration = Field(
        default=timedelta(days=90), description="How long to keep ended runs and their records; 0: for ever."
    )
    audit: AuditSettings = AuditSettings()
    scope: Scope = Scope()
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()
    connections: Connections = Connections()

    @model_validator(mode="after")
    def _tokens_before_the_world(self) -> Settings:
        if not self.auth.tokens and not is_loopback(self.host):
            raise ValueError(
                f"{self.listen} is reachable from elsewhere and no token is configured; "
                "configure auth.tokens or listen on 127.0.0.1"
            )
        return self

    @field_validator("retention")
    @classmethod
    def _longer_than_limits(cls, retention: timedelta, info: ValidationInfo) -> timedelta:
        longest = max((rate.window for rate in info.data.get("rate", ())), default=timedelta())
        needed = max(_SHORTEST_RETENTION, longest)
        if retention and retention < needed:
            raise ValueError(f"must be 0 or at least {format_duration(needed)}: limits count the kept records")
        return retention

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables, then the file."""
        file = YamlConfigSettingsSource(settings_cls, yaml_file=cls.config_file)
        return (init_settings, env_settings, file)

    @property
    def host(self) -> str:
        """The host part of `listen`, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port part of `listen`."""
        return int(self.listen.rpartition(":")[2])

    @property
    def store_url(self) -> str:
        """Where the store is."""
        if self.store_file is not None:
            return SecretSource(file=self.store_file).read("store_file")
        return self.store or f"sqlite:///{self.data / 'remediator.db'}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Read all settings; raises ConfigError with every problem, each with its key and where it came from."""
    if config is not None and not config.is_file():
        wrong = "is a directory; name the file in it" if config.is_dir() else "does not exist"
        raise ConfigError(f"the config file {config} {wrong}")
    _refuse_unknown_variables()
    located = type("Settings", (Settings,), {"config_file": config, "__module__": __name__})
    try:
        return located(**{key: value for key, value in flags.items() if value is not None})  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = [_diagnostic(config, problem) for problem in error.errors(include_url=False)]
        raise ConfigError("the configuration cannot be used", problems) from error
    except SettingsError as error:
        raise ConfigError(f"the configuration cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"the config file {config} is not YAML", [_not_yaml(config, error)]) from None


def _not_yaml(config: Path | None, error: yaml.YAMLError | ValueError) -> Diagnostic:
    """Where the file stops to be YAML. PyYAML's own words quote the file, and with it secrets."""
    mark = error.problem_mark or error.context_mark if isinstance(error, yaml.MarkedYAMLError) else None
    said = "; a value that begins with one of * & ! % @ ` needs quotes, and a tab cannot indent"
    if not isinstance(error, yaml.MarkedYAMLError):
        said = ": it is not UTF-8 text, holds a control character, or has a value that its tag does not allow"
    place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Diagnostic(str(config), *place, "", f"not YAML{said}")


def _refuse_unknown_variables() -> None:
    """A variable with a typing error would silently change nothing."""
    problems = []
    for variable in sorted(os.environ):
        name = variable.removeprefix(_PREFIX).partition("__")[0].lower()
        if variable.startswith(_PREFIX) and name not in {*Settings.model_fields, *_OTHER_VARIABLES}:
            hint = _OF_A_SERVICE if _SERVICE_LINK.fullmatch(variable) else did_you_mean(name, Settings.model_fields)
            problems.append(Diagnostic(variable, 1, 1, name, f'unknown setting "{name}"{hint}'))
    if problems:
        raise ConfigError("the configuration cannot be used", problems)


def _diagnostic(config: Path | None, problem: Any) -> Diagnostic:
    loc = problem["loc"] or ("listen",)  # the one rule over several settings
    if loc == ("remediations",):
        message = "this is a file of the catalog, not the configuration; name it with --catalog"
    elif problem["type"] == "extra_forbidden":
        message = unknown_field(Settings, loc, "the configuration")
    else:
        message = sentence(problem)
    if loc[0] in _SECRETIVE:
        message = message.partition(", not ")[0]
    if loc[-1] in {"url", "bearer_token"} and message == "must be a mapping":
        message += "; write {file: /path} or {value: ...}"
    return placed(config, loc, message)


def placed(config: Path | None, loc: tuple[str | int, ...], message: str) -> Diagnostic:
    """A problem with the setting at `loc`, where it was given: by a variable, or by the config file."""
    path = ".".join(str(part) for part in loc)
    variable = _PREFIX + path.upper().replace(".", "__")
    if variable in os.environ:
        return Diagnostic(variable, 1, 1, path, message)
    line, column = _position(config, loc)
    return Diagnostic(str(config or "settings"), line, column, path, message)


def _position(config: Path | None, loc: tuple[str | int, ...]) -> tuple[int, int]:
    """Line and column of the deepest part of `loc` that the file holds."""
    node = yaml.compose(config.read_text(encoding="utf-8"), yaml.SafeLoader) if config else None
    mark = None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                break
            mark, node = found[0][0].start_mark, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            mark = node.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)

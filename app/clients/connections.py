"""How to reach the systems that remediations act on, as the configuration names them.

Secrets live in files or in the environment; these values hold them as `SecretStr`, which prints redacted.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from app.domain.durations import Duration
from app.domain.errors import ConfigError
from app.domain.model import Value

APPLICATION_NAME = "remediator"  # how sessions of PostgreSQL show that they are ours


class SecretSource(Value):
    """A secret given by a file (read at each use, so that it can be rotated) or in place."""

    value: SecretStr | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SecretSource:
        if (self.value is None) == (self.file is None):
            msg = "exactly one of value and file must be given"
            raise ValueError(msg)
        return self

    def read(self, setting: str = "") -> str:
        """The secret; raises ConfigError that names the file, and where it is known the setting, never the content."""
        if self.value is not None:
            return self.value.get_secret_value()
        try:
            return Path(str(self.file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            msg = f"{setting}{': ' if setting else ''}cannot read the secret file {self.file}: {why}"
            raise ConfigError(msg) from None


class KubernetesConnection(Value):
    """The cluster: a kubeconfig file, or none for the service account of the pod that the remediator runs in."""

    kubeconfig: Path | None = None
    context: str | None = None


class PostgresConnection(Value):
    """A PostgreSQL server; the URL is a libpq connection URI."""

    url: SecretSource


class RedisConnection(Value):
    """A Redis server; the URL is redis://, rediss:// or unix://, without a database number."""

    url: SecretSource


class PrometheusConnection(Value):
    """A Prometheus (or anything that answers its query API)."""

    url: str
    bearer_token: SecretSource | None = None


class BasicAuth(Value):
    """A user name and its password."""

    username: str
    password: SecretSource


class AlertmanagerConnection(Value):
    """Every Alertmanager that sends its notifications here: all members of a cluster, each by its own address."""

    urls: tuple[str, ...] = Field(min_length=1)
    receivers: tuple[str, ...] = Field(
        default=(), description="Receivers that lead here; default: those that recent notifications name."
    )
    bearer_token: SecretSource | None = None
    basic: BasicAuth | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> AlertmanagerConnection:
        if self.bearer_token is not None and self.basic is not None:
            msg = "only one of bearer_token and basic may be given"
            raise ValueError(msg)
        return self


class NotifyChannel(Value):
    """Where notify.send delivers: Apprise URLs, which hold secrets."""

    urls: tuple[SecretSource, ...] = Field(min_length=1)


class Connections(Value):
    """Everything that remediations may name."""

    kubernetes: KubernetesConnection = KubernetesConnection()
    postgres: dict[str, PostgresConnection] = Field(default_factory=dict)
    redis: dict[str, RedisConnection] = Field(default_factory=dict)
    prometheus: PrometheusConnection | None = None
    alertmanager: AlertmanagerConnection | None = None
    notify: dict[str, NotifyChannel] = Field(default_factory=dict)
    secrets: dict[str, SecretSource] = Field(default_factory=dict, description="Named secrets for http.request.")
    timeout: Duration = Field(default=timedelta(seconds=10), description="Of one call to any of them.")

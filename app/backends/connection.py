"""How to reach the systems that remediations act on, as the configuration names them.

Secrets live in files or in the environment; these values hold them as `SecretStr`, which prints redacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from app.domain.credentials import is_credential_name
from app.domain.durations import Duration
from app.domain.errors import ConfigError, PermanentError
from app.domain.model import Value
from app.domain.reasons import Reason
from app.domain.redaction import SECRETS

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CREDENTIAL_NAME = re.compile(r"authori[sz]ation|cookie|token|secret|password|api-?key", re.IGNORECASE)
# Which the remediator, or the protocol, sets.
OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "idempotency-key"}
)
APPLICATION_NAME = "remediator"  # how sessions of PostgreSQL show that they are ours


class SecretSource(Value):
    """A secret given by a file (read at each use, so that it can be rotated) or in place."""

    is_secret: ClassVar[bool] = True
    value: SecretStr | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> SecretSource:
        if (self.value is None) == (self.file is None):
            msg = "exactly one of value and file must be given"
            raise ValueError(msg)
        if self.value is not None and self.is_secret:
            secret = self.value.get_secret_value()
            SECRETS.learn(secret, secret)
        return self

    def read(self, setting: str = "") -> str:
        """The secret; raises ConfigError that names the file, and where it is known the setting, never the content."""
        if self.value is not None:
            return self.value.get_secret_value()
        try:
            secret = Path(str(self.file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            msg = f"{setting}{': ' if setting else ''}cannot read the secret file {self.file}: {why}"
            raise ConfigError(msg) from None
        SECRETS.learn(secret, str(self.file))
        return secret

    def header(self, name: str) -> str:
        """The secret as the value of a header; raises ConfigError or PermanentError where no header can carry it."""
        text = self.read(f"header {name}").strip()
        if not is_header_value(text):
            message = f"the value of header {name} is empty or has characters that no HTTP header can carry"
            raise PermanentError(message, reason=Reason.CONFIG_INVALID)
        return text


def is_header_value(text: str) -> bool:
    """Say whether a header can carry this text."""
    return bool(text) and text.isascii() and text.isprintable()


class _Plain(SecretSource):
    """A text in the place of a secret: it is none, and so is not hidden in other texts."""

    is_secret = False


def _in_place(headers: object) -> object:
    """Return a header may be plain text; with a credential's name it is kept as a secret."""
    if not isinstance(headers, Mapping):
        return headers
    return {
        name: _Plain(value=SecretStr(value))
        if isinstance(value, str) and not CREDENTIAL_NAME.search(str(name))
        else ({"value": value} if isinstance(value, str) else value)
        for name, value in headers.items()
    }


def _sendable(headers: Mapping[str, SecretSource]) -> Mapping[str, SecretSource]:
    for name, source in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"header {name!r} is set by the remediator")
        if source.value is not None and not is_header_value(source.value.get_secret_value().strip()):
            raise ValueError(f"the value of header {name!r} is empty or has characters that no HTTP header can carry")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header is given twice; upper and lower case do not differ")
    return headers


def _query_in_place(query: object) -> object:
    """Return the same of query parameters."""
    if not isinstance(query, Mapping):
        return query
    kinds = {name: SecretSource if is_credential_name(str(name)) else _Plain for name in query}
    return {
        name: kinds[name](value=SecretStr(value)) if isinstance(value, str) else value for name, value in query.items()
    }


Query = Annotated[dict[str, SecretSource], BeforeValidator(_query_in_place)]
Headers = Annotated[dict[str, SecretSource], BeforeValidator(_in_place), AfterValidator(_sendable)]


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
    headers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_authorization(self) -> PrometheusConnection:
        _refuse_second_authorization(self.headers, self.bearer_token)
        return self


class HttpConnection(Value):
    """The headers that http.request and http.ok send to one host beside those of a remediation."""

    headers: Headers = Field(default_factory=dict)
    query: Query = Field(default_factory=dict, description="Added to the query of each URL.")


class BasicAuth(Value):
    """A user name and its password."""

    username: str
    password: SecretSource


class AlertmanagerConnection(Value):
    """Every Alertmanager that sends its notifications here: all members of a cluster, each by its own address."""

    urls: tuple[str, ...] = Field(min_length=1)
    receivers: tuple[str, ...] = Field(
        default=(), description="Receivers that lead here; default: the receivers of recent notifications."
    )
    bearer_token: SecretSource | None = None
    basic: BasicAuth | None = None
    headers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way_in(self) -> AlertmanagerConnection:
        if self.bearer_token is not None and self.basic is not None:
            msg = "only one of bearer_token and basic may be given"
            raise ValueError(msg)
        _refuse_second_authorization(self.headers, self.bearer_token or self.basic)
        return self


def _refuse_second_authorization(headers: Mapping[str, object], other: object) -> None:
    if other is not None and "authorization" in {name.lower() for name in headers}:
        raise ValueError("the header Authorization is given twice: by headers and by bearer_token or basic")


_HTTP_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


def _hosts(connections: Mapping[str, HttpConnection]) -> Mapping[str, HttpConnection]:
    for host in connections:
        if not _HTTP_HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host; write host or host:port in lower case, without scheme and path")
    return connections


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
    http: Annotated[dict[str, HttpConnection], AfterValidator(_hosts)] = Field(default_factory=dict)
    notify: dict[str, NotifyChannel] = Field(default_factory=dict)
    secrets: dict[str, SecretSource] = Field(default_factory=dict, description="Named secrets for http.request.")
    timeout: Duration = Field(
        default=timedelta(seconds=10), le=timedelta(hours=1), description="Of one call to any of them."
    )

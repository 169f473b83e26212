"""The credentials of a kubeconfig, for the Kubernetes client: each field is honoured, or the file is refused.

A field that the library leaves out in silence, such as `as`, would make the service another user than kubectl is with
the same file. The rules are kubectl's, and stricter where kubectl picks one of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.exec_provider import ExecProvider
from kubernetes.aio.config.kube_config import ConfigNode, KubeConfigLoader
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.clients.connections import KubernetesConnection

_RENEWED_BEFORE = timedelta(minutes=5)  # the end of a plugin's token
_NEVER_KEPT = "1970-01-02T00:00:00Z"  # the end of a token whose plugin names none
_TOKEN_CHARACTERS = "!#$&'*+-.^_`|~"  # noqa: S105 - that a header's name may have beside letters and digits


class _Part(BaseModel):
    """A part of a kubeconfig with every field that Kubernetes gives it, each with the type that it has there."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        alias_generator=lambda n: n.replace("_", "-"),
    )


class _Variable(_Part):
    name: str
    value: str = ""


class _Exec(_Part):
    api_version: str = Field(alias="apiVersion")
    command: str
    args: list[str] = Field(default_factory=list)
    env: list[_Variable] = Field(default_factory=list)
    install_hint: str = Field(default="", alias="installHint")
    interactive_mode: str = Field(default="", alias="interactiveMode")
    provide_cluster_info: bool = Field(default=False, alias="provideClusterInfo")


class _User(_Part):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = Field(default="", alias="tokenFile")
    as_: str = Field(default="", alias="as")
    as_uid: str = ""
    as_groups: list[str] = Field(default_factory=list)
    as_user_extra: dict[str, list[str]] = Field(default_factory=dict)
    username: str = ""
    password: str = ""
    auth_provider: Any = None
    exec: _Exec | None = None
    extensions: Any = None

    @property
    def has_certificate(self) -> bool:
        return bool(self.client_certificate or self.client_certificate_data)


class _Cluster(_Part):
    server: str
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False  # a wish about the answers' encoding, which changes nothing that is said
    extensions: Any = None


P = TypeVar("P", bound=_Part)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the cluster, and the headers that say as whom."""

    configuration: Configuration
    impersonation: tuple[tuple[str, str], ...] = ()


async def credentials(connection: KubernetesConnection) -> Credentials:
    """Load what the connection names; raises ConfigException that says which field cannot be honoured."""
    configuration = Configuration()
    # Otherwise a netrc file would add a user of its own to requests.
    configuration.client_session_kwargs = {"trust_env": False}
    impersonation: tuple[tuple[str, str], ...] = ()
    if connection.kubeconfig is None:
        load_incluster_config(configuration)
    else:
        impersonation = await _of_file(connection.kubeconfig, connection.context, configuration)
    configuration.proxy = configuration.proxy or _proxy_of_environment(configuration.host)
    return Credentials(configuration, impersonation)


async def _of_file(path: Path, context: str | None, configuration: Configuration) -> tuple[tuple[str, str], ...]:
    loader, user = _accepted(path, context)
    await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    # Token files and credential plugins are asked again before each call, so that a rotated token is followed.
    configuration.refresh_api_key_hook = loader.load_and_set  # type: ignore[assignment]
    return tuple(_headers(user))


def _accepted(path: Path, context: str | None) -> tuple[_Loader, _User]:
    """The file of which every field is honoured, and the user that it names."""
    if not path.is_file():
        raise ConfigException("there is no such file")
    raw = _without_blanks(yaml.safe_load(path.read_text(encoding="utf-8")))
    if not isinstance(raw, dict):
        raise ConfigException("it is not a mapping")
    base = str(path.absolute().parent)
    loader = _Loader(raw, active_context=context, config_base_path=base)  # type: ignore[no-untyped-call]
    user = _read(_User, _named_user(raw, loader.current_context["context"]), "user")
    cluster = _read(_Cluster, loader.cluster, "cluster")
    for problem in (*_problems_of_user(user), *_problems_of_cluster(cluster, user)):
        raise ConfigException(problem)
    return loader, user


def _named_user(raw: Mapping[str, Any], context: Mapping[str, Any]) -> object:
    """The user that a context names; one that names none is nobody's, as behind kubectl proxy."""
    name = context.get("user")
    if name is None:
        return {}
    found = [one.get("user", {}) for one in raw.get("users", ()) if one.get("name") == name]
    if not found:
        raise ConfigException(f"the context's user {name!r} is not among its users")
    return found[0]


def _without_blanks(value: Any) -> Any:
    """What is null or empty is not given, for kubectl; the library would take it for given."""
    if isinstance(value, dict):
        cleaned = {key: _without_blanks(one) for key, one in value.items()}
        return {key: one for key, one in cleaned.items() if one is not None and one != ""}
    return [_without_blanks(one) for one in value] if isinstance(value, list) else value


def _read(model: type[P], value: object, what: str) -> P:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join((what, *(str(part) for part in first["loc"])))
        if first["type"] == "extra_forbidden":
            raise ConfigException(f"{field} is no field of a kubeconfig that the remediator knows") from None
        raise ConfigException(f"{field}: {first['msg'].lower()}") from None


def _problems_of_user(user: _User) -> Iterator[str]:
    ways = {
        "token": user.token,
        "tokenFile": user.token_file,
        "username": user.username or user.password,
        "client-certificate": user.has_certificate,
        "exec": user.exec,
    }
    given = [name for name, value in ways.items() if value]
    if user.auth_provider is not None:
        yield "user.auth-provider is not supported; use exec, tokenFile, token or a client certificate"
    if len(given) > 1:
        yield f"the user has {' and '.join(given)}; leave one way to log in, so that it is certain who acts"
    if bool(user.username) != bool(user.password):
        yield "user.username and user.password go together"
    if user.has_certificate != bool(user.client_key or user.client_key_data):
        yield "a client certificate and its key go together"
    for field in ("client_certificate", "client_key"):
        if getattr(user, field) and getattr(user, f"{field}_data"):
            name = field.replace("_", "-")
            yield f"user.{name} and user.{name}-data are both given"
    if (user.as_uid or user.as_groups or user.as_user_extra) and not user.as_:
        yield "user.as-uid, as-groups and as-user-extra need user.as"
    if not all(value.isprintable() and value == value.strip() and value for _, value in _headers(user)):
        yield "user.as, as-uid, as-groups and as-user-extra must be printable text"
    yield from _problems_of_plugin(user.exec)


def _problems_of_plugin(plugin: _Exec | None) -> Iterator[str]:
    if plugin is None:
        return
    if plugin.provide_cluster_info:
        yield "user.exec.provideClusterInfo is not supported"
    if plugin.interactive_mode == "Always":
        yield "user.exec.interactiveMode: Always needs a person; the plugin must work without one"
    if "/" in plugin.command and not plugin.command.startswith("/"):
        yield "user.exec.command must be an absolute path, or a name that is found in PATH"


def _problems_of_cluster(cluster: _Cluster, user: _User) -> Iterator[str]:
    address = urlsplit(cluster.server)
    if address.scheme not in {"http", "https"} or not address.hostname:
        yield "cluster.server must be an http or https URL"
    if address.username or address.password:
        yield "cluster.server must not hold a user or password"
    authorities = [cluster.certificate_authority, cluster.certificate_authority_data]
    if all(authorities):
        yield "cluster.certificate-authority and cluster.certificate-authority-data are both given"
    if any(authorities) and cluster.insecure_skip_tls_verify:
        yield "cluster.insecure-skip-tls-verify would leave the given certificate-authority out; remove one of them"
    if address.scheme == "http" and user.has_certificate:
        yield "cluster.server is http, where the user's certificate would be left out; use https"
    if cluster.proxy_url and urlsplit(cluster.proxy_url).scheme not in {"http", "https"}:
        yield "cluster.proxy-url must be an http or https URL; other proxies are not supported"


def _headers(user: _User) -> Iterator[tuple[str, str]]:
    """The headers that kubectl sends for these fields; one that holds several values is sent several times."""
    if user.as_:
        yield "Impersonate-User", user.as_
    if user.as_uid:
        yield "Impersonate-Uid", user.as_uid
    for group in user.as_groups:
        yield "Impersonate-Group", group
    for key, values in user.as_user_extra.items():
        for value in values:
            yield f"Impersonate-Extra-{quote(key, safe=_TOKEN_CHARACTERS)}", value


def _proxy_of_environment(host: str) -> str | None:
    """The proxy of HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as kubectl goes by them."""
    address = urlsplit(host)
    if proxy_bypass(address.netloc):
        return None
    return getproxies().get(address.scheme)


class _Loader(KubeConfigLoader):
    """The library's loader, without its way to go on as nobody where a credential cannot be had."""

    _user: Any
    _cluster: Any
    _renew_at = datetime.min.replace(tzinfo=UTC)

    @property
    def cluster(self) -> object:
        """The context's cluster as it is written."""
        return self._cluster.value

    def set_active_context(self, context_name: str | None = None) -> None:
        super().set_active_context(context_name)  # type: ignore[no-untyped-call]
        self._user = self._user or ConfigNode("user", {})  # of a context that names no user

    def _load_user_token(self) -> bool:
        found = super()._load_user_token()  # type: ignore[no-untyped-call]
        if found:
            self.token = self.token.strip()  # a file ends with a newline, which no header can carry
        if "tokenFile" in self._user and (not found or self.token == "Bearer"):  # noqa: S105 - without a token
            raise ConfigException(f"the token file {self._user['tokenFile']} is empty")
        return bool(found)

    async def load_from_exec_plugin(self) -> bool:
        if datetime.now(UTC) < self._renew_at:
            return True
        command = self._user["exec"]["command"]
        try:
            status = await ExecProvider(self._user["exec"]).run()
            token, end = status.get("token"), datetime.fromisoformat(status.get("expirationTimestamp") or _NEVER_KEPT)
        except (ConfigException, OSError, AttributeError, ValueError) as error:  # what it prints may hold secrets
            raise ConfigException(f"the plugin {command} gave no credentials; run it by hand to see why") from error
        if not token:
            raise ConfigException(f"the plugin {command} gave no token; its client certificates are not supported")
        self.token = f"Bearer {token}"
        self._renew_at = end.astimezone(UTC) - _RENEWED_BEFORE
        return True

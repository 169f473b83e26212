"""The credentials of a kubeconfig, for the Kubernetes client: each field is honoured, or the file is refused.

A field that the library leaves out in silence, such as `as`, would make the service another user than kubectl is with
the same file. The rules are kubectl's, and stricter where kubectl picks one of two.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import ConfigNode, KubeConfigLoader
from pydantic import Field, ValidationError

from app.backends.kubernetes.backend import KubernetesConnection
from app.backends.kubernetes.plugin import Part, Plugin, Tokens
from app.domain.redaction import SECRETS

_NOT_TOLD = {"certificate_authority", "extensions", "disable_compression"}
_FOR_PLUGINS = "client.authentication.k8s.io/exec"  # the extension of a cluster that is its plugins' configuration
_TOKEN_CHARACTERS = "!#$&'*+-.^_`|~"  # noqa: S105 - that a header's name may have beside letters and digits


class _User(Part):
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
    exec: Plugin | None = None
    extensions: Any = None

    @property
    def has_certificate(self) -> bool:
        return bool(self.client_certificate or self.client_certificate_data)


class _Cluster(Part):
    server: str
    tls_server_name: str = ""
    insecure_skip_tls_verify: bool = False
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    proxy_url: str = ""
    disable_compression: bool = False  # a wish about the answers' encoding, which changes nothing that is said
    extensions: Any = None

    def told(self, base: Path) -> dict[str, Any]:
        """Return the facts about the cluster that a plugin gets."""
        found: dict[str, Any] = self.model_dump(by_alias=True, exclude_unset=True, exclude=_NOT_TOLD)
        if self.certificate_authority:
            content = (base / self.certificate_authority).read_bytes()
            found["certificate-authority-data"] = base64.b64encode(content).decode("ascii")
        given = self.extensions if isinstance(self.extensions, list) else ()
        config = [one.get("extension") for one in given if one.get("name") == _FOR_PLUGINS]
        return found | ({"config": config[0]} if config else {})


P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the cluster, and the headers that say as whom."""

    configuration: Configuration
    impersonation: tuple[tuple[str, str], ...] = ()


async def credentials(connection: KubernetesConnection) -> Credentials:
    """Load the connection's kubeconfig; raises ConfigException that names the field that cannot be honoured."""
    configuration = Configuration()
    # Otherwise a netrc file would add a user of its own to requests.
    configuration.client_session_kwargs = {"trust_env": False}
    impersonation: tuple[tuple[str, str], ...] = ()
    if connection.kubeconfig is None:
        load_incluster_config(configuration)
    else:
        impersonation = await _of_file(connection.kubeconfig, connection.context, configuration)
    configuration.proxy = configuration.proxy or _proxy_of_environment(configuration.host)
    SECRETS.learn(unquote(urlsplit(configuration.proxy or "").password or ""), "kubernetes proxy")
    SECRETS.learn(configuration.password or "", "kubernetes password")
    return Credentials(configuration, impersonation)


def named_files(connection: KubernetesConnection) -> dict[str, Path]:
    """The files that a kubeconfig names, by the field that does; raises ConfigException where it cannot be used."""
    if connection.kubeconfig is None:
        return {}
    try:
        loader, user = _accepted(connection.kubeconfig, connection.context)
    except UnicodeDecodeError:
        raise ConfigException("it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigException(f"cannot read {error.filename}: {error.strerror}") from None
    cluster = _read(_Cluster, loader.cluster, "cluster")
    named = {
        "user.client-certificate": user.client_certificate,
        "user.client-key": user.client_key,
        "user.tokenFile": user.token_file,
        "cluster.certificate-authority": cluster.certificate_authority,
    }
    base = connection.kubeconfig.absolute().parent
    return {field: base / file for field, file in named.items() if file}


async def _of_file(path: Path, context: str | None, configuration: Configuration) -> tuple[tuple[str, str], ...]:
    loader, user = _accepted(path, context)
    await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    # Token files and credential plugins are asked again before each call, so that a rotated token is followed.
    configuration.refresh_api_key_hook = loader.load_and_set  # type: ignore[assignment]
    return tuple(_headers(user))


def _accepted(path: Path, context: str | None) -> tuple[_Loader, _User]:
    """A file with fields that are all honoured, and the user that it names."""
    if not path.is_file():
        raise ConfigException("there is no such file")
    raw = _without_blanks(_parsed(path))
    if not isinstance(raw, dict):
        raise ConfigException("it is not a mapping")
    base = str(path.absolute().parent)
    try:
        loader = _Loader(raw, active_context=context, config_base_path=base)  # type: ignore[no-untyped-call]
        named = _named_user(raw, loader.current_context["context"])
    except (AttributeError, KeyError, TypeError):
        message = "clusters, users and contexts must be lists of named objects, as kubectl config view shows them"
        raise ConfigException(message) from None
    user, cluster = _read(_User, named, "user"), _read(_Cluster, loader.cluster, "cluster")
    for problem in (*_problems_of_user(user), *_problems_of_cluster(cluster, user)):
        raise ConfigException(problem)
    loader.tokens = Tokens(user.exec, cluster.told(path.absolute().parent)) if user.exec else None
    return loader, user


def _parsed(path: Path) -> Any:
    """The file's YAML; the library's own error would quote the line, and with it a secret."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigException(f"it is no valid YAML{where}") from None


def _named_user(raw: Mapping[str, Any], context: Mapping[str, Any]) -> object:
    """Return the user of a context; a context without one has no user, as behind kubectl proxy."""
    name = context.get("user")
    if name is None:
        return {}
    found = [one.get("user", {}) for one in raw.get("users", ()) if one.get("name") == name]
    if not found:
        raise ConfigException(f"the context's user {name!r} is not among its users")
    return found[0]


def _without_blanks(value: Any) -> Any:
    """Drop null and empty fields: kubectl takes them for absent, the library for given."""
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
        "exec": user.exec,
    }
    given = [name for name, value in ways.items() if value]
    if user.auth_provider is not None:
        yield "user.auth-provider is not supported; use exec, tokenFile, token or a client certificate"
    if len(given) > 1:
        yield f"the user has {' and '.join(given)}; leave one way to log in, so that the user is certain"
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
    yield from user.exec.problems() if user.exec else ()


def _problems_of_cluster(cluster: _Cluster, user: _User) -> Iterator[str]:
    if not _is_address(cluster.server):
        yield "cluster.server must be an http or https URL"
    if cluster.proxy_url and not _is_address(cluster.proxy_url):
        yield "cluster.proxy-url must be an http or https URL; other proxies are not supported"
    address = urlsplit(cluster.server)
    if address.username or address.password:
        yield "cluster.server must not hold a user or password"
    authorities = [cluster.certificate_authority, cluster.certificate_authority_data]
    if all(authorities):
        yield "cluster.certificate-authority and cluster.certificate-authority-data are both given"
    if any(authorities) and cluster.insecure_skip_tls_verify:
        yield "cluster.insecure-skip-tls-verify would leave the given certificate-authority out; remove one of them"
    if address.scheme == "http" and user.has_certificate:
        yield "cluster.server is http, where the user's certificate would be left out; use https"


def _is_address(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        return parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:  # whose text repeats parts of the URL
        return False


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
    """The library's loader, without its habit to go on without a user when a credential is missing."""

    _user: Any
    _cluster: Any
    tokens: Tokens | None = None

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
        self.token = f"Bearer {await self.tokens.get()}" if self.tokens else ""
        return bool(self.token)

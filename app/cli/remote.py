"""The parts that commands share that ask a running service: its address, its token, and messages when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from app.domain.errors import ConfigError

TOKEN = "REMEDIATOR_TOKEN"  # noqa: S105 - the name of the variable
_SECONDS = 30.0
_UNAUTHORIZED, _FIRST_ERROR = 401, 400

with_url = click.option(
    "--url", envvar="REMEDIATOR_URL", help=f"Ask the service there; {TOKEN} holds the token, where it wants one."
)
with_token_file = click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with a token that may; else {TOKEN}.",
)


def token_in(file: Path | None) -> str | None:
    """The token of `--token-file`; None where it was not given."""
    return None if file is None else file.read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, asked with the token of the environment."""

    url: str
    token: str | None = None  # else the one of the environment

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a PUT; raises ConfigError with the service's own words."""
        return self._answered(lambda client: client.put(path, json=body))

    def delete(self, path: str, params: Mapping[str, Any]) -> Any:
        """The answer to a DELETE; raises ConfigError with the service's own words."""
        return self._answered(lambda client: client.delete(path, params=params))

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to a GET; raises ConfigError with the service's own words."""
        return self._answered(lambda client: client.get(path, params=params))

    def _answered(self, ask: Callable[[httpx.Client], httpx.Response]) -> Any:
        token = self.token or os.environ.get(TOKEN)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with httpx.Client(base_url=self.url, headers=headers, timeout=_SECONDS) as client:
                answer = ask(client)
                found = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigError(f"cannot ask {self.url}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{self.url} answered {answer.status_code} and no JSON: is it a remediator?") from error
        if answer.status_code >= _FIRST_ERROR:
            missing = answer.status_code == _UNAUTHORIZED and not token
            hint = f"; put a token into {TOKEN}, or name its file with --token-file" if missing else ""
            raise ConfigError(f"{self.url} answered {answer.status_code}: {_detail(found)}{hint}")
        return found


def _detail(found: Any) -> str:
    return str(found.get("detail", found) if isinstance(found, dict) else found)[:500]

"""Secrets of the configuration: in files or in place; the values hold them as `SecretStr`, which prints redacted."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr, model_validator

from app.domain.errors import ConfigError, PermanentError
from app.domain.model import Value
from app.domain.reasons import Reason
from app.domain.redaction import SECRETS


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


def unreadable(file: Path) -> str:
    """Say why a file cannot be read; empty where it can."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    return ""


def is_header_value(text: str) -> bool:
    """Whether a header can carry this text."""
    return bool(text) and text.isascii() and text.isprintable()

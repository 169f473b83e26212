"""Refuses credentials in the URLs of a catalog, which is stored with each run and shown to people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from app.catalog.diagnostics import Place, Report
from app.domain.credentials import is_credential_name

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_PAIR = re.compile(r"[?&#]([^\s?&#=\"'<>]{1,100})=([^\s&#\"'<>]*)")
_LOGIN = re.compile(r"https?://[^\s/?#@:\"'<>]*:([^\s/?#@\"'<>]+)@", re.IGNORECASE)
_PLACE = "\0"  # of a template: an alert's values were no secret before


def in_urls(text: str) -> Iterator[str]:
    """Return, in words, the credentials that URLs in a text spell out."""
    plain = _TEMPLATE.sub(_PLACE, text)
    for name, value in _PAIR.findall(plain):
        if is_credential_name(unquote(name)) and value.strip(_PLACE):
            yield f'the query parameter "{unquote(name)}"'.replace(_PLACE, "{{ }}")
    if any(password.strip(_PLACE) for password in _LOGIN.findall(plain)):
        yield "the password"


def refuse(place: Place, report: Report) -> None:
    """Report each credential in a URL, at its place; the message does not repeat it."""
    if isinstance(place.node.value, str):
        for found in in_urls(place.node.value):
            message = (
                f"{found} of a URL looks like a credential, and it would be stored and shown with each run: "
                "give it by file, in connections.http (query or headers) or as bearer_token"
            )
            report.problem(place.at, place.path, message)
    for below in (*place.node.fields, *range(len(place.node.items))):
        child = place.child(below)
        if child is not None:
            refuse(child, report)

"""The files that a kubeconfig names, for `remediator check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kubernetes.aio.config import ConfigException

from app.backends.kubernetes.backend import KubernetesConnection
from app.backends.kubernetes.credentials import named_files
from app.backends.secrets import unreadable


def problems(connection: KubernetesConnection, kubeconfig: Path) -> Iterator[str]:
    """Say of each file why it cannot be read or used."""
    try:
        files = named_files(connection)
    except ConfigException as error:
        yield f"{kubeconfig} cannot be used: {error}"
        return
    for field, file in files.items():
        if why := unreadable(file):
            yield f"{field} in {kubeconfig}: {why}"

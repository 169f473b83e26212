"""The Dockerfile makes an image that runs the service as a user without rights, and stops when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from app import __version__
from tests.shipped.base_image import ROOT, import_base, wheelhouse
from tests.support.docker import DockerEngine
from tests.support.processes import wait_until

BASE, IMAGE = "remediator-test/python", "remediator-test/remediator"
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
READY = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/-/ready').status)"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built from the checkout without a network."""
    context = tmp_path_factory.mktemp("context")
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "app", context / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(wheelhouse(), context / "wheels")
    import_base(docker_engine, BASE, tmp_path_factory.mktemp("base"))
    docker_engine.run("build", "--network=none", f"--build-arg=BASE={BASE}", f"--tag={IMAGE}", str(context))
    return IMAGE


@pytest.fixture
def container(docker_engine: DockerEngine, image: str) -> Iterator[str]:
    """A running container, as locked down as the chart's, with nothing configured and no network but its loopback."""
    options = ("--detach", "--network=none", "--health-interval=1s", *HARDENED)
    name = docker_engine.run("run", *options, image).stdout.strip()
    yield name
    docker_engine.run("rm", "--force", "--volumes", name)


def inspect(engine: DockerEngine, kind: str, name: str) -> dict[str, Any]:
    """What the engine knows about an image or container."""
    found: list[dict[str, Any]] = json.loads(engine.run(kind, "inspect", name).stdout)
    return found[0]


def test_the_image_says_how_it_is_run(docker_engine: DockerEngine, image: str) -> None:
    """User, entry point, command, volume and port are what the chart and the documentation rely on."""
    config = inspect(docker_engine, "image", image)["Config"]
    names = ("User", "Entrypoint", "Cmd", "Volumes", "ExposedPorts")
    assert {name: config[name] for name in names} == {
        "User": "65532:65532",
        "Entrypoint": ["remediator"],
        "Cmd": ["serve"],
        "Volumes": {"/data": {}},
        "ExposedPorts": {"8080/tcp": {}},
    }


def test_the_image_is_of_this_release(docker_engine: DockerEngine, image: str) -> None:
    """The command in the image is the one that was checked out."""
    words = ("run", "--rm", "--network=none", image, "--version")
    assert docker_engine.run(*words).stdout.strip() == f"remediator, version {__version__}"


def test_a_container_serves_with_nothing_configured(docker_engine: DockerEngine, container: str) -> None:
    """It becomes healthy, answers that it is ready, and ends cleanly when it is stopped."""

    def health() -> str:
        state = inspect(docker_engine, "container", container)["State"]
        assert state["Running"], docker_engine.run("logs", container).stderr
        status: str = state["Health"]["Status"]
        return status

    wait_until(lambda: health() == "healthy", 60, "the container to be healthy")
    assert docker_engine.run("exec", container, "python", "-c", READY).stdout == "200\n"
    docker_engine.run("stop", container)
    assert inspect(docker_engine, "container", container)["State"]["ExitCode"] == 0

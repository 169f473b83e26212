"""A backend is a folder: nothing outside of it names it, and the registry refuses what is no backend."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.backends.actions import actions
from app.backends.base import Backend
from app.backends.checks import checks
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.registry import backends, targets
from app.backends.scope import Scope
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.settings import Settings
from tests.support.aio import run

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
NAMES = re.compile(r"kubernetes|postgres|redis|docker", re.IGNORECASE)
# The store's own database, which the service speaks to whatever its backends are.
DIALECT = {"app/store", "app/settings.py", "app/cli/options.py"}


def tokens(file: Path) -> Iterator[tuple[int, str]]:
    """The names and texts of a module, without comments and docstrings."""
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline):
        is_docstring = token.type == tokenize.STRING and before in {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
        if token.type in {tokenize.NAME, tokenize.STRING} and not is_docstring:
            yield token.start[0], token.string
        if token.type not in {tokenize.NL, tokenize.COMMENT}:
            before = token.type


def test_nothing_outside_of_its_folder_names_a_backend() -> None:
    """But for the dialect of the store, which is PostgreSQL's."""
    found = []
    for file in sorted(APP.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name.startswith("app/backends/") and len(file.relative_to(APP / "backends").parts) > 1:
            continue
        own = any(name == one or name.startswith(f"{one}/") for one in DIALECT)
        for line, text in tokens(file):
            named = {match.lower() for match in NAMES.findall(text)} - ({"postgres"} if own else set())
            found += [f"{name}:{line}: {text}"] if named else []
    assert found == []


def test_every_folder_is_a_backend() -> None:
    """Each has its module, and a name like its folder."""
    folders = {path.name for path in (APP / "backends").iterdir() if (path / "__init__.py").exists()}
    assert folders == {*backends()}
    assert all(isinstance(one, Backend) and one.title and one.instances for one in backends().values())


def test_actions_and_checks_belong_to_a_backend() -> None:
    """And need a target of a backend that has any."""
    needed = {use.target_backend for use in (*actions().values(), *checks().values())}
    assert needed - {None} <= {*targets()}


@pytest.mark.parametrize("name", targets())
def test_a_targets_key_is_read_as_it_is_written(name: str) -> None:
    """The example of each is one, and something else is not."""
    kind = targets()[name]
    assert kind.key_objection(kind.example.removeprefix(f"{name}:")) is None
    assert kind.key_objection("") is not None


def test_an_action_whose_package_is_gone_is_named() -> None:
    """A run of an earlier time may still name it."""
    with pytest.raises(PermanentError, match=r"there is no action 'gone\.away'; install the package that has it"):
        actions()["gone.away"]
    gone = Target(backend="gone", key="gone:away")
    assert "the backend is not installed" in str(Scope().objection(gone))


def cluster(namespace: str, at: str = "") -> Target:
    """A Deployment, in another cluster where one is named."""
    return Target(backend="kubernetes", key="kubernetes:", kind="Deployment", namespace=namespace, at=at)


@pytest.mark.parametrize(
    ("patterns", "namespace", "at", "inside"),
    [
        (("shop",), "shop", "", True),
        (("shop",), "shop", "eu", False),
        (("*",), "shop", "eu", False),
        (("eu/shop",), "shop", "eu", True),
        (("eu/shop",), "shop", "", False),
        (("default/shop",), "shop", "", True),
        (("*/shop-*",), "shop-a", "eu", True),
        (("*/*",), "kube-system", "eu", False),
        (("kube-system",), "kube-system", "eu", False),
        (("eu/kube-system",), "kube-system", "eu", True),
    ],
)
def test_a_scope_names_the_cluster(patterns: tuple[str, ...], namespace: str, at: str, *, inside: bool) -> None:
    """An entry without one is about the default cluster."""
    scope = Scope(kubernetes={"namespaces": patterns})
    assert inside == (scope.objection(cluster(namespace, at)) is None)


def test_a_default_instance_is_not_named_in_keys() -> None:
    """So that runs, cooldowns and breakers of before keep their meaning; another one is stored with the plan."""
    assert "at" not in cluster("shop").model_dump()
    assert "eu" == cluster("shop", "eu").model_dump()["at"]
    kind = targets()["kubernetes"]
    assert ("default", "eu") == (
        kind.instance("kubernetes:Deployment/shop/api"),
        kind.instance("kubernetes:eu/Deployment/shop/api"),
    )
    assert kind.key_objection("eu/Deployment/shop/api") is None
    assert kind.key_objection("default/Deployment/shop/api") is not None


def test_a_population_that_no_backend_counts_is_unknown() -> None:
    """So `storm` refuses where a backend names a neighbourhood and does not say what is in it."""
    clients = Clients(Connections(), Scope())
    population = run(backends()["redis"].population(clients, Target(backend="redis", key="redis:cache/0", name="0")))
    assert "the backend redis does not say which targets are around one" == population.unknown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scope": {"postgres": ["main/orders"]}}, r"write scope\.postgres\.databases"),
        ({"scope": {"redis": ["cache/0"]}}, r"write scope\.redis\.databases"),
        ({"connections": {"kubernetes": {"kubeconfig": "/k"}}}, r"write connections\.kubernetes\.default\.kubeconfig"),
        ({"connections": {"prometheus": {"url": "http://p"}}}, r"write connections\.prometheus\.default\.url"),
        ({"connections": {"alertmanager": {"urls": ["http://a"]}}}, r"write connections\.alertmanager\.default\.urls"),
        ({"connections": {"redis": {"a/b": {"url": {"value": "redis://x"}}}}}, "cannot be the name of a connection"),
    ],
)
def test_keys_of_before_are_errors_that_name_the_new_ones(given: dict[str, object], told: str) -> None:
    """A mapping by name took the place of one server, and of a list."""
    with pytest.raises(ValidationError, match=told):
        Settings.model_validate(given)


def test_an_instance_that_is_not_configured_is_named() -> None:
    """With those that are; the cluster of the own pod needs no settings."""
    none = Connections()
    with pytest.raises(PermanentError, match=r"connections\.prometheus has no 'default' \(configured: none\)"):
        none.instance(backends()["prometheus"], "default")
    assert none.instance(backends()["kubernetes"], "default").kubeconfig is None
    two = Connections.model_validate({"kubernetes": {"eu": {"kubeconfig": "/eu"}}})
    with pytest.raises(PermanentError, match=r"connections\.kubernetes has no 'default' \(configured: eu\)"):
        two.instance(backends()["kubernetes"], "default")

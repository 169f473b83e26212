"""Starts the servers and the service, makes trouble, shows each run, and says at the end whether all was cured.

On a terminal it then keeps serving until Ctrl-C; elsewhere it ends with exit status 0 when every run that acted was
verified and effective, else 1.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from _pytest.outcomes import Skipped

from tests.support import alertmanager, postgres, prometheus, redis, service
from tests.support.processes import BedError, wait_until
from tests.support.service import Service, ServiceOptions
from tools.demo.narrator import Narrator, paint, say
from tools.demo.shop import Shop, exporter
from tools.install import PROGRAMS, locate

HERE = Path(__file__).parent
PATIENCE_SECONDS = 120
ALERTMANAGER = """
route: {{receiver: remediator, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 5m}}
receivers:
  - name: remediator
    webhook_configs: [{{url: "{url}/webhooks/alertmanager", send_resolved: true}}]
"""
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
  - {{job_name: shop, static_configs: [{{targets: ["{shop}"]}}]}}
  - {{job_name: remediator, static_configs: [{{targets: ["{remediator}"]}}]}}
"""


@contextmanager
def api_on_kubernetes(home: Path) -> Iterator[tuple[Path, Callable[[], bool]] | None]:
    """The shop's API as a Deployment that is unhealthy until it is rolled, where the Kubernetes parts are at hand."""
    if any(locate(name) is None for name, program in PROGRAMS.items() if program.module and name != "helm"):
        say("Kubernetes is not at hand (`make bed` builds it), so no Deployment is restarted today.")
        yield None
        return
    from tests.support import apiserver  # noqa: PLC0415 - only where it can run

    with apiserver.serve(home) as cluster:
        cluster.kubectl("create", "namespace", "shop")
        cluster.deployment("shop", "api", replicas=3)
        jsonpath = "{.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}"

        def was_restarted() -> bool:
            return bool(cluster.kubectl("get", "deployment", "api", "-n", "shop", "-o", f"jsonpath={jsonpath}"))

        yield cluster.kubeconfig, was_restarted


def configuration(shop: Shop, kubeconfig: Path | None) -> dict[str, object]:
    """The service's config file."""
    connections: dict[str, object] = {
        "postgres": {"shop": {"url": {"value": shop.postgres.database_url("shop", "remediator")}}},
        "redis": {"shop": {"url": {"value": f"redis://{shop.redis.host}:{shop.redis.port}"}}},
    }
    if kubeconfig:
        connections["kubernetes"] = {"default": {"kubeconfig": str(kubeconfig)}}
    scope = {
        "kubernetes": {"namespaces": ["shop"]},
        "postgres": {"databases": ["shop/shop"]},
        "redis": {"databases": ["shop/*"]},
        "http": {"hosts": ["127.0.0.1"]},
    }
    return {"connections": connections, "scope": scope, "log": {"format": "json"}}


def start_shop(stack: ExitStack, home: Path) -> Shop:
    """PostgreSQL and Redis, both small."""
    (home / "redis").mkdir()
    database = stack.enter_context(postgres.serve({"max_connections": "80"}))
    cache = stack.enter_context(redis.serve(home / "redis", {"maxmemory": "18mb", "maxmemory-policy": "noeviction"}))
    return Shop(database, cache, stack)


def start_service(stack: ExitStack, home: Path, shop: Shop, kubeconfig: Path | None) -> Service:
    """The remediator on SQLite."""
    (home / "config.yaml").write_text(yaml.safe_dump(configuration(shop, kubeconfig)))
    options = ServiceOptions(data=home / "data", catalog=[HERE / "remediations.yaml"], config=home / "config.yaml")
    return stack.enter_context(service.serve(home, options))


def start_monitoring(
    stack: ExitStack, home: Path, shop: Shop, remediator: Service, api_healthy: Callable[[], bool] | None
) -> tuple[str, str]:
    """Alertmanager and Prometheus; returns their URLs."""
    (home / "alertmanager").mkdir()
    (home / "prometheus").mkdir()
    config = ALERTMANAGER.format(url=remediator.url)
    router = stack.enter_context(alertmanager.serve(home / "alertmanager", config))
    metrics = stack.enter_context(exporter(shop, api_healthy))
    places = {"alertmanager": f"127.0.0.1:{router.port}", "shop": metrics, "remediator": f"127.0.0.1:{remediator.port}"}
    rules = {"rules.yml": (HERE / "rules.yml").read_text()}
    watcher = stack.enter_context(prometheus.serve(home / "prometheus", PROMETHEUS.format(**places), rules))
    return router.url, watcher.url


def cured(narrator: Narrator, expected: int) -> bool:
    """Tell what is new; whether every alert has been answered, and every run that acts has helped."""
    runs = narrator.tell_news()
    acting = [run for run in runs if run["state"] != "observed"]
    if any(run["state"] in {"failed", "denied", "interrupted"} for run in acting):
        raise BedError("a run did not succeed; the lines above say why")
    return len(acting) >= expected and all(run["effective"] for run in acting)


def show(home: Path, stack: ExitStack) -> None:
    """The whole demo; raises BedError or TimeoutError when something was not cured."""
    say(paint("title", "Starting PostgreSQL, Redis, Prometheus, Alertmanager and the remediator (on SQLite)"))
    shop = start_shop(stack, home)
    (home / "cluster").mkdir()
    on_kubernetes = stack.enter_context(api_on_kubernetes(home / "cluster"))
    kubeconfig, api_healthy = on_kubernetes or (None, None)
    remediator = start_service(stack, home, shop, kubeconfig)
    router, watcher = start_monitoring(stack, home, shop, remediator, api_healthy)
    say(f"  remediator {remediator.url}   Alertmanager {router}   Prometheus {watcher}")
    say()
    say(paint("title", "Making trouble"))
    say(f"  PostgreSQL: a pool leaks, {shop.leak_connections()} sessions of database shop, all of them idle")
    say(f"  Redis: pages fill the cache, {shop.fill_cache():.0%} of its memory is used")
    if api_healthy:
        say("  Kubernetes: the API's health check fails; its Deployment has 3 replicas")
    say()
    say(paint("title", "What the remediator does about it"))
    narrator = Narrator(remediator)
    wait_until(lambda: cured(narrator, 3 if api_healthy else 2), PATIENCE_SECONDS, "every alert to be cured")
    report(shop, remediator)
    if sys.stdout.isatty() and sys.stdin.isatty():
        say(f"Still serving: {remediator.url}/remediations and {remediator.url}/metrics. Ctrl-C ends everything.")
        threading.Event().wait()


def report(shop: Shop, remediator: Service) -> None:
    """What the world looks like now, and where to read more."""
    with shop.redis.client() as client:
        kept = client.get("session:alice")
    say()
    say(paint("title", "Afterwards"))
    say(f"  PostgreSQL: {shop.connections()} sessions   Redis: {shop.memory_ratio():.0%} of its memory")
    say(f"  the session that was not to be deleted: {kept}")
    for run in Narrator(remediator).runs():
        effective = "alert resolved" if run["effective"] else "nothing was done"
        say(f"  {run['remediation']:<18}{run['state']:<11}{run['reason'] or '':<16}{effective}")
    say()
    say(paint("good", "Every alert was answered and has resolved; every run that acted was verified on the target."))


def main() -> int:
    """Run the demo; the exit status says whether everything was cured."""
    with tempfile.TemporaryDirectory(prefix="remediator-demo-") as home:
        try:
            with ExitStack() as stack:
                show(Path(home), stack)
        except KeyboardInterrupt:
            say("\nStopped.")
        except Skipped as missing:
            say(f"The demo cannot run: {missing.msg}")
            return 1
        except (BedError, TimeoutError) as error:
            say(paint("bad", f"The demo failed: {error}"))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

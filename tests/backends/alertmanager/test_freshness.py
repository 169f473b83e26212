"""What Alertmanager says of an alert before anything is done about it, and what the engine makes of that."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.backends.alertmanager.backend import ALERTMANAGER
from app.backends.alertmanager.client import AlertmanagerClient
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.backends.sources import Answers, plain_receiver
from app.domain.alerts import Notification
from app.domain.external_facts import Standing
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.external_facts import judge
from app.settings import Settings
from tests.support import web
from tests.support.aio import run
from tests.support.contexts import with_clients
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, ok, poke, request
from tests.support.processes import free_port, wait_until
from tests.support.web import WebServer

RECEIVER = "team.shop+remediator"


def ask(connections: Connections, alertname: str = "Down") -> Answers:
    """What the members answer about the alerts of a name."""

    async def work(clients: Clients) -> Answers:
        client = await ALERTMANAGER.source(clients)
        assert client
        return await client.of_name(alertname)

    return with_clients(connections, work)


def standing(bed: Any, alertname: str = "Down", connections: Connections | None = None) -> tuple[Standing, str]:
    """How the alert of this name stands."""
    answers = ask(connections or bed.connections(), alertname)
    held = {
        one.fingerprint
        for groups in answers.groups
        for group in groups
        for one in group.alerts
        if one.labels["alertname"] == alertname
    }
    return judge([answers], held or {"0"}, [RECEIVER])


def test_an_alert_that_fires_is_active(bed: Any) -> None:
    """And names that a matcher must quote are found."""
    for name in ("Down", 'say "hi" \\ there', "mehr Läden\nund mehr"):
        bed.push(name)
        bed.wait_grouped(name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        assert (Standing.ACTIVE, "active in Alertmanager") == standing(bed, name)


def test_a_silence_is_named(bed: Any) -> None:
    """By its id, which leads a person to who made it and why."""
    bed.push()
    bed.wait_grouped()
    silence = bed.silence(bed.members[0])
    wait_until(lambda: standing(bed)[0] is Standing.SILENCED, 10, "the silence to hold")
    assert silence in standing(bed)[1]


def test_an_inhibition_is_named(bed: Any) -> None:
    """By the alert that inhibits it."""
    bed.push()
    bed.push("Outage")
    bed.wait_grouped()
    wait_until(lambda: standing(bed)[0] is Standing.INHIBITED, 10, "the inhibition to hold")
    (outage,) = [one for one in bed.members[0].alerts() if one["labels"]["alertname"] == "Outage"]
    assert outage["fingerprint"] in standing(bed)[1]


def test_an_alert_that_ended_is_gone(bed: Any) -> None:
    """Alertmanager no longer lists it."""
    bed.push()
    bed.wait_grouped()
    (fingerprint,) = [one["fingerprint"] for one in bed.members[0].alerts()]
    bed.end()
    assert Standing.GONE is judge([ask(bed.connections())], {fingerprint}, [RECEIVER])[0]


def test_one_member_that_has_it_is_enough(pair: Any) -> None:
    """A member that was restarted has forgotten all alerts, and one that is down says nothing."""
    first, second = pair.members
    pair.push()
    pair.wait_grouped()
    second.stop()
    assert Standing.ACTIVE is standing(pair)[0]
    second.start()
    assert Standing.ACTIVE is standing(pair)[0]
    first.stop()
    gone = standing(pair)
    assert Standing.GONE is gone[0]
    assert first.url in gone[1]
    second.stop()
    unreachable = standing(pair)
    assert Standing.UNREACHABLE is unreachable[0]
    assert all(member.url in unreachable[1] for member in pair.members)


# As Alertmanager 0.28 and later answer; the one that is installed here cannot mute in its API.
MUTED: list[dict[str, Any]] = [
    {
        "labels": {},
        "receiver": {"name": receiver},
        "alerts": [
            {
                "annotations": {},
                "endsAt": "2026-03-01T12:05:00.000Z",
                "fingerprint": "aaaa",
                "receivers": [{"name": RECEIVER}, {"name": "people"}],
                "startsAt": "2026-03-01T12:00:00.000Z",
                "status": {"inhibitedBy": [], "mutedBy": muted, "silencedBy": [], "state": state},
                "updatedAt": "2026-03-01T12:00:00.000Z",
                "generatorURL": "",
                "labels": {"alertname": "Down"},
            }
        ],
    }
    for receiver, muted, state in ((RECEIVER, ["nights"], "suppressed"), ("people", [], "active"))
]


def test_only_the_mute_of_our_own_route_counts(webhook: WebServer) -> None:
    """An alert is muted route by route."""
    webhook.body = json.dumps(MUTED).encode()
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}))
    assert (Standing.MUTED, "muted in Alertmanager, by the time interval nights") == judge(
        [answers], {"aaaa"}, [RECEIVER]
    )
    assert Standing.ACTIVE is judge([answers], {"aaaa"}, ["people"])[0]
    assert Standing.ACTIVE is judge([answers], {"aaaa"}, [])[0]


def test_an_alert_that_is_too_large_hides_no_other(webhook: WebServer) -> None:
    """Decisions about alerts of its name go on."""
    groups = json.loads(json.dumps(MUTED))
    huge = groups[0]["alerts"][0] | {"fingerprint": "bbbb", "annotations": {"x": "y" * 70_000}}
    huge["labels"] = huge["labels"] | {f"label_{number}": "x" for number in range(600)}
    groups[1]["alerts"].append(huge)
    webhook.body = json.dumps(groups).encode()
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}))
    assert Standing.ACTIVE is judge([answers], {"aaaa"}, ["people"])[0]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"[{]", "does not send"),
        (200, b'{"status": "success"}', "does not send"),
        (503, b"", "answered 503"),
        (401, b"", "did not accept the credentials (401)"),
    ],
)
def test_an_answer_that_is_none_is_no_empty_list(webhook: WebServer, status: int, body: bytes, said: str) -> None:
    """Nothing is concluded from it."""
    webhook.status, webhook.body = status, body
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}))
    assert ((), 1) == (answers.groups, len(answers.missing))
    assert said in answers.missing[0]


@pytest.mark.parametrize(
    ("way", "header"),
    [
        ({"bearer_token": {"value": "t0ken"}}, "Bearer t0ken"),
        ({"basic": {"username": "me", "password": {"value": "pa:ss"}}}, "Basic bWU6cGE6c3M="),
        ({}, None),
    ],
)
def test_credentials_are_sent(webhook: WebServer, way: dict[str, Any], header: str | None) -> None:
    """As a bearer token or by basic authentication, below any path prefix."""
    webhook.body = b"[]"
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [f"{webhook.url}/am/"]} | way}}))
    assert ((),) == answers.groups
    (seen,) = webhook.requests
    assert (header, "/am/api/v2/alerts/groups") == (seen.headers.get("Authorization"), seen.path.partition("?")[0])


def test_headers_of_ones_own_are_sent(webhook: WebServer, tmp_path: Path) -> None:
    """Behind Mimir the tenant is a header; what is secret of them comes from a file."""
    webhook.body = b"[]"
    (tmp_path / "key").write_text("s3cret\n")
    headers = {"X-Scope-OrgID": "shop", "X-Api-Key": {"file": str(tmp_path / "key")}}
    given = {"urls": [f"{webhook.url}/alertmanager"], "headers": headers, "bearer_token": {"value": "t0ken"}}
    ask(Connections.model_validate({"alertmanager": {"default": given}}))
    (seen,) = webhook.requests
    sent = (seen.headers["X-Scope-OrgID"], seen.headers["X-Api-Key"], seen.headers["Authorization"])
    assert ("shop", "s3cret", "Bearer t0ken") == sent


def test_the_words_of_a_refusal_are_passed_on(webhook: WebServer) -> None:
    """Without them a missing tenant looks like a wrong password."""
    webhook.status, webhook.body = 401, b"no org id\n"
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}))
    assert answers.missing[0].endswith("did not accept the credentials (401): no org id")


def test_credentials_in_two_ways_are_a_mistake() -> None:
    """Which of them counts should not be guessed."""
    both = {"bearer_token": {"value": "a"}, "basic": {"username": "a", "password": {"value": "b"}}}
    with pytest.raises(ValueError, match="only one of bearer_token and basic"):
        Settings.model_validate({"connections": {"alertmanager": {"default": {"urls": ["http://am:9093"]} | both}}})


def test_decisions_of_the_same_second_share_one_answer(webhook: WebServer) -> None:
    """A hundred decisions about one name are one call; another name is another."""
    webhook.body = b"[]"

    async def work(clients: Clients) -> None:
        client = await ALERTMANAGER.source(clients)
        assert client
        await asyncio.gather(*(client.of_name("Down") for _ in range(100)), client.of_name("Up"))

    with_clients(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}), work)
    assert 2 == len(webhook.requests)


def test_whoever_is_cancelled_leaves_the_answer_to_the_others(webhook: WebServer) -> None:
    """A replica that lost a lease in the middle must not make other decisions fail."""
    webhook.body = b"[]"
    webhook.answering.clear()

    async def work(clients: Clients) -> Answers:
        client = await ALERTMANAGER.source(clients)
        assert client
        first, second = asyncio.create_task(client.of_name("Down")), asyncio.create_task(client.of_name("Down"))

        async def arrived() -> bool:
            return bool(webhook.requests)

        await until(arrived, 10, "the call")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        webhook.answering.set()
        return await second

    answers = with_clients(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}}), work)
    assert (((),), ()) == (answers.groups, answers.missing)


def test_a_member_that_hangs_costs_a_decision_little(webhook: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence is said, and the decision is made without it."""
    monkeypatch.setattr("app.backends.alertmanager.client._PATIENCE_SECONDS", 0.2)
    webhook.answering.clear()
    answers = ask(Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}, "timeout": "30s"}))
    assert ((), (f"{webhook.url}/ did not answer within 0.2 s",)) == (answers.groups, answers.missing)
    webhook.answering.set()


def test_receivers_are_notified_quoted_and_listed_plain(bed: Any) -> None:
    """What a notification names is turned into the name of the configuration."""
    bed.push()
    wait_until(bed.notifications, 10, "a notification")
    notified = Notification.model_validate(bed.notifications()[0]).receiver
    assert (r"team\.shop\+remediator", RECEIVER) == (notified, plain_receiver(notified))


async def deliver_notified(one: Engine, bed: Any) -> None:
    """Deliver what Alertmanager has sent to its webhook, in the engine's own way."""

    async def notified() -> bool:
        return bool(bed.notifications())

    await until(notified, 10, "a notification")
    await one.deliver(*bed.notifications()[0]["alerts"])


def test_a_silenced_alert_waits_until_the_silence_ends(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Then it is acted on without another notification."""

    async def scenario() -> None:
        async with engine(
            sqlite(tmp_path), tmp_path, poke(sink), connections=bed.connections(receivers=[RECEIVER])
        ) as one:
            bed.push()
            bed.wait_grouped()
            silence = bed.silence(bed.members[0])
            await deliver_notified(one, bed)
            (held,) = await one.reached(RunState.DEFERRED)
            assert (Reason.SILENCED, 0) == (held.reason, asked(sink))
            assert silence in held.message
            bed.unsilence(bed.members[0], silence)
            await one.reached(RunState.SUCCEEDED)
            assert 1 == asked(sink)

    run(scenario())


def test_nothing_is_done_while_alertmanager_is_away(tmp_path: Path, bed: Any, sink: WebServer) -> None:
    """Fail closed; once it is back and has the alert again, the run goes on."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), connections=bed.connections()) as one:
            bed.push()
            bed.wait_grouped()
            (server,) = bed.members
            alerts = server.alerts()
            server.stop()
            await one.deliver({"status": "firing"} | {key: alerts[0][key] for key in ALERT})
            (held,) = await one.reached(RunState.DEFERRED)
            assert (Reason.ALERTMANAGER_UNREACHABLE, 0) == (held.reason, asked(sink))
            server.start()

            async def forgotten() -> bool:
                (row,) = await one.runs()
                return row.message.startswith("Alertmanager does not have") or row.reason == Reason.NOT_FIRING

            await until(forgotten, 10, "the run to see that Alertmanager forgot", one.runs)
            bed.push()
            await one.reached(RunState.SUCCEEDED)
            assert 1 == asked(sink)

    run(scenario())


ALERT = ("labels", "annotations", "startsAt", "generatorURL", "fingerprint")


def test_a_remediation_may_do_without(tmp_path: Path, sink: WebServer) -> None:
    """Then Alertmanager is not even asked."""

    async def scenario() -> None:
        with web.serve() as elsewhere:
            connections = Connections.model_validate({"alertmanager": {"default": {"urls": [elsewhere.url]}}})
            entry = poke(sink, without_guards={"fresh": "acts on alerts of another Alertmanager"})
            async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
                await one.fire()
                await one.reached(RunState.SUCCEEDED)
                assert (1, []) == (asked(sink), elsewhere.requests)

    run(scenario())


def test_a_run_that_has_begun_goes_on(tmp_path: Path, webhook: WebServer, sink: WebServer) -> None:
    """Its next rung does not ask again: what the first one cured may have left Alertmanager already."""

    async def scenario() -> None:
        with web.serve() as health:
            health.status = 500
            connections = Connections.model_validate({"alertmanager": {"default": {"urls": [webhook.url]}}})
            second = {"steps": [request(sink, "/second")]}
            entry = poke(sink, verify=[ok(health, timeout="1500ms")], escalate=[second])
            async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
                firing = one.firing()
                shown = {"alerts": [MUTED[1]["alerts"][0] | {"fingerprint": firing["fingerprint"]}]}
                webhook.body = json.dumps([MUTED[1] | shown]).encode()
                await one.deliver(firing)

                async def begun() -> bool:
                    return asked(sink) == 1

                await until(begun, 10, "the first rung", one.runs)
                webhook.body = b"[]"
                await one.ended(count=1)
                assert (1, 1) == (asked(sink, "/second"), len(webhook.requests))

    run(scenario())


def test_the_client_says_nothing_where_none_is_configured() -> None:
    """Without an address there is no client, and with one it is made once."""

    async def scenario() -> None:
        without = Clients(Connections(), Scope())
        assert await ALERTMANAGER.source(without) is None
        given = Connections.model_validate({"alertmanager": {"default": {"urls": [f"http://127.0.0.1:{free_port()}"]}}})
        clients = Clients(given, Scope())
        try:
            assert isinstance(await ALERTMANAGER.source(clients), AlertmanagerClient)
            assert await ALERTMANAGER.source(clients) is await ALERTMANAGER.source(clients)
        finally:
            await clients.close()

    run(scenario())

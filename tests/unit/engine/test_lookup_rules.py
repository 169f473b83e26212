"""A look-up and notifications of one alert, in whatever order, are one episode; pure, as the rules are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.backends.sources import HeldAlert, plain_receiver
from app.domain.alerts import Alert, identity
from app.domain.episodes import Episode, EpisodeRules, Receipt, receive
from app.engine.background.lookup import firing_alerts, is_missed
from tests.support.alerts import NOW, parsed

RULES = EpisodeRules()
MINUTE = timedelta(minutes=1)
BEGAN = NOW + timedelta(microseconds=123456)
ENDED = BEGAN + 120 * MINUTE
AGAIN = ENDED + 10 * MINUTE
REPLICAS = {"a": "aaaa", "b": "bbbb"}


@dataclass
class Store:
    """The newest episode of one identity, and how many were opened."""

    last: Episode | None = None
    opened: int = 0

    def notify(self, alert: Alert, now: datetime) -> None:
        """Take one alert in."""
        received = receive(alert, _name(alert), self.last, now, RULES)
        self.opened += received.receipt is Receipt.OPENED
        for written in received.written:
            self.last = written

    def look(self, alert: Alert, now: datetime) -> None:
        """See the alert in Alertmanager's API, and take it in if it was missed."""
        (seen,) = firing_alerts([_held(alert)])
        if is_missed(seen, _name(seen), self.last, now, RULES):
            self.notify(seen, now)


def _name(alert: Alert) -> str:
    return identity(alert.labels, alert.fingerprint, RULES.ignored_labels)


def _held(alert: Alert) -> HeldAlert:
    """As the API lists it, which cuts times to milliseconds."""
    starts_at = alert.starts_at.replace(microsecond=alert.starts_at.microsecond // 1000 * 1000)
    return HeldAlert.model_validate(
        {
            "fingerprint": alert.fingerprint,
            "labels": alert.labels,
            "startsAt": starts_at,
            "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
        }
    )


def firing(replica: str, began: datetime = BEGAN) -> Alert:
    """The alert as one replica of an HA Prometheus sends it."""
    return parsed("firing", starts_at=began, fingerprint=REPLICAS[replica], prometheus_replica=replica)


def resolved(replica: str) -> Alert:
    """Its end."""
    return parsed("resolved", starts_at=BEGAN, ends_at=ENDED, fingerprint=REPLICAS[replica], prometheus_replica=replica)


replicas = st.sampled_from(sorted(REPLICAS))
before_the_end = st.lists(
    st.tuples(st.floats(0, 119), st.sampled_from(["notify", "look"]), replicas), min_size=1, max_size=8
)
# A member that was not told of the end goes on listing the alert.
after_the_end = st.lists(st.tuples(st.floats(120, 400), replicas), max_size=6)


@given(before_the_end, after_the_end, st.floats(120, 130))
def test_a_look_and_a_notification_are_one_episode(
    alive: list[tuple[float, str, str]], stale: list[tuple[float, str]], told_after: float
) -> None:
    """Whichever comes first, and however long a member lists what has ended."""
    store = Store()
    for minute, how, replica in sorted(alive):
        (store.notify if how == "notify" else store.look)(firing(replica), BEGAN + minute * MINUTE)
    assert 1 == store.opened
    told = BEGAN + told_after * MINUTE
    for replica in REPLICAS:
        store.notify(resolved(replica), told)
    assert store.last is not None
    assert not store.last.is_open
    for minute, replica in sorted(stale):
        store.look(firing(replica), max(told, BEGAN + minute * MINUTE))
    assert 1 == store.opened


@given(st.lists(st.tuples(st.floats(0, 60), st.sampled_from(["notify", "look"]), replicas), min_size=1, max_size=8))
def test_the_next_time_it_fires_is_one_more(deliveries: list[tuple[float, str, str]]) -> None:
    """Also when only a look-up sees it."""
    store = Store()
    store.notify(firing("a"), BEGAN)
    store.notify(resolved("a"), ENDED)
    for minute, how, replica in sorted(deliveries):
        (store.notify if how == "notify" else store.look)(firing(replica, AGAIN), AGAIN + minute * MINUTE)
    assert 2 == store.opened


@given(st.lists(st.floats(0, 400), min_size=1, max_size=5))
def test_a_resolve_that_came_first_is_not_forgotten(minutes: list[float]) -> None:
    """What a lagging member lists afterwards opens nothing."""
    store = Store()
    store.notify(resolved("a"), ENDED)
    for minute in sorted(minutes):
        store.look(firing("a"), ENDED + minute * MINUTE)
    assert 0 == store.opened


def test_the_other_replica_joins_the_open_episode() -> None:
    """So that the end of the first does not end what the second still sees."""
    store = Store()
    store.notify(firing("a"), BEGAN)
    store.look(firing("b"), BEGAN + MINUTE)
    store.notify(resolved("a"), ENDED)
    assert store.last is not None
    assert (True, {"bbbb"}, 1) == (store.last.is_open, set(store.last.firing), store.opened)


def test_members_that_differ_in_the_beginning_agree_on_the_earliest() -> None:
    """As Alertmanager itself does when it merges."""
    early, late = _held(firing("a")), _held(firing("a", BEGAN + 20 * MINUTE))
    assert [early.starts_at] == [one.starts_at for one in firing_alerts([late, early])]


@given(st.text())
def test_a_receiver_is_unquoted_as_it_was_quoted(name: str) -> None:
    """For any name, by the quoting of Go's regexp package."""
    quoted = "".join(f"\\{letter}" if letter in r"\.+*?()|[]{}^$" else letter for letter in name)
    assert name == plain_receiver(quoted)


def test_an_alert_that_the_open_episode_knows_is_not_missed() -> None:
    """Its replica of an HA Prometheus that the episode has not heard of is."""
    store = Store()
    known, other = (parsed(starts_at=BEGAN, fingerprint=name) for name in REPLICAS.values())
    assert is_missed(known, "x", store.last, BEGAN, RULES)
    store.notify(known, BEGAN)
    found = [is_missed(one, "x", store.last, BEGAN + MINUTE, RULES) for one in (known, other)]
    assert [False, True] == found

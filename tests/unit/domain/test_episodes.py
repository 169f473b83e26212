"""One alert from firing to resolved is one episode, however often and in which order it is delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.domain.alerts import Alert, identity
from app.domain.episodes import Episode, EpisodeRules, Receipt, receive
from tests.support.alerts import NOW, parsed

RULES = EpisodeRules()
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@dataclass
class History:
    """Delivers alerts of one identity and keeps what became of them."""

    last: Episode | None = None
    receipts: list[Receipt] = field(default_factory=list)

    def take(self, alert: Alert, now: datetime) -> Receipt:
        """Deliver one alert."""
        name = identity(alert.labels, alert.fingerprint, RULES.ignored_labels)
        received = receive(alert, name, self.last, now, RULES)
        for written in received.written:
            self.last = written
        self.receipts.append(received.receipt)
        return received.receipt

    @property
    def opened(self) -> int:
        """How many episodes were opened."""
        return self.receipts.count(Receipt.OPENED)


def firing(**fields: Any) -> Alert:
    """An alert that fires since NOW unless said otherwise."""
    return parsed("firing", **fields)


def resolved(**fields: Any) -> Alert:
    """The alert's end, one minute after its start unless said otherwise."""
    return parsed("resolved", **fields)


def test_the_first_firing_delivery_opens() -> None:
    """An unknown alert that fires is a new episode."""
    history = History()
    assert Receipt.OPENED == history.take(firing(), NOW)
    assert history.last is not None
    assert history.last.is_open
    assert (1, None) == (history.last.deliveries, history.last.defect)


def test_a_repeat_changes_nothing_but_what_was_seen() -> None:
    """Group repeats are counted, and the newest annotations are kept."""
    history = History()
    history.take(firing(), NOW)
    assert Receipt.REPEATED == history.take(firing(annotations={"value": "2"}), NOW + MINUTE)
    assert history.last is not None
    assert (2, NOW + MINUTE, {"value": "2"}) == (
        history.last.deliveries,
        history.last.last_seen_at,
        history.last.annotations,
    )


def test_both_members_of_an_alertmanager_pair_are_one_episode() -> None:
    """Members that have seen the alert start at different times deliver the same episode, which began first."""
    history = History()
    history.take(firing(starts_at=NOW + 30 * SECOND), NOW + MINUTE)
    assert Receipt.REPEATED == history.take(firing(starts_at=NOW), NOW + MINUTE)
    assert Receipt.REPEATED == history.take(firing(starts_at=NOW + 30 * SECOND), NOW + MINUTE)
    assert history.last is not None
    assert NOW == history.last.starts_at


def test_replicas_of_an_ha_prometheus_share_an_identity() -> None:
    """Alerts that differ in a replica label only have one identity, others do not."""
    a = firing(prometheus_replica="a", fingerprint="aa")
    b = firing(prometheus_replica="b", fingerprint="bb")
    other = firing(prometheus_replica="a", job="other", fingerprint="cc")
    names = [identity(one.labels, one.fingerprint, RULES.ignored_labels) for one in (a, b, other)]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_identity_without_replica_labels_is_the_fingerprint() -> None:
    """What Alertmanager calls the same alert is the same alert."""
    assert "abc" == identity({"alertname": "Down"}, "abc", RULES.ignored_labels)


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_identity_tells_labels_apart(one: dict[str, str], other: dict[str, str]) -> None:
    """No two sets of labels run into each other, wherever their names and values begin."""
    ignored = ("replica",)
    names = [identity(labels | {"replica": "x"}, "f", ignored) for labels in (one, other)]
    kept = [{key: value for key, value in labels.items() if key != "replica"} for labels in (one, other)]
    assert (kept[0] == kept[1]) == (names[0] == names[1])


def test_the_episode_ends_when_every_replica_has_resolved() -> None:
    """The resolve of one replica while the other fires is not the end."""
    history = History()
    history.take(firing(prometheus_replica="a", fingerprint="aa"), NOW)
    history.take(firing(prometheus_replica="b", fingerprint="bb"), NOW)
    assert Receipt.REPEATED == history.take(resolved(prometheus_replica="a", fingerprint="aa"), NOW + MINUTE)
    assert history.last is not None
    assert history.last.is_open
    assert Receipt.RESOLVED == history.take(resolved(prometheus_replica="b", fingerprint="bb"), NOW + 2 * MINUTE)
    assert 1 == history.opened


def test_a_replica_that_was_restarted_joins_the_open_episode() -> None:
    """A replica's own later start is no second episode while the other replica says that the first goes on."""
    history = History()
    history.take(firing(prometheus_replica="a", fingerprint="aa"), NOW)
    history.take(firing(prometheus_replica="b", fingerprint="bb"), NOW)
    history.take(resolved(prometheus_replica="b", fingerprint="bb"), NOW + 5 * MINUTE)
    back = firing(prometheus_replica="b", fingerprint="bb", starts_at=NOW + 20 * MINUTE)
    assert Receipt.REPEATED == history.take(back, NOW + 20 * MINUTE)
    assert 1 == history.opened


def test_resolved_ends_the_episode_at_the_alerts_own_time() -> None:
    """`resolved_at` is the alert's account, `closed_at` ours."""
    history = History()
    history.take(firing(), NOW)
    assert Receipt.RESOLVED == history.take(resolved(ends_at=NOW + MINUTE), NOW + 2 * MINUTE)
    assert history.last is not None
    assert (NOW + MINUTE, NOW + 2 * MINUTE) == (history.last.resolved_at, history.last.closed_at)
    assert 2 == history.last.deliveries


def test_resolved_without_an_end_ends_when_it_is_received() -> None:
    """An unset `endsAt` is replaced by the time of receipt."""
    history = History()
    history.take(firing(), NOW)
    unset = resolved().model_copy(update={"ends_at": None})
    assert Receipt.RESOLVED == history.take(unset, NOW + 3 * MINUTE)
    assert history.last is not None
    assert NOW + 3 * MINUTE == history.last.resolved_at


def test_a_resolve_of_something_older_does_not_end_the_open_episode() -> None:
    """A retry of the previous episode's resolve may come after the next one has begun."""
    history = History()
    history.take(firing(starts_at=NOW), NOW)
    old = resolved(starts_at=NOW - 10 * MINUTE, ends_at=NOW - 5 * MINUTE)
    assert Receipt.LATE == history.take(old, NOW + SECOND)
    assert history.last is not None
    assert history.last.is_open


def test_a_resolve_that_arrives_first_keeps_the_firing_from_opening() -> None:
    """The firing delivery that a resolve has overtaken is late."""
    history = History()
    assert Receipt.UNKNOWN_RESOLVED == history.take(resolved(), NOW + MINUTE)
    assert Receipt.LATE == history.take(firing(), NOW + 2 * MINUTE)
    assert 0 == history.opened


def test_resolved_again_is_late() -> None:
    """Each member of a pair sends the resolve."""
    history = History()
    history.take(firing(), NOW)
    history.take(resolved(), NOW + MINUTE)
    assert Receipt.LATE == history.take(resolved(), NOW + MINUTE)


def test_a_firing_delivery_after_the_resolve_is_late() -> None:
    """A retry that the resolve has overtaken opens nothing within `late_within`."""
    history = History()
    history.take(firing(), NOW)
    history.take(resolved(), NOW + MINUTE)
    assert Receipt.LATE == history.take(firing(), NOW + MINUTE + RULES.late_within)


def test_the_same_start_comes_back_after_late_within() -> None:
    """An alert whose Prometheus was away comes back with its old `startsAt`: that is no retry any more."""
    history = History()
    history.take(firing(), NOW)
    history.take(resolved(), NOW + MINUTE)
    assert Receipt.OPENED == history.take(firing(), NOW + MINUTE + RULES.late_within + SECOND)


def test_an_alert_that_begins_after_the_end_is_new_at_once() -> None:
    """A flapping alert has an episode for each time that it fires."""
    history = History()
    history.take(firing(), NOW)
    history.take(resolved(ends_at=NOW + MINUTE), NOW + MINUTE)
    again = firing(starts_at=NOW + MINUTE)
    assert Receipt.OPENED == history.take(again, NOW + MINUTE + SECOND)


def test_a_start_long_after_the_last_delivery_closes_the_episode_whose_resolve_was_missed() -> None:
    """A `startsAt` long after the alert was last seen is the next episode, and the open one ends where that begins."""
    history = History()
    history.take(firing(), NOW)
    later = NOW + RULES.restart_after + SECOND
    received = receive(firing(starts_at=later), "x", history.last, later, RULES)
    assert Receipt.OPENED == received.receipt
    ended, opened = received.written
    assert (False, later, True) == (ended.is_open, ended.resolved_at, opened.is_open)
    assert ({}, 1) == (ended.firing, len(opened.firing))


def test_a_start_that_moves_a_little_is_a_repeat() -> None:
    """Up to `restart_after` it is the same episode."""
    history = History()
    history.take(firing(), NOW)
    later = NOW + RULES.restart_after
    assert Receipt.REPEATED == history.take(firing(starts_at=later), later)


@given(st.data())
def test_a_pair_whose_starts_differ_is_one_episode(data: st.DataObject) -> None:
    """One member merged the alert, the other was restarted: in whichever order and however often both deliver."""
    starts = data.draw(st.lists(st.integers(0, 48 * 60), min_size=2, max_size=3, unique=True))
    turns = data.draw(st.lists(st.sampled_from(starts), min_size=2, max_size=20))
    pauses = data.draw(st.lists(st.integers(0, 60), min_size=len(turns), max_size=len(turns)))
    history, minute = History(), max(starts)
    for start, pause in zip(turns, pauses, strict=True):
        minute += pause
        history.take(firing(starts_at=NOW + start * MINUTE), NOW + minute * MINUTE)
    assert 1 == history.opened
    assert history.last is not None
    assert NOW + min(turns) * MINUTE == history.last.starts_at
    over = NOW + (minute + 1) * MINUTE
    history.take(resolved(starts_at=NOW + min(turns) * MINUTE, ends_at=over), over)
    assert not history.last.is_open


def test_a_pair_that_was_taken_for_two_triggers_once_more_and_not_without_end() -> None:
    """A later start after long silence looks like the next incident; then the first start joins that."""
    history = History()
    history.take(firing(), NOW)
    later = NOW + 3 * RULES.restart_after
    assert Receipt.OPENED == history.take(firing(starts_at=later), later)
    for number in range(6):
        start = later if number % 2 else NOW
        assert Receipt.REPEATED == history.take(firing(starts_at=start), later + number * MINUTE)


def test_a_prometheus_whose_clock_is_ahead_opens_no_episode_with_each_repeat() -> None:
    """`startsAt` is compared with what Prometheus has said before, not with our clock alone."""
    history = History()
    ahead = NOW + 2 * RULES.restart_after
    for number in range(4):
        history.take(firing(starts_at=ahead), NOW + number * MINUTE)
    assert 1 == history.opened


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert and the second after NOW in which it is delivered."""

    second: int
    alert: Alert


HA = {"a": "aa", "b": "bb"}
HOUR = 3600


def _sent(status: str, replica: str, start: int, end: int = 0) -> Alert:
    fields = {"starts_at": NOW + start * SECOND, "prometheus_replica": replica, "fingerprint": HA[replica]}
    return parsed(status, **fields, **({"ends_at": NOW + end * SECOND} if status == "resolved" else {}))


@st.composite
def incidents(draw: st.DrawFn) -> tuple[int, list[Delivery]]:
    """Some incidents, as two Prometheus and two Alertmanagers tell them: repeated at least each hour.

    Any resolve may be lost, or come hours later; a delivery of the incident before may come in the midst of the next.
    """
    silence = int(RULES.restart_after.total_seconds())
    count, now, deliveries = draw(st.integers(1, 4)), 0, list[Delivery]()
    before: list[Alert] = []
    for _ in range(count):
        begins = now = now + silence + draw(st.integers(1, 12 * HOUR))
        told: dict[str, int] = {}
        for number in range(draw(st.integers(1, 6))):
            now += draw(st.integers(0, silence))
            replica, start = draw(st.sampled_from("ab")), draw(st.integers(begins, now))
            told[replica] = min(start, told.get(replica, start))
            deliveries.append(Delivery(now, _sent("firing", replica, start)))
            if number and before and draw(st.booleans()):
                deliveries.append(Delivery(now, draw(st.sampled_from(before))))
        before = [one.alert for one in deliveries if one.alert.starts_at >= NOW + begins * SECOND]
        ends = now = now + draw(st.integers(1, 600))
        for replica, start in told.items():
            late = draw(st.sampled_from([None, 0, 0, 30, HOUR, 9 * HOUR]))
            if late is not None:
                deliveries.append(Delivery(ends + late, _sent("resolved", replica, start, ends)))
                before.append(deliveries[-1].alert)
    return count, sorted(deliveries, key=lambda one: one.second)


@given(incidents())
def test_each_incident_of_an_ha_prometheus_opens_one_episode(history_of: tuple[int, list[Delivery]]) -> None:
    """Whichever resolves are lost or late, and however the replicas' and members' starts differ."""
    count, deliveries = history_of
    history = History()
    for one in deliveries:
        history.take(one.alert, NOW + one.second * SECOND)
    assert count == history.opened


def test_the_next_incident_opens_although_both_resolves_were_lost() -> None:
    """The other replica's name in the open episode does not say that it fires."""
    history = History()
    for replica in HA:
        history.take(_sent("firing", replica, 0), NOW)
    assert Receipt.OPENED == history.take(_sent("firing", "a", 5 * HOUR), NOW + 5 * HOUR * SECOND)
    assert Receipt.REPEATED == history.take(_sent("firing", "b", 5 * HOUR + 7), NOW + (5 * HOUR + 7) * SECOND)


def test_a_resolve_that_comes_late_tells_of_its_own_time_only() -> None:
    """It says that the alert fired until then, not until it was received."""
    history = History()
    for replica in HA:
        history.take(_sent("firing", replica, 0), NOW)
    history.take(_sent("resolved", "b", 0, 60), NOW + 4 * HOUR * SECOND)
    assert Receipt.OPENED == history.take(_sent("firing", "a", 4 * HOUR + 60), NOW + (4 * HOUR + 60) * SECOND)


def test_a_late_resolve_does_not_end_the_next_incident() -> None:
    """Neither alone nor after a late firing delivery of the incident that it belongs to."""
    history = History()
    history.take(_sent("firing", "a", 0), NOW)
    history.take(_sent("resolved", "a", 0, 60), NOW + MINUTE)
    began = NOW + 10 * MINUTE
    history.take(_sent("firing", "a", 600), began)
    history.take(_sent("firing", "a", 0), began)
    assert Receipt.LATE == history.take(_sent("resolved", "a", 0, 60), began)
    assert history.last is not None
    assert history.last.is_open


def test_a_late_resolve_at_the_beginning_of_the_next_incident_does_not_end_it() -> None:
    """The incident before it may have ended at that very moment."""
    history = History()
    history.take(_sent("firing", "a", 600), NOW + 10 * MINUTE)
    assert Receipt.LATE == history.take(_sent("resolved", "a", 0, 600), NOW + 11 * MINUTE)


def test_a_resolve_of_an_unknown_replica_that_is_older_does_not_end_what_fires() -> None:
    """Neither before the episode began nor at that moment."""
    history = History()
    history.take(_sent("firing", "a", 600), NOW + 10 * MINUTE)
    for end in (60, 600):
        assert Receipt.LATE == history.take(_sent("resolved", "b", 0, end), NOW + 11 * MINUTE)
    assert history.last is not None
    assert history.last.is_open


def test_a_resolve_of_the_replica_that_ended_first_counts_although_the_other_began_later() -> None:
    """A replica's end is compared with its own beginning: the other one's may be later."""
    history = History()
    history.take(_sent("firing", "a", 0), NOW)
    history.take(_sent("firing", "b", 1200), NOW + 1200 * SECOND)
    history.take(_sent("resolved", "a", 0, 900), NOW + 1210 * SECOND)
    history.take(_sent("resolved", "b", 1200, 1260), NOW + 1270 * SECOND)
    assert history.last is not None
    assert not history.last.is_open


def test_a_second_unknown_resolve_that_is_newer_is_kept() -> None:
    """Two episodes of which only the ends arrive leave both ends, so that neither firing delivery opens one."""
    history = History()
    history.take(resolved(), NOW + MINUTE)
    newer = NOW + 2 * MINUTE
    assert Receipt.UNKNOWN_RESOLVED == history.take(resolved(starts_at=newer), newer + MINUTE)
    assert Receipt.LATE == history.take(firing(starts_at=newer), newer + MINUTE)


def test_a_resolve_after_an_episode_whose_end_nobody_knows_is_kept() -> None:
    """The episode was closed because its resolve was missed; the end of whatever came after it is no late one."""
    history = History()
    history.take(firing(), NOW)
    assert history.last is not None
    history.last = replace(history.last, closed_at=NOW + MINUTE)
    assert Receipt.UNKNOWN_RESOLVED == history.take(resolved(starts_at=NOW + 60 * MINUTE), NOW + 61 * MINUTE)


def _life(replicas: int) -> list[Alert]:
    """Every delivery of one alert's life: each replica begins and ends some seconds apart."""
    life = []
    for number in range(replicas):
        replica = {"prometheus_replica": str(number), "fingerprint": f"a{number}"} if replicas > 1 else {}
        begins, ends = NOW + number * SECOND, NOW + MINUTE + number * SECOND
        life += [firing(starts_at=begins, **replica), resolved(starts_at=begins, ends_at=ends, **replica)]
    return life


@given(st.data(), st.integers(1, 2))
def test_one_life_opens_at_most_one_episode(data: st.DataObject, replicas: int) -> None:
    """Whatever is delivered twice, late or in the wrong order within the windows: never a second trigger."""
    life = _life(replicas)
    deliveries: Sequence[Alert] = data.draw(st.lists(st.sampled_from(life), min_size=1, max_size=12))
    ages = sorted(data.draw(st.lists(st.integers(0, 299), min_size=len(deliveries), max_size=len(deliveries))))
    history = History()
    for alert, age in zip(deliveries, ages, strict=True):
        history.take(alert, NOW + age * SECOND)
    assert history.opened <= 1


@given(st.permutations(range(4)), st.integers(1, 3))
def test_a_life_whose_resolve_arrives_last_opens_exactly_one_and_closes_it(order: list[int], copies: int) -> None:
    """In whichever order repeats come: one episode, and it is over after the resolve."""
    history = History()
    for position in order * copies:
        history.take(firing(starts_at=NOW + position * SECOND), NOW + MINUTE)
    history.take(resolved(ends_at=NOW + 2 * MINUTE), NOW + 2 * MINUTE)
    assert 1 == history.opened
    assert history.last is not None
    assert not history.last.is_open

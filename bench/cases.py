"""The cases: each drives a server once, and gives its figures by name."""

import statistics
import time
from collections.abc import Callable

from bench.load import LoadClient, Request, message
from bench.processes import Served

Figures = dict[str, float]
Case = Callable[[Served, LoadClient], Figures]

FAST_STREAMS, FAST_DELTAS = 8, 2000
FIRST_TRIES = 40
QUIET_STREAMS, QUIET_S = 200, 6
PACED_STREAMS, PACED_RATE, PACED_S, PACED_MEASURED_S = 200, 30, 12, 6
REPLAY_EVENTS = 10_000
FOLLOWERS, FOLLOWED_DELTAS, FOLLOWED_RATE = 10, 1500, 500
GETS = 300


def fast(server: Served, client: LoadClient) -> Figures:
    """Eight answers at once, as fast as the provider can."""
    requests = [message(id_, f"bench:fast:{FAST_DELTAS}") for id_ in client.sessions(FAST_STREAMS)]
    cpu, wall = server.cpu_s(), time.perf_counter()
    client.open(requests)
    client.finish(deltas=FAST_DELTAS)
    cpu, wall = server.cpu_s() - cpu, time.perf_counter() - wall
    deltas = FAST_STREAMS * FAST_DELTAS
    return {"fast.cpu": cpu / deltas * 1e6, "fast.rate": deltas / wall}


def first(server: Served, client: LoadClient) -> Figures:
    """One short answer after another, with a rest before each."""
    created: list[float] = []
    delta: list[float] = []
    cpu = 0.0
    for id_ in client.sessions(FIRST_TRIES):
        time.sleep(0.02)
        before = server.cpu_s()
        client.open([message(id_, "bench:fast:1")])
        (stream,) = client.finish(deltas=1)
        cpu += server.cpu_s() - before
        sent, arrived = stream.first_stamp
        created.append((stream.created - stream.sent) / 1e6)
        delta.append((stream.first_delta - stream.sent - (sent - arrived)) / 1e6)
    return {
        "first.created": statistics.median(created),
        "first.delta": statistics.median(delta),
        "first.turn_cpu": cpu / FIRST_TRIES * 1e3,
    }


def quiet(server: Served, client: LoadClient) -> Figures:
    """Two hundred streams whose provider has said one word, and says nothing more."""
    requests = [message(id_, f"bench:quiet:{QUIET_S}") for id_ in client.sessions(QUIET_STREAMS)]
    before = server.rss_kib()
    client.open(requests)
    time.sleep(1)
    after = server.rss_kib()
    client.finish(deltas=1)
    return {"quiet.kib": (after - before) / QUIET_STREAMS, "quiet.peak": server.peak_kib() / 1024}


def paced(server: Served, client: LoadClient) -> Figures:
    """Two hundred streams at the pace of a quick model, one delta to a read: measured when all have begun."""
    deltas = PACED_RATE * PACED_S
    requests = [message(id_, f"bench:paced:{deltas}:{PACED_RATE}") for id_ in client.sessions(PACED_STREAMS)]
    asked = time.monotonic()
    client.open(requests)
    begun = time.monotonic()
    time.sleep(1)
    cpu, start = server.cpu_s(), time.monotonic_ns()
    time.sleep(PACED_MEASURED_S)
    cpu, end = server.cpu_s() - cpu, time.monotonic_ns()
    late = [ns for stream in client.finish(deltas=deltas) for at, ns in stream.late if start <= at < end]
    median, p99 = _lateness(late)
    return {
        "begin.time": begun - asked,
        "paced.cpu": cpu / len(late) * 1e6,
        "paced.late": median,
        "paced.late99": p99,
        "paced.rate": len(late) / (end - start) * 1e9,
    }


def replay(server: Served, client: LoadClient) -> Figures:
    """A finished turn of ten thousand events, read again from its beginning."""
    (session,) = client.sessions(1)
    deltas = REPLAY_EVENTS - 4  # created, start, stop and completed
    client.open([message(session, f"bench:fast:{deltas}")])
    (stream,) = client.finish(deltas=deltas)
    rates: list[float] = []
    cpu = server.cpu_s()
    for _ in range(10):
        client.open([Request("GET", f"/v1/sessions/{session}/responses/{stream.response_id}/events")])
        (again,) = client.finish(deltas=deltas)
        assert again.events == REPLAY_EVENTS, again.events
        rates.append(REPLAY_EVENTS / (again.ended - again.sent) * 1e9)
    return {"replay.rate": statistics.median(rates), "replay.cpu": (server.cpu_s() - cpu) / 10 / REPLAY_EVENTS * 1e6}


def followers(server: Served, client: LoadClient) -> Figures:
    """One turn that its caller and ten others follow while it runs."""
    (session,) = client.sessions(1)
    cpu = server.cpu_s()
    client.open([message(session, f"bench:paced:{FOLLOWED_DELTAS}:{FOLLOWED_RATE}")])
    response_id = client.running()
    path = f"/v1/sessions/{session}/responses/{response_id}/events"
    client.open([Request("GET", path, keep=True)] * FOLLOWERS)
    streams = client.finish(deltas=FOLLOWED_DELTAS)
    assert len({stream.digest for stream in streams if stream.digest}) == 1, "the followers' bytes differ"
    deltas = (FOLLOWERS + 1) * FOLLOWED_DELTAS
    return {
        "followers.cpu": (server.cpu_s() - cpu) / deltas * 1e6,
        "followers.late": _lateness([ns for stream in streams for _, ns in stream.late])[0],
    }


def record(server: Served, client: LoadClient) -> Figures:
    """A small record, read again and again on one connection."""
    (session,) = client.sessions(1)
    cpu = server.cpu_s()
    seconds = client.gets(f"/v1/sessions/{session}", GETS)
    return {"record.cpu": (server.cpu_s() - cpu) / GETS * 1e6, "record.time": seconds / GETS * 1e3}


def _lateness(late: list[int]) -> tuple[float, float]:
    """Median and 99th percentile of the times between a delta's sending and its arrival; ms."""
    late = sorted(late)
    return late[len(late) // 2] / 1e6, late[len(late) * 99 // 100] / 1e6


def warm_up(_: Served, client: LoadClient) -> None:
    """A few short turns: what the first requests import, fill and build is no part of any figure."""
    client.open([message(id_, "bench:fast:1") for id_ in client.sessions(16)])
    client.finish(deltas=1)


# The quiet streams come first: what a busier case leaves free in the heap would hide what they take.
CASES: dict[str, Case] = {
    "quiet": quiet,
    "first": first,
    "record": record,
    "fast": fast,
    "replay": replay,
    "followers": followers,
    "paced": paced,
}
FLOOR_CASES = ("first", "fast", "quiet", "paced")
"""What the relay can do, too."""

UNITS = {
    "start": ("start until ready", "s", None),
    "quiet.kib": (f"memory per quiet stream, at {QUIET_STREAMS}", "KiB", 100.0),
    "quiet.peak": ("peak memory by then", "MiB", None),
    "first.created": ("first event at rest, median", "ms", 5.0),
    "first.delta": ("first delta at rest, without the provider's own time", "ms", None),
    "first.turn_cpu": ("CPU of a turn of one delta", "ms", None),
    "record.cpu": ("CPU of GET /v1/sessions/{id}", "µs", None),
    "record.time": ("time of GET /v1/sessions/{id}", "ms", None),
    "fast.cpu": (f"CPU per delta, {FAST_STREAMS} fast streams of {FAST_DELTAS}", "µs", 15.0),
    "fast.rate": ("deltas a second there", "/s", None),
    "replay.rate": (f"replay of {REPLAY_EVENTS} events", "/s", -100_000.0),
    "replay.cpu": ("CPU per replayed event", "µs", None),
    "followers.cpu": (f"CPU per delivered delta, {FOLLOWERS} followers and the caller", "µs", None),
    "followers.late": ("median lateness there", "ms", None),
    "begin.time": (f"{PACED_STREAMS} turns asked for at once: until all have begun", "s", None),
    "paced.cpu": (f"CPU per delta, {PACED_STREAMS} streams × {PACED_RATE}/s", "µs", None),
    "paced.late": ("median lateness of a delta there", "ms", 20.0),
    "paced.late99": ("99th percentile of it", "ms", None),
    "paced.rate": (f"deltas a second there, of {PACED_STREAMS * PACED_RATE}", "/s", None),
}
"""What each figure is, its unit, and its aim: less is better, or, where the aim is negative, more than that."""

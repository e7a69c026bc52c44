"""The leader's estimate of each link from the workers' reports, on simulated links of known bandwidth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from worker.dispatch.links import LinkBook
from worker.jobs.links import Link
from worker.tasks.link_meter import LinkMeter

KIB, MIB = 1024, 1024 * 1024
HEARTBEAT_S = 2.0
LOW_SPEED = 64 * KIB
STORE = "s"


@dataclass
class Flight:
    """A slice in flight."""

    worker: int
    began_s: float
    left_bytes: float
    sending: object


@dataclass
class Simulation:
    """Workers that share one link evenly, and a leader that reads their reports."""

    rate: float
    slice_bytes: int
    slices: int
    workers: int
    latency_s: float = 0.0
    max_in_flight: int = 64
    now_s: float = 0.0
    flights: list[Flight] = field(default_factory=list)
    answering: list[tuple[float, Flight]] = field(default_factory=list)
    longest_s: float = 0.0
    link: Link | None = None

    def __post_init__(self) -> None:
        self.ids = [uuid4() for _ in range(self.workers)]
        self.meters = [LinkMeter(clock=lambda: self.now_s) for _ in self.ids]
        self.reports: dict[UUID, list[dict[str, object]]] = {}
        self.book = LinkBook()
        self.next_worker = itertools.cycle(range(self.workers))

    def run(self) -> float:
        """Send all slices, and return how many seconds it took."""
        left, next_beat_s = self.slices, self.now_s + HEARTBEAT_S
        while left or self.flights or self.answering:
            while left and len(self.flights) + len(self.answering) < self.window():
                left -= 1
                self.begin()
            self.advance(min(next_beat_s, self.next_event_s()))
            if self.now_s >= next_beat_s:
                next_beat_s += HEARTBEAT_S
                self.learn(range(self.workers))
        return self.now_s

    def window(self) -> int:
        """Return how many slices the dispatcher would have in flight."""
        return 1 if self.link is None else min(self.max_in_flight, self.link.in_flight(self.slice_bytes, 5.0))

    def begin(self) -> None:
        worker = next(self.next_worker)
        sending = self.meters[worker].sending(STORE, self.slice_bytes)
        sending.__enter__()
        self.flights.append(Flight(worker, self.now_s, self.slice_bytes, sending))

    def next_event_s(self) -> float:
        share = self.rate / max(1, len(self.flights))
        sent = [self.now_s + flight.left_bytes / share for flight in self.flights]
        return min([*sent, *(at_s for at_s, _ in self.answering)])

    def advance(self, until_s: float) -> None:
        share = self.rate / max(1, len(self.flights))
        for flight in self.flights:
            flight.left_bytes -= share * (until_s - self.now_s)
        self.now_s = until_s
        for flight in [flight for flight in self.flights if flight.left_bytes < 1e-3]:
            self.flights.remove(flight)
            self.answering.append((until_s + self.latency_s, flight))
        for answer in [answer for answer in self.answering if answer[0] <= until_s]:
            self.answering.remove(answer)
            flight = answer[1]
            flight.sending.__exit__(None, None, None)  # type: ignore[attr-defined]
            self.longest_s = max(self.longest_s, until_s - flight.began_s)
            if self.meters[flight.worker].first_answer.is_set():
                self.meters[flight.worker].first_answer.clear()
                self.learn([flight.worker])

    def learn(self, workers: range | list[int]) -> None:
        for worker in workers:
            if (report := self.meters[worker].report()) is not None:
                self.reports[self.ids[worker]] = report
        known = {} if self.link is None else {STORE: self.link}
        self.link = self.book.learn(list(self.reports.items()), known, self.now_s).get(STORE, self.link)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("slice_bytes", [512 * KIB, MIB, 3 * MIB])
@pytest.mark.parametrize("rate", [64 * KIB, 256 * KIB, 1_000_000, 10_000_000, 100_000_000, 500_000_000])
def test_every_link_is_full_and_no_slice_misses_its_deadline(rate: float, slice_bytes: int, workers: int) -> None:
    slices = min(4000, max(20, int(120 * rate / slice_bytes)))
    simulation = Simulation(rate, slice_bytes, slices, workers)
    took_s = simulation.run()
    assert took_s <= 1.01 * slices * slice_bytes / rate
    assert simulation.longest_s < 0.8 * (30 + slice_bytes / LOW_SPEED)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("latency_s", [0.02, 0.1, 0.5, 3.0])
def test_a_store_that_answers_late_gets_as_many_as_it_may_have(latency_s: float, workers: int) -> None:
    simulation = Simulation(500_000_000, 3 * MIB, 2000, workers, latency_s=latency_s)
    whole_rounds_s = 2000 / 64 * (64 * 3 * MIB / 500_000_000 + latency_s)
    assert simulation.run() <= 1.1 * whole_rounds_s + 10 * latency_s  # until the window is full
    assert simulation.window() == 64


def test_a_store_that_was_idle_is_as_fast_as_before() -> None:
    """Time without slices in flight does not change the estimate."""
    simulation = Simulation(100_000_000, 3 * MIB, 50, 2)
    simulation.run()
    before = simulation.window()
    simulation.now_s += 300
    simulation.slices = 50
    began_s = simulation.now_s
    simulation.run()
    assert simulation.window() == before
    assert simulation.now_s - began_s <= 1.1 * 50 * 3 * MIB / 100_000_000


def counters(**changed: float) -> list[dict[str, object]]:
    """Return a worker's report."""
    return [
        {"store": STORE, "answers": 0, "answered_bytes": 0, "answered_s": 0.0, "busy_s": 0.0, "timeouts": 0}
        | {"oldest_s": 0.0}
        | changed
    ]


A, B = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("sending_s", [1.0, 2.0], ids=["one after the other", "at once"])
def test_the_goodput_of_two_workers_is_that_of_the_time_in_which_either_sends(sending_s: float) -> None:
    book = LinkBook()
    book.begin_term([(A, counters()), (B, counters())], 0.0)
    each = counters(answers=1, answered_bytes=1_000_000, answered_s=sending_s, busy_s=sending_s)
    assert book.learn([(A, each), (B, each)], {}, 2.0)[STORE].goodput_bytes_per_s == 1_000_000


def test_a_timeout_halves_it() -> None:
    book = LinkBook()
    sent = {"answers": 4, "answered_bytes": 8_000_000, "answered_s": 4.0}
    before = book.learn([(A, counters(**sent, busy_s=2.0))], {}, 2.0)[STORE]
    after = book.learn([(A, counters(**sent, busy_s=2.0, timeouts=3))], {STORE: before}, 4.0)[STORE]
    assert (before.goodput_bytes_per_s, after.goodput_bytes_per_s) == (4_000_000, 2_000_000)


def test_a_store_that_has_stopped_answering_is_sent_one_at_a_time_and_counts_as_slow() -> None:
    book = LinkBook()
    known = book.learn([(A, counters(answers=9, answered_bytes=9_000_000, answered_s=0.9, busy_s=0.1))], {}, 0.1)
    assert known[STORE].in_flight(1_000_000, 5.0) > 64
    hung = {"answers": 9, "answered_bytes": 9_000_000, "answered_s": 0.9}
    for beat in range(1, 8):
        reports = [(A, counters(**hung, busy_s=0.1 + 2.0 * beat, oldest_s=2.0 * beat))]
        known |= book.learn(reports, known, 0.1 + 2.0 * beat)
    assert known[STORE].answer_s > 10
    assert known[STORE].in_flight(1_000_000, 5.0) == 1


def test_the_next_leader_counts_from_the_present_counters() -> None:
    before = Link(5e6, 1e6, 0.2)
    old = counters(answers=1000, answered_bytes=10, answered_s=4000.0, busy_s=3000.0)
    book = LinkBook()
    book.begin_term([(A, old)], 100.0)
    assert book.learn([(A, old)], {STORE: before}, 101.0) == {}
    new = counters(answers=1001, answered_bytes=1_000_010, answered_s=4000.5, busy_s=3000.5)
    assert book.learn([(A, new)], {STORE: before}, 102.0)[STORE] == Link(2e6, 1e6, 0.5)


def test_a_worker_that_has_ended_does_not_count() -> None:
    book = LinkBook()
    sent = {"answers": 1, "answered_bytes": 1_000_000, "answered_s": 0.1}
    known = book.learn([(A, counters(**sent, busy_s=9.0, oldest_s=9.0)), (B, counters(**sent))], {}, 1.0)
    assert known[STORE].answer_s == 9.0
    known |= book.learn([(B, counters(**(sent | {"answers": 2}), busy_s=0.1))], known, 2.0)
    assert known[STORE].answer_s < 2

"""What the gateway counts of itself: every metric is declared here, and nowhere else.

A `Counter` or `Histogram` is kept by this process and recorded where the thing happens. A `Reading` has no state: its
values are read when somebody asks (`pipeline/measure.py`), out of the database, the engine and the executor.

Invariants: no label holds an id, a key or a word of a client's, and a metric has at most `MOST` sets of label values;
those that come later are counted together as `other`. Times are seconds, sizes bytes, amounts dollars.

`docs/metrics.md` is made from these declarations, and a test holds the dashboard and the alerts in `deploy/` to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client import Counter as _Counter
from prometheus_client import Histogram as _Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from batchway.core.errors import ProviderError

MOST = 200
OTHER = "other"
LAG_SECONDS = 0.5  # between two looks at the event loop

Labels = tuple[str, ...]
Values = Mapping["Reading", Iterable[tuple[Labels, float]]]

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
CALL = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAIT = (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)

_registry = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=_registry)


class Counter:
    """A number that only grows, for each set of label values."""

    kind = "counter"
    source = "process"

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._all: Any = _Counter(name, help, labels, registry=_registry)
        self._children: dict[Labels, Any] = {}
        DECLARED.append(self)

    def add(self, *values: str, by: float = 1) -> None:
        """Adds `by` (not below 0)."""
        (self._children.get(values) or _child(self._all, self._children, values)).inc(by)


class Histogram:
    """How long things took, for each set of label values; `<name>_count` says how many there were."""

    kind = "histogram"
    source = "process"

    def __init__(self, name: str, help: str, *labels: str, buckets: tuple[float, ...]) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._all: Any = _Histogram(name, help, labels, registry=_registry, buckets=buckets)
        self._children: dict[Labels, Any] = {}
        DECLARED.append(self)

    def observe(self, seconds: float, *values: str) -> None:
        """Adds one that took so long."""
        (self._children.get(values) or _child(self._all, self._children, values)).observe(seconds)


class Reading:
    """A value that is read when it is asked for: out of the database, or (`now`) of this process."""

    def __init__(self, name: str, help: str, *labels: str, source: Literal["now", "database"] = "database") -> None:
        self.name, self.help, self.labels, self.source = name, help, labels, source
        self.kind = "counter" if name.endswith("_total") else "gauge"
        DECLARED.append(self)

    def family(self, values: Iterable[tuple[Labels, float]]) -> Metric:
        """As Prometheus's client writes it."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family


def _child(parent: Any, children: dict[Labels, Any], values: Labels) -> Any:
    """The child for these values, or that of all the others when there are many already."""
    if not values:
        found = parent
    elif len(children) < MOST:
        found = parent.labels(*values)
    else:
        found = parent.labels(*(OTHER for _ in values))
    if len(children) < 2 * MOST:  # remembered, but not without end
        children[values] = found
    return found


DECLARED: list[Counter | Histogram | Reading] = []

HTTP_REQUESTS = Counter(
    "batchway_http_requests_total",
    "Requests of clients, by the status's class such as 2xx.",
    "route",
    "method",
    "status",
)
HTTP_SECONDS = Histogram(
    "batchway_http_request_seconds", "From a request's head to the head of its answer.", "route", buckets=QUICK
)
HTTP_RECEIVED = Counter("batchway_http_received_bytes_total", "Bytes of the bodies that clients sent.")
HTTP_SENT = Counter("batchway_http_sent_bytes_total", "Bytes of the bodies that clients were sent.")

PROVIDER_SECONDS = Histogram(
    "batchway_provider_call_seconds",
    "Calls of a job API, with their repeats: submit, find, look, answers, cancel, clean. The outcome is ok, a fault "
    "(transient, throttled, rejected, denied, lost), broken (a bug) or abandoned (by its caller).",
    "account",
    "operation",
    "outcome",
    buckets=CALL,
)
PROVIDER_REPEATS = Counter("batchway_provider_repeats_total", "Repeated tries of calls of job APIs.", "account")
THROTTLED = Counter(
    "batchway_throttled_total", "Answers 429 of providers and model servers to single tries.", "account", "lane"
)

EXECUTOR_SECONDS = Histogram(
    "batchway_executor_request_seconds",
    "Single requests to model servers. The outcome is ok, refused, throttled, failed (5xx and the like) or unheard.",
    "account",
    "outcome",
    buckets=CALL,
)
EXECUTOR_WAIT = Histogram(
    "batchway_executor_wait_seconds", "How long a loaded line waited for a free slot.", "account", buckets=CALL
)
EXECUTOR_REPEATS = Counter("batchway_executor_repeats_total", "Lines that are to be sent once more.", "account")
EXECUTOR_IN_FLIGHT = Reading(
    "batchway_executor_in_flight", "Requests under way from this process.", "account", source="now"
)
EXECUTOR_LIMIT = Reading(
    "batchway_executor_limit", "How many this process may have under way.", "account", source="now"
)

LOOP_LAG = Histogram(
    "batchway_event_loop_lag_seconds", "How much later than it wanted a waiting task went on.", buckets=QUICK
)
ENGINE_ALIVE = Reading(
    "batchway_engine_alive", "1 while this process holds its lease and may send what is paid for.", source="now"
)
ENGINE_BEAT_AGE = Reading("batchway_engine_beat_age_seconds", "Since the lease was last renewed.", source="now")
WORK_FAILURES = Counter(
    "batchway_work_failures_total", "Runs of durable functions that failed, and will be tried again.", "function"
)
WRITE_SECONDS = Histogram(
    "batchway_database_write_seconds", "Transactions that write, with their wait for a connection.", buckets=QUICK
)
WRITE_FAILURES = Counter("batchway_database_write_failures_total", "Transactions that the database refused.")

BATCHES_ENDED = Counter("batchway_batches_ended_total", "Batches that ended in this process.", "state")
BATCH_SECONDS = Histogram(
    "batchway_batch_seconds", "From a batch's creation to its end, when it ended here.", "state", buckets=WAIT
)
BATCH_QUEUE_SECONDS = Histogram(
    "batchway_batch_queue_seconds", "From a batch's creation to in_progress, when it ended here.", buckets=WAIT
)
BATCH_FIRST_RESULT_SECONDS = Histogram(
    "batchway_batch_first_result_seconds",
    "From a batch's creation to its first stored answer, made here.",
    buckets=WAIT,
)

BATCHES = Reading("batchway_batches", "Batches that have not ended; 10,000 stands for all that are more.", "state")
JOBS = Reading("batchway_jobs", "Jobs that are not accounted yet; 10,000 stands for all that are more.", "state")
CHUNKS_WAITING = Reading(
    "batchway_chunks_waiting", "Chunks without all their answers; 10,000 stands for all that are more.", "account"
)
OLDEST_SECONDS = Reading(
    "batchway_oldest_seconds",
    "How long the oldest has been in its state: batches in validating and finalizing, jobs in planned, submitting, "
    "ended and collected.",
    "state",
)
POLL_DELAY = Reading("batchway_poll_delay_seconds", "How long the most overdue look at a running job is overdue.")
NEAR_DEADLINE = Reading(
    "batchway_batches_near_deadline",
    "Batches that have not ended, with less than an hour and less than a tenth of their window left.",
)
HOLDS = Reading("batchway_holds_open", "Holds that are not settled.")
HELD_DOLLARS = Reading("batchway_held_dollars", "The sum of the open holds, as far as prices are known.")
HOLDS_STUCK = Reading(
    "batchway_holds_stuck", "Holds of batches that ended over 10 minutes ago, among the 1,000 oldest open ones."
)
BUDGET_DOLLARS = Reading(
    "batchway_budget_dollars",
    "Budgets of the gateway and of projects in their present period. Part: amount, settled, held, remaining.",
    "scope",
    "project",
    "part",
)
BUDGET_USED_RATIO = Reading(
    "batchway_budget_used_ratio",
    "Settled and held by the budget's amount; of all keys' budgets the highest.",
    "scope",
    "project",
)
TOKENS = Reading(
    "batchway_tokens_total", "Tokens in the ledger, of the whole gateway.", "account", "model", "lane", "type"
)
LINES = Reading("batchway_lines_total", "Answered lines in the ledger.", "account", "model", "lane")
AMOUNT_DOLLARS = Reading(
    "batchway_amount_dollars",
    "The sum of the ledger. A correction may lower it: use delta(), not increase().",
    "account",
    "model",
    "lane",
)
PROJECT_DOLLARS = Reading("batchway_project_amount_dollars", "The same sum, by project.", "project")
UNPRICED = Reading(
    "batchway_unpriced_entries_total", "Entries of the ledger without a known price.", "account", "model", "lane"
)
RECEIVER_LAG_EVENTS = Reading("batchway_receiver_lag_events", "Events that a receiver has not been told.", "receiver")
RECEIVER_LAG_SECONDS = Reading("batchway_receiver_lag_seconds", "The age of the oldest of them.", "receiver")
RECEIVER_FAILURES = Reading(
    "batchway_receiver_failures", "How often in a row telling a receiver has failed.", "receiver"
)
DEAD_LETTERS = Reading("batchway_dead_letters", "Events that a receiver refused for good.", "receiver")
DELIVERIES = Reading(
    "batchway_webhook_deliveries", "Deliveries to webhooks; 10,000 stands for all that are more.", "state"
)

# Recording what takes more than one line ------------------------------------------------------------------------------

_calling: ContextVar[str] = ContextVar("batchway_calling_account", default="none")


@contextmanager
def calling(account: str, operation: str) -> Generator[None]:
    """The block is one call of this account's job API: its time and outcome are counted, its tries under its name."""
    before = _calling.get()
    _calling.set(account)
    begun = time.perf_counter()
    outcome = "abandoned"
    try:
        yield
        outcome = "ok"
    except ProviderError as error:
        outcome = error.fault.value
        raise
    except Exception:
        outcome = "broken"
        raise
    finally:
        _calling.set(before)  # no token: a generator may be closed by another task than the one that began it
        PROVIDER_SECONDS.observe(time.perf_counter() - begun, account, operation, outcome)


def tried(error: ProviderError, *, again: bool) -> None:
    """One try of the call of the surrounding block failed; `again` when another follows."""
    account = _calling.get()
    if error.status == 429:
        THROTTLED.add(account, "native")
    if again:
        PROVIDER_REPEATS.add(account)


def batch_ended(state: str, seconds: float | None, queued: float | None) -> None:
    """A batch ended here, so long after its creation; `queued` of it before its first submit."""
    BATCHES_ENDED.add(state)
    if seconds is not None:
        BATCH_SECONDS.observe(seconds, state)
    if queued is not None:
        BATCH_QUEUE_SECONDS.observe(queued)


async def watch_loop() -> None:
    """Measures the event loop's lag until it is cancelled."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        LOOP_LAG.observe(max(0.0, clock() - due))


# Telling --------------------------------------------------------------------------------------------------------------


class _Everything:
    """What this process counted, and the values that were read just now."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for metric in _registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
        for reading, values in self._values.items():
            yield reading.family(values)


def render(values: Values, accept: str) -> tuple[bytes, str]:
    """(every metric in the form that the Accept header asks for, that form's content type)."""
    encoder, content_type = exposition.choose_encoder(accept)
    everything: Any = _Everything(values)
    return encoder(everything), content_type

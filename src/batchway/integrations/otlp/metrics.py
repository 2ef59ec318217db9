"""Metrics made from events: what jobs used and what batches took.

`Meter.export` answers what is to be sent and how to make it count: sums grow only when the peer took them, so a window
that is told again after a failure counts once. (A window that was taken, but whose answer was lost, counts twice:
metrics have no id to drop repeats by. Amounts to bill by are the ledger's.)

Cumulative sums begin with this process (`start_time_unix_nano`), delta sums with the last export. Series are bounded:
beyond `MOST_SERIES`, values go to the series with `otel.metric.overflow`, as the OpenTelemetry SDK does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import msgspec

from batchway.core.event_data import BatchData, JobData
from batchway.integrations.otlp import attributes as names
from batchway.integrations.otlp.messages import Histogram, HistogramPoint, Metric, NumberPoint, Sum
from batchway.integrations.otlp.spans import Style

Temporality = Literal["cumulative", "delta"]
TEMPORALITIES: Mapping[Temporality, int] = {"delta": 1, "cumulative": 2}
MOST_SERIES = 2000
OVERFLOW = (("otel.metric.overflow", True),)

TOKEN_BOUNDS = tuple(float(4**power) for power in range(14))  # those of the semantic conventions
SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 2 * 86400.0)


class Instrument(msgspec.Struct, frozen=True):
    """With `bounds` a histogram, without a sum."""

    description: str
    unit: str
    bounds: tuple[float, ...] = ()


INSTRUMENTS = {
    "batchway.batches": Instrument("Batches that ended, by status.", "{batch}"),
    "batchway.batch.duration": Instrument("From a batch's creation to its end.", "s", SECONDS),
    "batchway.job.duration": Instrument("From sending a job until the provider was done.", "s", SECONDS),
    "batchway.lines": Instrument("Lines of accounted jobs, answered or failed.", "{line}"),
    "batchway.tokens": Instrument("Tokens of accounted jobs, by gen_ai.token.type.", "{token}"),
    "batchway.amount": Instrument("What accounted jobs amounted to, as far as prices are known.", "USD"),
    "gen_ai.client.token.usage": Instrument("Number of input and output tokens used.", "{token}", TOKEN_BOUNDS),
}


class Sample(msgspec.Struct, frozen=True):
    """One value for an instrument."""

    name: str
    value: float
    about: tuple[tuple[str, Any], ...]


class Series(msgspec.Struct, frozen=True):
    """What one set of attributes adds up to."""

    total: float = 0.0
    count: int = 0
    least: float = 0.0
    most: float = 0.0
    buckets: tuple[int, ...] = ()

    def plus(self, value: float, bounds: Sequence[float]) -> Series:
        """With one value more; a value on a bound belongs below it."""
        buckets = list(self.buckets or [0] * (len(bounds) + 1))
        buckets[bisect_left(bounds, value)] += 1
        least = min(self.least, value) if self.count else value
        most = max(self.most, value) if self.count else value
        return Series(self.total + value, self.count + 1, least, most, tuple(buckets))


Key = tuple[str, tuple[tuple[str, Any], ...]]


class Meter:
    """The sums of one receiver."""

    def __init__(self, temporality: Temporality, now: float) -> None:
        self._temporality: Temporality = temporality
        self._since = now
        self._series: dict[Key, Series] = {}

    def export(self, samples: Iterable[Sample], now: float) -> tuple[list[Metric], Callable[[], None]]:
        """The metrics with these samples, and what is to be called when they were taken."""
        changed: dict[Key, Series] = {}
        for sample in samples:
            key = self._key(sample, changed)
            base = changed.get(key) or self._series.get(key, Series())
            changed[key] = base.plus(sample.value, INSTRUMENTS[sample.name].bounds)

        def taken() -> None:
            if self._temporality == "delta":
                self._since = now
            else:
                self._series |= changed

        return list(self._metrics(changed, now)), taken

    def _key(self, sample: Sample, changed: Mapping[Key, Series]) -> Key:
        key = (sample.name, sample.about)
        known = key in self._series or key in changed
        return key if known or len(self._series) + len(changed) < MOST_SERIES else (sample.name, OVERFLOW)

    def _metrics(self, changed: Mapping[Key, Series], now: float) -> Iterator[Metric]:
        temporality = TEMPORALITIES[self._temporality]
        for name, group in groupby(sorted(changed, key=lambda key: key[0]), key=lambda key: key[0]):
            told = INSTRUMENTS[name]
            metric = Metric(name=name, description=told.description, unit=told.unit)
            found = [(changed[key], self._times(key, now)) for key in group]
            if told.bounds:
                points = [_distribution(one, told.bounds, when) for one, when in found]
                metric.histogram = Histogram(data_points=points, aggregation_temporality=temporality)
            else:
                numbers = [NumberPoint(as_double=one.total, **when) for one, when in found]
                metric.sum = Sum(data_points=numbers, aggregation_temporality=temporality, is_monotonic=True)
            yield metric

    def _times(self, key: Key, now: float) -> dict[str, Any]:
        return {
            "start_time_unix_nano": names.nanoseconds(self._since),
            "time_unix_nano": names.nanoseconds(max(now, self._since)),
            "attributes": names.attributes(dict(key[1])),
        }


def _distribution(series: Series, bounds: Sequence[float], when: Mapping[str, Any]) -> HistogramPoint:
    return HistogramPoint(
        count=str(series.count),
        sum=series.total,
        bucket_counts=[str(count) for count in series.buckets],
        explicit_bounds=bounds,
        min=series.least,
        max=series.most,
        **when,
    )


def of_batch(data: BatchData) -> Iterator[Sample]:
    """Samples of a batch that ended."""
    about = (("batchway.batch.endpoint", data.endpoint), ("batchway.batch.status", data.status))
    yield Sample("batchway.batches", 1, about)
    if data.total_seconds is not None:
        yield Sample("batchway.batch.duration", data.total_seconds, about)


def of_job(data: JobData, style: Style) -> Iterator[Sample]:
    """Samples of a job that is accounted."""
    about = _about(data, style)
    if data.running_seconds is not None:
        yield Sample("batchway.job.duration", data.running_seconds, (*about, ("batchway.job.outcome", data.outcome)))
    for word, count in (("completed", data.completed), ("failed", data.failed)):
        if count:
            yield Sample("batchway.lines", count, (*about, ("batchway.line.status", word)))
    if data.amount_usd is not None:
        yield Sample("batchway.amount", float(data.amount_usd), about)
    if data.usage is not None:
        yield Sample("batchway.tokens", data.usage.input_tokens, (*about, ("gen_ai.token.type", "input")))
        yield Sample("batchway.tokens", data.usage.output_tokens, (*about, ("gen_ai.token.type", "output")))


def of_line(data: JobData, tokens: tuple[int, int], style: Style) -> Iterator[Sample]:
    """Samples of one answered line: its input and output tokens."""
    for word, count in zip(("input", "output"), tokens, strict=True):
        about = (*_about(data, style), ("gen_ai.token.type", word))
        yield Sample("gen_ai.client.token.usage", count, about)


def _about(data: JobData, style: Style) -> tuple[tuple[str, Any], ...]:
    return (
        ("gen_ai.operation.name", names.operation(data.endpoint)),
        ("gen_ai.provider.name", style.provider(data.provider)),
        ("gen_ai.request.model", data.model),
        ("batchway.job.lane", data.lane),
    )

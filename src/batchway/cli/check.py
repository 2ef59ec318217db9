"""What can be known before anything is spent: `batchway estimate` and `batchway validate`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec

from batchway.cli.failures import Exit
from batchway.cli.inputs import lines_of
from batchway.cli.options import json_option, shape, source_options, window_option, with_client
from batchway.cli.screen import duration, emit, figures, note, size, table
from batchway.core.linecheck import Findings, LineCheck
from batchway.core.linefaults import waivable
from batchway.sdk.client import Client
from batchway.sdk.errors import APIError
from batchway.sdk.lines import prepared
from batchway.sdk.objects import BatchEstimate
from batchway.wire.batches import RouteEstimate, SecondsRange
from batchway.wire.errors import LineFault

PIECE = 1 << 18


@click.command("estimate")
@source_options
@window_option
@click.option("--provider", metavar="NAME", help="Force a provider on all lines.")
@json_option
@with_client
def estimate_command(
    client: Client, *, source: str, window: str, provider: str | None, as_json: bool, **given: Any
) -> int:
    """Tell the tokens, amount and routes of a file.

    IN is what `batchway run` takes, or the id of an uploaded file. A local file is uploaded for this and deleted again;
    nothing is spent. Rows marked `else` are routes that take over when the one above refuses, `or` those in their other
    lane: for comparison.
    """
    wanted = shape(given)
    asked: dict[str, Any] = {"completion_window": window, "model": wanted.model, "custom_llm_provider": provider}
    if source.startswith("file-") and not Path(source).exists():
        if wanted.endpoint:
            asked["endpoint"] = wanted.endpoint
        _show_estimate(client.estimate_batch(input_file_id=source, **asked), as_json=as_json)
        return 0
    lines = prepared(lines_of(source, wanted), wanted.model, wanted.endpoint)
    stored = client.create_file(file=lines.source, purpose="batch")
    try:
        found = client.estimate_batch(input_file_id=stored.id, endpoint=lines.endpoint, **asked)
    finally:
        with suppress(APIError):  # it is the estimate, or its refusal, that the user asked for
            client.file_delete(file_id=stored.id)
    _show_estimate(found, as_json=as_json)
    return 0


def _show_estimate(found: BatchEstimate, *, as_json: bool) -> None:
    if as_json:
        emit(found.to_dict())
        return
    tokens, amount = found.output_tokens, found.amount_usd
    figures(
        [
            ("lines", found.lines),
            ("input tokens", f"{found.input_tokens} ({found.input_tokens_method})"),
            ("output tokens", f"{tokens.likely} (from {tokens.low} to {tokens.high})"),
            ("amount", f"${amount.likely} (from ${amount.low} to ${amount.high})" if amount else "unknown"),
            ("why", found.reason),
            ("time", _time(found.seconds)),
        ]
    )
    print()
    columns = ("", "provider", "model", "lane", "lines", "input tokens", "output tokens", "amount", "at most", "time")
    rows = [_row("", route) for route in found.routes]
    rows += [_row("else" if route.falls_over else "or", route) for route in found.alternatives]
    table(columns, rows)


def _row(use: str, route: RouteEstimate) -> tuple[str, ...]:
    amount = route.amount_usd
    return (
        use,
        route.provider,
        route.model,
        route.lane,
        str(route.lines),
        str(route.input_tokens),
        str(route.output_tokens.likely),
        f"${amount.likely}" if amount else "unknown",
        f"${amount.high}" if amount else "",
        _time(route.seconds),
    )


def _time(seconds: SecondsRange) -> str:
    high = duration(seconds.high)
    return f"at most {high}" if seconds.likely is None else f"{duration(seconds.likely)} (at most {high})"


@click.command("validate")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", metavar="NAME", help="The batch will name a model, so lines need none.")
@json_option
def validate_command(path: Path, model: str | None, *, as_json: bool) -> int:
    """Find every fault of a file, without a gateway.

    FILE holds request lines (JSONL). Each fault is printed with its line; the exit code is 1 when there are any.
    Whether a model is served, and a provider's own limits, only a gateway can tell.
    """
    check = LineCheck()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            check.feed(piece)
    findings = check.finish()
    faults = [fault for fault in findings.faults if not (model and waivable(fault))]
    count = findings.fault_count - (findings.models[""].lines if model and "" in findings.models else 0)
    if as_json:
        emit(_document(path, findings, faults, count))
    else:
        for fault in faults:
            print(f"{path}:{fault.line or 1}: {fault.message} [{fault.code}]")
        if count > len(faults):
            note(f"... and {count - len(faults)} more faults")
        _summary(path, findings, count)
    return Exit.SOME_FAILED if count else Exit.DONE


def _summary(path: Path, findings: Findings, count: int) -> None:
    models = ", ".join(f"{name or '(none)'}: {stats.lines}" for name, stats in findings.models.items())
    note(f"{path}: {findings.lines} lines, {size(findings.bytes)}, {count} faults" + (f"; {models}" if models else ""))


def _document(path: Path, findings: Findings, faults: list[LineFault], count: int) -> dict[str, Any]:
    return {
        "object": "file.validation",
        "path": str(path),
        "valid": count == 0,
        "lines": findings.lines,
        "bytes": findings.bytes,
        "sha256": findings.sha256,
        "urls": findings.urls,
        "models": {name: stats.lines for name, stats in findings.models.items()},
        "estimated_input_tokens": sum(stats.input_tokens for stats in findings.models.values()),
        "fault_count": count,
        "faults": [msgspec.structs.asdict(fault) for fault in faults],
    }

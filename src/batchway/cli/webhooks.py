"""`batchway webhooks`: where a project's events are sent, and what became of each message."""

from __future__ import annotations

import time
from typing import Any

import click

from batchway.cli.options import json_option, with_client
from batchway.cli.screen import duration, emit, note, table
from batchway.sdk.client import Client
from batchway.sdk.objects import Webhook

WEBHOOK = click.argument("webhook_id", metavar="ID")
FAILED = 1


@click.group("webhooks")
def webhooks_command() -> None:
    """Create, test, change and delete webhooks, and send again what did not arrive."""


@webhooks_command.command("create")
@click.argument("url", metavar="URL")
@click.option("--event", "events", multiple=True, metavar="PATTERN", help="Such as 'batch.*'; may be repeated.")
@click.option("--project", metavar="NAME", help="Whose events (admin); without it, those of the whole gateway.")
@click.option("--allow-private", is_flag=True, help="The host may be inside a private network (admin).")
@json_option
@with_client
def create_webhook(client: Client, *, url: str, events: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Create a webhook and print its secret, this once."""
    made = client.create_webhook(
        url, events=list(events) or None, **{name: value or None for name, value in given.items()}
    )
    return _tell_secret(made, as_json=as_json)


@webhooks_command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=100, show_default=True, help="Webhooks on the page.")
@click.option("--after", metavar="ID", help="Begin behind this webhook: the next page.")
@click.option("--batch", "batch_id", metavar="ID", help="Those of one batch.")
@json_option
@with_client
def list_webhooks(client: Client, *, as_json: bool, **given: Any) -> int:
    """List webhooks, newest first."""
    found = client.list_webhooks(**given)
    if as_json:
        emit(found.to_dict())
        return 0
    rows = [
        (
            one.id,
            one.url,
            one.project or "(all)",
            " ".join(one.events) or f"(batchway.yaml: {one.receiver})",
            "disabled" if one.disabled else f"failing ({one.failures})" if one.failures else "well",
        )
        for one in found.data
    ]
    table(("id", "url", "project", "events", "state"), rows)
    return 0


@webhooks_command.command("update")
@WEBHOOK
@click.option("--url", metavar="URL", help="Where messages go from now on.")
@click.option("--event", "events", multiple=True, metavar="PATTERN", help="Replaces the patterns; may be repeated.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether it rests.")
@json_option
@with_client
def update_webhook(client: Client, *, webhook_id: str, events: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Change a webhook: what is given, all else stays."""
    changed = client.update_webhook(webhook_id, events=list(events) or None, **given)
    if as_json:
        emit(changed.to_dict())
    else:
        print(f"{changed.id} changed")
    return 0


@webhooks_command.command("rotate")
@WEBHOOK
@click.option(
    "--grace", "grace_seconds", type=click.IntRange(0, 30 * 86400), metavar="SECONDS", help="A day without it."
)
@json_option
@with_client
def rotate_webhook(client: Client, *, webhook_id: str, grace_seconds: int | None, as_json: bool) -> int:
    """Give a webhook a new secret; the old one signs along for a while."""
    return _tell_secret(client.rotate_webhook(webhook_id, grace_seconds), as_json=as_json)


@webhooks_command.command("test")
@WEBHOOK
@json_option
@with_client
def test_webhook(client: Client, *, webhook_id: str, as_json: bool) -> int:
    """Send a test message now, and tell what became of it."""
    tested = client.test_webhook(webhook_id)
    if as_json:
        emit(tested.to_dict())
    else:
        print(f"delivered, status {tested.status}" if tested.delivered else f"not delivered: {tested.error}")
    return 0 if tested.delivered else FAILED


@webhooks_command.command("deliveries")
@WEBHOOK
@click.option("--status", type=click.Choice(["waiting", "delivered", "dead"]), help="Only those.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Deliveries on the page.")
@click.option("--after", metavar="ID", help="Begin behind this delivery: the next page.")
@json_option
@with_client
def list_deliveries(client: Client, *, webhook_id: str, as_json: bool, **given: Any) -> int:
    """List what was sent or waits to be, the latest first."""
    found = client.list_deliveries(webhook_id, **given)
    if as_json:
        emit(found.to_dict())
        return 0
    now = time.time()
    rows = [
        (
            one.id,
            one.event_type,
            one.subject,
            one.status,
            str(one.attempts),
            str(one.answer or ""),
            f"in {duration(one.next_attempt_at - now)}" if one.next_attempt_at else "",
            one.error or "",
        )
        for one in found.data
    ]
    table(("id", "event", "subject", "status", "attempts", "answer", "next", "error"), rows)
    return 0


@webhooks_command.command("retry")
@WEBHOOK
@click.argument("delivery_id", metavar="[DELIVERY]", required=False)
@json_option
@with_client
def retry_deliveries(client: Client, *, webhook_id: str, delivery_id: str | None, as_json: bool) -> int:
    """Send one delivery again, or all dead ones, and now what waits for another try."""
    if delivery_id is not None:
        again = client.retry_delivery(webhook_id, delivery_id)
        words = f"{again.id} is sent again"
    else:
        again = client.retry_deliveries(webhook_id)
        words = f"{again.retried} dead deliveries are sent again"
    if as_json:
        emit(again.to_dict())
    else:
        print(words)
    return 0


@webhooks_command.command("delete")
@WEBHOOK
@json_option
@with_client
def delete_webhook(client: Client, *, webhook_id: str, as_json: bool) -> int:
    """Delete a webhook: what waits for it is not sent any more."""
    gone = client.delete_webhook(webhook_id)
    if as_json:
        emit(gone.to_dict())
    else:
        print(f"{gone.id} deleted")
    return 0


def _tell_secret(made: Webhook, *, as_json: bool) -> int:
    if as_json:
        emit(made.to_dict())
    else:
        print(made.secret)
        note(f"{made.id}: messages are signed with this secret. Keep it, it is not shown again.")
    return 0

"""The objects that calls return: OpenAI's attributes, nested ones too; fields unknown to this version are kept.

They hold exactly what the gateway sent. For type checkers each has the fields of its struct in `wire/`, so the two
cannot drift apart; at run time a gateway newer than this SDK loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

T = TypeVar("T")

# Maps of the user's or of names: dicts, as in OpenAI's objects.
MAPS = frozenset({"metadata", "models", "extra", "details", "tags"})


class Object:
    """Attributes made of a JSON object."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update({name: _wrap(name, value) for name, value in fields.items()})

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, as plain dicts and lists."""
        return {name: _unwrap(value) for name, value in self.__dict__.items()}

    def model_dump(self, **_ignored: Any) -> dict[str, Any]:
        """The same as `to_dict`, by pydantic's name; its options are accepted."""
        return self.to_dict()

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text; `indent=None` for one line."""
        raw = msgspec.json.encode(self.to_dict())
        return (raw if indent is None else msgspec.json.format(raw, indent=indent)).decode()

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The same as `to_json`, by pydantic's name."""
        return self.to_json(indent=indent)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # pyright: ignore[reportAssignmentType] - mutable, as a dict is

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


class Page(Object, Generic[T]):
    """A page of a list: `data`, `has_more`, `last_id` (the `after` of the next page); iterating gives its objects."""

    if TYPE_CHECKING:
        data: list[T]
        has_more: bool
        first_id: str | None
        last_id: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


if TYPE_CHECKING:
    from batchway.wire import batches, costs, files, keys, projects, receivers, webhooks

    class Batch(Object, batches.Batch):  # noqa: D101 - see below
        ...

    class BatchEstimate(Object, batches.BatchEstimate):  # noqa: D101
        ...

    class FileObject(Object, files.File):  # noqa: D101
        ...

    class FileDeleted(Object, files.FileDeleted):  # noqa: D101
        ...

    class Key(Object, keys.Key):  # noqa: D101
        ...

    class KeyDeleted(Object, keys.KeyDeleted):  # noqa: D101
        ...

    class Model(Object, keys.Model):  # noqa: D101
        ...

    class Project(Object, projects.Project):  # noqa: D101
        ...

    class ProjectDeleted(Object, projects.ProjectDeleted):  # noqa: D101
        ...

    class GatewayBudget(Object, projects.GatewayBudget):  # noqa: D101
        ...

    class AuditEntry(Object, projects.AuditEntry):  # noqa: D101
        ...

    class CostPage(Object, costs.CostPage):  # noqa: D101
        ...

    class UsagePage(Object, costs.UsagePage):  # noqa: D101
        ...

    class Correction(Object, costs.Correction):  # noqa: D101
        ...

    class Receiver(Object, receivers.Receiver):  # noqa: D101
        ...

    class ReceiverRetry(Object, receivers.ReceiverRetry):  # noqa: D101
        ...

    class StreamEvent(Object, receivers.StreamEvent):  # noqa: D101
        ...

    class Webhook(Object, webhooks.Webhook):  # noqa: D101
        ...

    class WebhookDeleted(Object, webhooks.WebhookDeleted):  # noqa: D101
        ...

    class WebhookTested(Object, webhooks.WebhookTested):  # noqa: D101
        ...

    class Delivery(Object, webhooks.Delivery):  # noqa: D101
        ...

    class DeliveriesRetried(Object, webhooks.DeliveriesRetried):  # noqa: D101
        ...

else:

    class Batch(Object):
        """A batch: `id`, `status`, `request_counts`, `output_file_id`; under `batchway` its jobs and amount."""

    class BatchEstimate(Object):
        """What a batch would use: `lines`, `input_tokens`, `amount_usd.likely`, `routes`."""

    class FileObject(Object):
        """A file: `id`, `bytes`, `filename`, `purpose`, and under `batchway` what was found in it."""

    class FileDeleted(Object):
        """The answer of a deletion."""

    class Key(Object):
        """A virtual key; `key`, the secret, is set only in the answer that created or rotated it."""

    class KeyDeleted(Object):
        """The answer of a deletion."""

    class Model(Object):
        """A name that lines may use."""

    class Project(Object):
        """A project: its rules, limits and budget."""

    class ProjectDeleted(Object):
        """The answer of a deletion."""

    class GatewayBudget(Object):
        """The budget of the whole gateway: `budget.usd`, `budget.remaining_usd`."""

    class AuditEntry(Object):
        """What an admin did: `action`, `target`, `key_id`, `details`."""

    class CostPage(Object):
        """Amounts by day: `data` holds a bucket a day with `results`; `next_page` is where to go on."""

    class UsagePage(Object):
        """Tokens by day: `data` holds a bucket a day with `results`; `next_page` is where to go on."""

    class Correction(Object):
        """An entry of the ledger about an ended batch: `reference`, `amount_usd`, `corrections_usd`."""

    class Receiver(Object):
        """Who is told of events: `name`, `behind`, `behind_seconds`, `failures`, `dead_letters`, `last_error`."""

    class ReceiverRetry(Object):
        """The answer of a retry: how many `dead_letters` are told again."""

    class StreamEvent(Object):
        """One event of a batch: `type`, `id`, `data`; of type `batch` its `status` and `request_counts`."""

    class Webhook(Object):
        """A webhook: `url`, `events`; `secret` is set only in the answer that made or rotated it."""

    class WebhookDeleted(Object):
        """The answer of a deletion."""

    class WebhookTested(Object):
        """What became of a test message: `delivered`, `status`, `error`."""

    class Delivery(Object):
        """A message about one event: `status`, `attempts`, `answer`, `error`."""

    class DeliveriesRetried(Object):
        """How many dead deliveries are sent again: `retried`."""


Kind = TypeVar("Kind", bound=Object)


class BatchPage(Page[Batch]):
    """A page of batches."""


class FilePage(Page[FileObject]):
    """A page of files."""


class KeyPage(Page[Key]):
    """A page of keys."""


class ProjectPage(Page[Project]):
    """A page of projects."""


class AuditPage(Page[AuditEntry]):
    """A page of the audit log."""


class ReceiverPage(Page[Receiver]):
    """All receivers of events."""


class ModelPage(Page[Model]):
    """All names that a key may use."""


class WebhookPage(Page[Webhook]):
    """A page of webhooks."""


class DeliveryPage(Page[Delivery]):
    """A page of deliveries."""


_ITEMS: dict[type[Object], type[Object]] = {
    BatchPage: Batch,
    FilePage: FileObject,
    KeyPage: Key,
    ModelPage: Model,
    ReceiverPage: Receiver,
    ProjectPage: Project,
    AuditPage: AuditEntry,
    WebhookPage: Webhook,
    DeliveryPage: Delivery,
}


def made(kind: type[Kind], fields: Mapping[str, Any]) -> Kind:
    """An object of `kind`; the objects of a page have its items' kind."""
    item = _ITEMS.get(kind)
    if item is not None:
        fields = {**fields, "data": [item(entry) for entry in fields.get("data", ())]}
    return kind(fields)


def _wrap(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return fields if name in MAPS else Object(fields)
    if isinstance(value, list):
        return [_wrap("", item) for item in cast("list[Any]", value)]
    return value


def _unwrap(value: Any) -> Any:
    if isinstance(value, Object):
        return value.to_dict()
    if isinstance(value, list):
        return [_unwrap(item) for item in cast("list[Any]", value)]
    return value

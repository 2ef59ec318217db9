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
MAPS = frozenset({"metadata", "models", "extra"})


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
    from batchway.wire import batches, files, keys

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
        """A virtual key; `key`, the secret, is set only in the answer that created it."""

    class KeyDeleted(Object):
        """The answer of a deletion."""

    class Model(Object):
        """A name that lines may use."""


Kind = TypeVar("Kind", bound=Object)


class BatchPage(Page[Batch]):
    """A page of batches."""


class FilePage(Page[FileObject]):
    """A page of files."""


class KeyPage(Page[Key]):
    """A page of keys."""


class ModelPage(Page[Model]):
    """All names that a key may use."""


_ITEMS: dict[type[Object], type[Object]] = {BatchPage: Batch, FilePage: FileObject, KeyPage: Key, ModelPage: Model}


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

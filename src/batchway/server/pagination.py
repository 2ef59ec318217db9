"""The queries of lists: `limit`, `after`, `order`. Bounds stand in the types, so the document and the checks agree."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from batchway.wire.keys import UnixTime

Order = Literal["asc", "desc"]
Text = Annotated[str, msgspec.Meta(max_length=512)]


class FileQuery(msgspec.Struct, kw_only=True):
    """A page of files."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Files on a page.")] = 10_000
    after: Annotated[str, msgspec.Meta(description="The id of the last file of the page before.")] | None = None
    order: Order = "desc"
    purpose: Text | None = None


class UploadQuery(msgspec.Struct, kw_only=True):
    """How strictly a file is taken."""

    validate: (
        Annotated[
            Literal["strict"], msgspec.Meta(description="Refuse a batch file with faults at once, telling all of them.")
        ]
        | None
    ) = None


Limit = Annotated[int, msgspec.Meta(ge=1, le=100, description="Entries on a page.")]
After = Annotated[str, msgspec.Meta(description="The `id` of the last entry of the page before.")]


class ProjectQuery(msgspec.Struct, kw_only=True):
    """A page of projects."""

    limit: Limit = 20
    after: After | None = None
    order: Order = "desc"


class KeyQuery(ProjectQuery, kw_only=True):
    """A page of keys."""

    project: Text | None = None


class AuditQuery(ProjectQuery, kw_only=True):
    """A page of the audit log; times are unix seconds."""

    created_after: UnixTime | None = None
    created_before: UnixTime | None = None
    action: Annotated[str, msgspec.Meta(max_length=512, description="Such as `key.created`.")] | None = None
    target: Annotated[str, msgspec.Meta(max_length=512, description="The id of what was changed.")] | None = None
    key_id: Annotated[str, msgspec.Meta(max_length=512, description="Who did it.")] | None = None

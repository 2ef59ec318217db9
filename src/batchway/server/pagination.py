"""The queries of lists: `limit`, `after`, `order`. Bounds stand in the types, so the document and the checks agree."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

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

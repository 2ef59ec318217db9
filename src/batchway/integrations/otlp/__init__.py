"""OpenTelemetry: kind `otlp` for any collector, and a kind for each platform of platforms.toml."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from batchway.integrations.otlp import places
from batchway.integrations.otlp.places import Options, Row
from batchway.integrations.otlp.receiver import Manner, OtlpReceiver
from batchway.integrations.otlp.spans import Style
from batchway.integrations.protocol import Tools


@dataclass(frozen=True)
class Opener:
    """One kind. Its options are checked when they are read, the environment's part too."""

    row: Row | None
    Options: type[Options]

    def open_receiver(self, name: str, options: Options, tools: Tools) -> OtlpReceiver:
        """The receiver, with what the environment adds to its options."""
        env, known = os.environ, places.table()[1]
        manner = Manner(
            places=places.places(options, self.row, env),
            style=Style(
                join_caller=options.join_caller,
                lines=options.lines,
                providers={**known, **options.providers},
                renamed=self.row.attributes if self.row else {},
                constants=self.row.constants if self.row else {},
            ),
            temporality=places.temporality(options, self.row, env),
            resource=places.resource(options, env),
            content=options.content,
        )
        return OtlpReceiver(name, manner, tools)


def _checks(row: Row | None) -> dict[str, Any]:
    def check(self: Options) -> None:
        places.places(self, row, os.environ)

    return {"__post_init__": check}


def _opener(kind: str, row: Row | None) -> Opener:
    fields = [(name, str | None, None) for name in (row.settings if row else ())]
    made = msgspec.defstruct(
        f"{kind.title()}Options", fields, bases=(Options,), namespace=_checks(row), frozen=True, kw_only=True
    )
    return Opener(row, cast("type[Options]", made))


KINDS = {"otlp": _opener("otlp", None), **{kind: _opener(kind, row) for kind, row in places.table()[0].items()}}

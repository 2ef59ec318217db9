"""Webhooks: signed messages to https endpoints of the gateway, of a project or of one batch.

`receiver.py` stores a delivery for each endpoint and event, `sender.py` sends them, in order for each batch, through
`send.py`, where `guard.py` says where a message may go. `endpoints.py` is what the API does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batchway.integrations.protocol import Receiver, Tools
from batchway.integrations.webhook.receiver import Configured, NoOptions, Options, Stored
from batchway.integrations.webhook.send import Messenger


class _Entry:
    """An endpoint that stands in batchway.yaml."""

    Options: type[msgspec.Struct] = Options

    @staticmethod
    def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
        return Configured(name, options, tools, Messenger(tools.clock))


class _Always:
    """Those that the API made; it is open whether there are any or not."""

    Options: type[msgspec.Struct] = NoOptions
    ALWAYS = True

    @staticmethod
    def open_receiver(name: str, options: NoOptions, tools: Tools) -> Receiver:
        del name, options
        return Stored(tools, Messenger(tools.clock))


KINDS: Mapping[str, Any] = {"webhook": _Entry, "webhooks": _Always}

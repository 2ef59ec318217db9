"""Your own Python code is told: an object with `on_event(event)`, plain or async, named by its import path.

    receivers:
      - kind: python
        path: my_package.hooks:Tracker      a class (made without arguments), an object, or a function of one event

An object with the method names of LiteLLM's `CustomLogger` is called as it is there: see callbacks.py. Code that raises
is told again later, with pauses up to five minutes; `ReceiverError(..., permanent=True)` refuses an event for good.
"""

from __future__ import annotations

from batchway.integrations.python.receiver import KIND, Options, open_receiver

__all__ = ["KIND", "Options", "open_receiver"]

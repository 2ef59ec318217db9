"""The receiver that calls a hook, in a thread of its own: the hook may block, hang or fail, and nothing else waits."""

from __future__ import annotations

import importlib
import inspect
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from batchway.core.events import Event
from batchway.integrations.apart import Apart
from batchway.integrations.protocol import Receiver, ReceiverError, Tools
from batchway.integrations.python.callbacks import callback_of

log = logging.getLogger(__name__)

KIND = "python"

Hook = Callable[[Event], Any]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: `package.module:Name`."""

    path: str

    def __post_init__(self) -> None:
        hook_of(named(self.path))


def open_receiver(name: str, options: Options, tools: Tools) -> Receiver:
    """The named object, made anew when it is a class."""
    found = named(options.path)
    return Python(name, found() if inspect.isclass(found) else found)


def named(path: str) -> Any:
    """What stands at `package.module:Name`; ValueError when nothing does."""
    module, colon, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (module and colon and name):
        raise ValueError(f"path: '{path}' is not of the form package.module:Name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"path: '{path}' cannot be imported ({type(error).__name__}); is its folder on PYTHONPATH?"
        ) from None
    return found


def hook_of(found: Any) -> list[Hook]:
    """What is called with each event; ValueError when there is nothing to call."""
    hooks = [hook for hook in (getattr(found, "on_event", None), callback_of(found)) if hook is not None]
    if not hooks and callable(found) and not inspect.isclass(found):
        hooks = [found]
    if not hooks:
        raise ValueError("path: it has neither on_event(event) nor one of CustomLogger's methods")
    return hooks


class Python:
    """Calls its hooks with one event after the other."""

    window = 32

    def __init__(self, name: str, hook: Any) -> None:
        self._name = name
        self._hooks = hook_of(hook)
        self._apart = Apart(f"receiver {name}")

    async def tell(self, events: Sequence[Event]) -> None:
        async def call() -> None:
            for event in events:
                for hook in self._hooks:
                    answer = hook(event)
                    if inspect.isawaitable(answer):
                        await answer

        try:
            await self._apart.run(call)
        except ReceiverError:
            raise
        except Exception as error:  # noqa: BLE001 - it is somebody's own code
            kind, place = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
            # Not the error's own words: they may hold what the events hold.
            log.warning("receiver %s raised %s in %s, line %s", self._name, kind, place.filename, place.lineno)
            raise ReceiverError(f"its code raised {kind}") from None

    async def close(self) -> None:
        await self._apart.close()

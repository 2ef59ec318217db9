"""Finds the kinds of receivers and reads their entries in batchway.yaml. No receiver is named here.

    receivers:
      - kind: stdout                 which receiver; all other fields may be left out
        name: log                    where its place is remembered: the kind, unless several are of one kind
        events: [batch.*]            patterns of event types
        projects: [research]
        from: start                  a new name is told of what is still stored too, not only of what comes
        ...                          the receiver's own options

A kind is a module or folder here (see protocol.py), or an object of the same form that an installed package declares as
an entry point of the group `batchway.receivers`; the entry point's name is the kind.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec

from batchway.core.errors import ConfigError
from batchway.core.events import EventType
from batchway.integrations.protocol import Entry, Receiver, Tools

GROUP = "batchway.receivers"
OWN = ("kind", "name", "events", "projects", "from")  # fields of an entry that are not the receiver's options
LONGEST_NAME = 64


@dataclass(frozen=True)
class Listed:
    """An entry whose options are known to be good, and what opens its receiver."""

    entry: Entry
    open: Callable[[Tools], Receiver]


def kinds() -> dict[str, Any]:
    """What opens each kind of this package."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        opener = import_module(f"batchway.integrations.{module.name}")
        if hasattr(opener, "KIND"):
            found[opener.KIND] = opener
        found |= getattr(opener, "KINDS", {})
    return found


def listed(configured: Sequence[Mapping[str, Any]]) -> list[Listed]:
    """The receivers of the settings and those that are always there; ConfigError names the place and the mend."""
    openers, added = kinds(), entry_points(group=GROUP)
    known = [*openers, *(point.name for point in added)]
    made: list[Listed] = []
    for number, raw in enumerate(configured):
        place = f"receivers[{number}]"
        entry = _entry(place, dict(raw))
        _known(entry.kind, known, f"{place}: unknown kind", "known kinds")
        opener = openers[entry.kind] if entry.kind in openers else added[entry.kind].load()
        if "events" not in raw:
            entry = msgspec.structs.replace(entry, events=getattr(opener, "EVENTS", entry.events))
        made.append(_listed(place, entry, opener))
    named = {one.entry.kind for one in made}
    for kind, opener in openers.items():
        if getattr(opener, "ALWAYS", False) and kind not in named:
            made.append(_listed(kind, Entry(name=kind, kind=kind), opener))
    _tell_apart([one.entry.name for one in made])
    return made


def _tell_apart(names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f"receivers: two receivers are named '{name}'; give one of them another `name`")


def _entry(place: str, raw: dict[str, Any]) -> Entry:
    own = {field: raw.pop(field) for field in OWN if field in raw}
    if "kind" not in own:
        raise ConfigError(f"{place}: `kind` is missing: it says which receiver this is")
    if (start := own.pop("from", None)) is not None:
        own["start"] = start
    try:
        entry = msgspec.convert({"name": own["kind"], **own, "options": raw}, Entry)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {str(error).replace('$.start', '$.from')}") from None
    if not 1 <= len(entry.name) <= LONGEST_NAME:
        raise ConfigError(f"{place}: `name` has 1 to {LONGEST_NAME} characters")
    for pattern in entry.events:
        if not any(fnmatchcase(kind, pattern) for kind in EventType):
            _known(pattern, [kind.value for kind in EventType], f"{place}: no event is called", "events are")
    return entry


def _listed(place: str, entry: Entry, opener: Any) -> Listed:
    options_type: type[msgspec.Struct] = opener.Options
    allowed = [field.encode_name for field in msgspec.structs.fields(options_type)]
    for key in entry.options:
        _known(key, [*allowed, *OWN], f"{place}: unknown setting", f"{entry.kind} takes")
    try:
        options = msgspec.convert(entry.options, options_type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {error}") from None
    return Listed(entry, lambda tools: opener.open_receiver(entry.name, options, tools))


def _known(word: str, allowed: Iterable[str], problem: str, otherwise: str) -> None:
    words = list(allowed)
    if word in words:
        return
    near = difflib.get_close_matches(word, words, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"{otherwise} {', '.join(sorted(words))}"
    raise ConfigError(f"{problem} '{word}'; {hint}")

"""The text of docs/parameters.md: what becomes of each OpenAI parameter in each dialect, from their `PARAMS`.

A dialect is found by having such a table, so a new one is a new column without an edit here.
"""

from __future__ import annotations

import importlib
import pkgutil

from batchway import dialects
from batchway.dialects.protocol import Dialect, Fate, Param

OPENING = """\
# Parameters

Every OpenAI parameter has one of three fates on its way to a provider that speaks another form of bodies:

- **mapped**: it has a counterpart;
- *ignored*: it is left out, because the answer is the same without it;
- **refused**: it would be missed. The line is answered with an error that names the parameter and the line, before
  anything is sent or paid. Null, and values that ask for nothing (`not:`), pass.

What is in no table is refused as `unknown_parameter`, as OpenAI does. Values that a provider merely forbids are passed
on, and refused by the provider. Providers that speak OpenAI's own form get the body as it is."""


def found() -> dict[str, Dialect]:
    """The dialects by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(dialects.__path__))
    modules = {name: importlib.import_module(f"{dialects.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "PARAMS")}


def cell(row: Param | None) -> str:
    """What stands in the table for one parameter."""
    if row is None:
        return ""
    fate = f"*{row.fate}*" if row.fate is Fate.IGNORED else f"**{row.fate}**"
    harmless = f" (not: {', '.join(f'`{shown(value)}`' for value in row.harmless)})" if row.harmless else ""
    return f"{fate}: {row.note}{harmless}".replace("|", "\\|")


def shown(value: object) -> str:
    """A value as it stands in JSON."""
    return {"True": "true", "False": "false"}.get(repr(value), repr(value).replace("'", '"'))


def page() -> str:
    """The whole text."""
    known = found()
    endpoints = dict.fromkeys(endpoint for dialect in known.values() for endpoint in dialect.PARAMS)
    parts = [OPENING]
    for endpoint in endpoints:
        having = {name: dialect.PARAMS[endpoint] for name, dialect in known.items() if endpoint in dialect.PARAMS}
        names = dict.fromkeys(sorted(name for table in having.values() for name in table))
        head = [f"| parameter | {' | '.join(having)} |", "|---" * (len(having) + 1) + "|"]
        rows = [f"| `{name}` | {' | '.join(cell(table.get(name)) for table in having.values())} |" for name in names]
        parts += [f"## `{endpoint}`", "\n".join(head + rows)]
    return "\n\n".join(parts)

"""The configured accounts, and which of them a line's model leads to.

A name is looked up in this order: the forced provider; `models` of the settings; `account/model` (or a kind's name, or
one of its aliases, as prefix); the account that lists or knows the bare name. The lane is native where the provider's
job can keep the window, else the executor runs the lines.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from batchway.core.errors import ProviderError
from batchway.core.jobs import Route
from batchway.providers.protocol import Account, Endpoint, Provider
from batchway.providers.shared.metered import Metered

log = logging.getLogger(__name__)

NAMES_TTL = 60.0  # seconds for which a server's list of models is believed


class NoRoute(LookupError):
    """No configured account can take the line; `code` and `message` are those of the line's fault."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Want:
    """What a batch asks of every route: its endpoint, its window in seconds, a forced provider."""

    endpoint: str
    window: int
    forced: str | None = None


class Accounts:
    """Accounts by name. `names` is the `models` table of the settings; `executed` runs what has no native lane."""

    def __init__(
        self,
        accounts: Iterable[Account],
        names: Mapping[str, list[str]],
        aliases: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._names = names
        self._aliases = aliases
        self._clock = clock
        self._listed: dict[str, tuple[float, frozenset[str]]] = {}
        self._executed: Provider | None = None

    def use_executor(self, provider: Provider) -> None:
        """Wires the executed lane in; the executor itself needs the endpoints of these accounts."""
        self._executed = provider

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def get(self, name: str) -> Account:
        """The account of that name; KeyError when the settings no longer have it."""
        return self._accounts[name]

    def kind(self, name: str) -> str:
        """The kind of an account; its name when the settings no longer have it."""
        return self._accounts[name].kind if name in self._accounts else name

    def priced_as(self, name: str, model: str) -> str:
        """The name under which prices know a model of this account."""
        return self._accounts[name].priced_as(model) if name in self._accounts else model

    def native_endpoints(self) -> set[str]:
        """Every endpoint that some native lane takes."""
        lanes = (account.native for account in self._accounts.values() if account.native)
        return {endpoint for lane in lanes for endpoint in lane.limits("").endpoints}

    def endpoints(self) -> dict[str, Endpoint]:
        """Where executed lines go, by account."""
        return {name: account.endpoint for name, account in self._accounts.items() if account.endpoint}

    def provider(self, route: Route) -> Provider:
        """Who carries the jobs of a route; ProviderError-free: KeyError when the account is gone."""
        account = self._accounts[route.account]
        native = account.native and Metered(account.name, account.native)
        carrier = native if route.lane == "native" else self._executed
        if carrier is None:
            raise KeyError(f"{route.account} has no {route.lane} lane")
        return carrier

    def find(self, word: str) -> list[Account]:
        """The accounts that a word means: an account's name, else a kind, else an alias of a kind."""
        if word in self._accounts:
            return [self._accounts[word]]
        kind = self._aliases.get(word, word)
        return [account for account in self._accounts.values() if account.kind == kind]

    async def routes(self, model: str, want: Want) -> tuple[Route, ...]:
        """Where lines with this model may go, the preferred route first; NoRoute with near names when nowhere."""
        found: list[Route] = []
        refused: NoRoute | None = None
        for account, native_name in await self._candidates(model, want.forced):
            lane = _lane(account, native_name, want)
            if lane:
                found.append(Route(account=account.name, model=native_name, lane=lane))
                continue
            refused = NoRoute(
                "invalid_url", f"The model '{model}' ({account.name}) does not support {want.endpoint} in this window."
            )
        if found:
            return tuple(dict.fromkeys(found))
        raise refused or NoRoute("model_not_found", await self._unknown(model, want.forced))

    async def names(self) -> list[tuple[str, str]]:
        """Every (name, account) that lines may use, as far as it is known."""
        named = [(name, routes[0].partition("/")[0]) for name, routes in self._names.items() if routes]
        await self._refresh()
        for account in self._accounts.values():
            listed = account.models or sorted(self._served(account))
            named += [(f"{account.name}/{model}", account.name) for model in listed]
        return named

    async def _candidates(self, model: str, forced: str | None) -> list[tuple[Account, str]]:
        prefix, slash, rest = model.partition("/")
        if forced:
            named = self.find(forced)
            bare = rest if slash and self.find(prefix) else model
            return [(account, bare) for account in named]
        if model in self._names:
            return [pair for text in self._names[model] for pair in self._prefixed(text)]
        if slash and (pairs := self._prefixed(model)):
            return pairs
        return await self._bare(model)

    def _prefixed(self, text: str) -> list[tuple[Account, str]]:
        prefix, _, rest = text.partition("/")
        return [(account, rest) for account in self.find(prefix)]

    async def _bare(self, model: str) -> list[tuple[Account, str]]:
        everyone = list(self._accounts.values())
        configured = [account for account in everyone if model in account.models]
        chosen = configured or [account for account in everyone if account.known(model)]
        if not chosen:
            await self._refresh()
            chosen = [account for account in everyone if model in self._served(account)]
        return [(account, model) for account in chosen]

    def _served(self, account: Account) -> frozenset[str]:
        return self._listed.get(account.name, (0.0, frozenset[str]()))[1]

    async def _refresh(self) -> None:
        """Asks the servers whose list is old; one that does not answer keeps the list it had."""
        now = self._clock()
        stale = [
            self._list(account, account.list_models, now)
            for account in self._accounts.values()
            if account.list_models and self._listed.get(account.name, (0.0, None))[0] < now - NAMES_TTL
        ]
        await asyncio.gather(*stale)

    async def _list(self, account: Account, ask: Callable[[], Awaitable[list[str]]], now: float) -> None:
        try:
            self._listed[account.name] = (now, frozenset(await ask()))
        except ProviderError as error:
            log.warning("the models of %s cannot be listed: %s", account.name, error.message)
            self._listed[account.name] = (now, self._served(account))

    async def _unknown(self, model: str, forced: str | None) -> str:
        if forced and not self.find(forced):
            near = difflib.get_close_matches(forced, self._accounts, n=3)
            return f"No provider '{forced}' is configured. " + _list_of("Configured", near or list(self._accounts))
        known = [name for name, _ in await self.names()]
        bare = [name.partition("/")[2] for name in known]
        near = difflib.get_close_matches(model, known + bare, n=3, cutoff=0.5)
        return f"The provided model '{model}' is not supported by the Batch API. " + _list_of("Near names", near)


def _lane(account: Account, model: str, want: Want) -> str | None:
    if account.native:
        limits = account.native.limits(model)
        if want.endpoint in limits.endpoints and want.window >= limits.windows[0]:
            return "native"
    return "executed" if account.endpoint else None


def _list_of(title: str, names: list[str]) -> str:
    return (
        f"{title}: {', '.join(names)}."
        if names
        else "No route serves it: see `providers` and `models` in the settings."
    )

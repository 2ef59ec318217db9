"""The operations of admins: keys, projects, budgets and the audit log; as in `calls.py`, data and no I/O.

In an update what is not given stays as it is, and None takes a rule away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack

from msgspec import UNSET, UnsetType

from batchway.sdk.call import Call, Options, call, segment
from batchway.sdk.calls import Order, page
from batchway.sdk.objects import (
    AuditPage,
    GatewayBudget,
    Key,
    KeyDeleted,
    KeyPage,
    Project,
    ProjectDeleted,
    ProjectPage,
    made,
)

Names = Sequence[str]
Budget = Mapping[str, str]
Limits = Mapping[str, int | None]
Scope = Literal["read", "write", "admin"]
OnBudget = Literal["reject", "pause"]
Redaction = Literal["none", "hash", "drop"]


# Keys -----------------------------------------------------------------------------------------------------------------


def create_key(  # noqa: PLR0913 - public API
    name: str,
    project: str = "default",
    *,
    scopes: Sequence[Scope] | None = None,
    models: Names | None = None,
    providers: Names | None = None,
    cidrs: Names | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    on_budget: OnBudget | None = None,
    private: bool | None = None,
    expires_at: int | None = None,
    **options: Unpack[Options],
) -> Call[Key]:
    """Makes a virtual key (admin). Its secret, `key`, is in this answer and nowhere else.

    Args:
        name: What people know it by.
        project: Who owns what it makes; one that does not exist yet is made.
        scopes: `read` and `write` without it; `admin` may do everything.
        models: Patterns such as `gpt-4o*` of the models that its lines may name; without it every one.
        providers: The accounts that its lines may go to; without it every one.
        cidrs: The networks that it may be used from, such as `10.0.0.0/8`; without it from everywhere.
        limits: Any of enqueued_tokens, active_batches, file_bytes, uploads_per_day, requests_per_minute.
        budget: `{"usd": "12.50", "period": "day" | "month" | "total"}`.
        on_budget: What becomes of a batch over budget: `reject`, or `pause` until there is money.
        private: No other key of the project but admins' sees what it makes.
        expires_at: When it ends, in unix seconds.
        options: See `Options`.
    """
    fields = {
        "name": name,
        "project": project,
        "scopes": scopes,
        "models": models,
        "providers": providers,
        "cidrs": cidrs,
        "limits": limits,
        "budget": budget,
        "on_budget": on_budget,
        "private": private,
        "expires_at": expires_at,
    }
    # Without an Idempotency-Key: a repeated create would be answered without the secret, so it is not repeated.
    return call("create_key", "POST /keys", partial(made, Key), options, json=fields)


def retrieve_key(key_id: str, **options: Unpack[Options]) -> Call[Key]:
    """Returns a key without its secret (admin)."""
    return call("retrieve_key", f"GET /keys/{segment(key_id, 'key_id')}", partial(made, Key), options)


def list_keys(
    *,
    limit: int | None = None,
    after: str | None = None,
    order: Order | None = None,
    project: str | None = None,
    **options: Unpack[Options],
) -> Call[KeyPage]:
    """Returns a page of keys without their secrets, newest first (admin); `limit` is 1 to 100."""
    query = {"project": project, **page(limit, after, order)}
    return call("list_keys", "GET /keys", partial(made, KeyPage), options, query=query)


def update_key(  # noqa: PLR0913 - public API
    key_id: str,
    *,
    name: str | UnsetType = UNSET,
    scopes: Sequence[Scope] | UnsetType = UNSET,
    models: Names | UnsetType | None = UNSET,
    providers: Names | UnsetType | None = UNSET,
    cidrs: Names | UnsetType | None = UNSET,
    limits: Limits | UnsetType | None = UNSET,
    budget: Budget | UnsetType | None = UNSET,
    on_budget: OnBudget | UnsetType = UNSET,
    private: bool | UnsetType = UNSET,
    disabled: bool | UnsetType = UNSET,
    expires_at: int | UnsetType | None = UNSET,
    **options: Unpack[Options],
) -> Call[Key]:
    """Changes a key (admin): what is given; None takes a rule away. The fields are those of `create_key`.

    A disabled key lets nobody in until `disabled=False`.
    """
    fields = {
        "name": name,
        "scopes": scopes,
        "models": models,
        "providers": providers,
        "cidrs": cidrs,
        "limits": limits,
        "budget": budget,
        "on_budget": on_budget,
        "private": private,
        "disabled": disabled,
        "expires_at": expires_at,
    }
    return _change("update_key", f"POST /keys/{segment(key_id, 'key_id')}", Key, options, fields)


def rotate_key(key_id: str, grace_seconds: int | None = None, **options: Unpack[Options]) -> Call[Key]:
    """Gives a key a new secret, `key`, in this answer and nowhere else (admin).

    The old one lets in for `grace_seconds` more, an hour without it.
    """
    route = f"POST /keys/{segment(key_id, 'key_id')}/rotate"
    return call("rotate_key", route, partial(made, Key), options, json={"grace_seconds": grace_seconds})


def delete_key(key_id: str, **options: Unpack[Options]) -> Call[KeyDeleted]:
    """Lets a key in no more (admin)."""
    return call("delete_key", f"DELETE /keys/{segment(key_id, 'key_id')}", partial(made, KeyDeleted), options)


# Projects -------------------------------------------------------------------------------------------------------------


def create_project(  # noqa: PLR0913 - public API
    name: str,
    *,
    sharing: bool | None = None,
    redaction: Redaction | None = None,
    models: Names | None = None,
    providers: Names | None = None,
    limits: Limits | None = None,
    budget: Budget | None = None,
    **options: Unpack[Options],
) -> Call[Project]:
    """Makes a project (admin).

    Args:
        name: Its id for good: letters, digits, `.`, `_` and `-`.
        sharing: Whether its keys see what other keys of it make, as they do without it.
        redaction: What line records for receivers hold of requests and responses: all (`none`), `hash`, or `drop`.
        models: As for a key; the lines of all its keys obey both.
        providers: As for a key.
        limits: As for a key, for all its keys together.
        budget: As for a key, for all its keys together.
        options: See `Options`.
    """
    fields = {
        "name": name,
        "sharing": sharing,
        "redaction": redaction,
        "models": models,
        "providers": providers,
        "limits": limits,
        "budget": budget,
    }
    return call("create_project", "POST /projects", partial(made, Project), options, json=fields, once=True)


def retrieve_project(project: str, **options: Unpack[Options]) -> Call[Project]:
    """Returns a project (admin)."""
    return call("retrieve_project", f"GET /projects/{segment(project, 'project')}", partial(made, Project), options)


def list_projects(
    *, limit: int | None = None, after: str | None = None, order: Order | None = None, **options: Unpack[Options]
) -> Call[ProjectPage]:
    """Returns a page of projects, newest first (admin); `limit` is 1 to 100."""
    query = page(limit, after, order)
    return call("list_projects", "GET /projects", partial(made, ProjectPage), options, query=query)


def update_project(  # noqa: PLR0913 - public API
    project: str,
    *,
    sharing: bool | UnsetType = UNSET,
    redaction: Redaction | UnsetType = UNSET,
    models: Names | UnsetType | None = UNSET,
    providers: Names | UnsetType | None = UNSET,
    limits: Limits | UnsetType | None = UNSET,
    budget: Budget | UnsetType | None = UNSET,
    **options: Unpack[Options],
) -> Call[Project]:
    """Changes a project (admin): what is given; None takes a rule away. The fields are those of `create_project`."""
    fields = {
        "sharing": sharing,
        "redaction": redaction,
        "models": models,
        "providers": providers,
        "limits": limits,
        "budget": budget,
    }
    return _change("update_project", f"POST /projects/{segment(project, 'project')}", Project, options, fields)


def delete_project(project: str, **options: Unpack[Options]) -> Call[ProjectDeleted]:
    """Ends a project (admin); ConflictError while it has keys or batches that have not ended."""
    route = f"DELETE /projects/{segment(project, 'project')}"
    return call("delete_project", route, partial(made, ProjectDeleted), options)


# The gateway ----------------------------------------------------------------------------------------------------------


def retrieve_budget(**options: Unpack[Options]) -> Call[GatewayBudget]:
    """Returns the budget of the whole gateway and what is left of it (admin)."""
    return call("retrieve_budget", "GET /budget", partial(made, GatewayBudget), options)


def set_budget(budget: Budget | None, **options: Unpack[Options]) -> Call[GatewayBudget]:
    """Sets the budget of the whole gateway, `{"usd", "period"}`, or takes it away (admin)."""
    return _change("set_budget", "POST /budget", GatewayBudget, options, {"budget": budget})


def list_audit(  # noqa: PLR0913 - public API
    *,
    limit: int | None = None,
    after: str | None = None,
    order: Order | None = None,
    action: str | None = None,
    target: str | None = None,
    key_id: str | None = None,
    created_after: int | None = None,
    created_before: int | None = None,
    **options: Unpack[Options],
) -> Call[AuditPage]:
    """Returns a page of what admins did, newest first (admin); times are unix seconds."""
    query = {
        **page(limit, after, order),
        "action": action,
        "target": target,
        "key_id": key_id,
        "created_after": created_after,
        "created_before": created_before,
    }
    return call("list_audit", "GET /audit", partial(made, AuditPage), options, query=query)


def _change(name: str, route: str, kind: type[Any], options: Options, fields: Mapping[str, Any]) -> Call[Any]:
    """A POST of the fields that were given, None among them."""
    given = {field: value for field, value in fields.items() if value is not UNSET}
    options["extra_body"] = {**given, **(options.get("extra_body") or {})}
    return call(name, route, partial(made, kind), options, json={}, repeatable=True)

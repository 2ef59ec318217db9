"""Fixtures for every test: one PostgreSQL server a session."""

from __future__ import annotations

from tests.postgres import postgres

__all__ = ["postgres"]

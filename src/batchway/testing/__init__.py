"""Conformance suites, shipped: whoever adds a part proves with them that it keeps its contract.

Each is a class of pytest tests; a subclass provides the fixture that its docstring names.
"""

from __future__ import annotations

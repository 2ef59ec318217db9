"""The one transactional store: SQLite in WAL mode by default, PostgreSQL when it outgrows one machine.

Statements are functions over a transaction (`tx` first); the stage that calls them owns the transaction. Bytes never
live here, they live in storage. `transitions.py` alone writes a status.
"""

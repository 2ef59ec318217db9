"""Who is told of events, one folder or module a receiver: see `protocol.py` and `registry.py`."""

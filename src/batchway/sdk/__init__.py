"""The Python SDK: every operation is data (`calls.py`), made into an answer by one core (`caller.py`).

The core is written once, as coroutines. `AsyncClient` awaits them; `Client` plays them to their end without an event
loop, which works because its transport blocks instead of suspending. Nothing here knows more of Batchway than the wire.
"""

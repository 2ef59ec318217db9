"""The HTTP door: one table of operations becomes the routes, the checks of every request and the OpenAPI document.

A request meets, in this order: `edge.py` (request id, log line, errors as envelopes), `routing.py` (spelling and
operation), `auth.py` (who asks), `decoding.py` (query and body as structs), the handler in `routes/`.
"""

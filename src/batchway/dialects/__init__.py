"""Forms of bodies, OpenAI <-> native: pure functions, no I/O.

A provider chooses a dialect; a dialect knows no provider.
"""

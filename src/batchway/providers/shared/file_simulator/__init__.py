"""A provider's files and batches in OpenAI's shape, imitated over real HTTP; each provider's simulator is thin over it.

The parts: `files` `batches` `sync` (routes), `life` (states of a batch by the virtual clock), `lines` (validation and
results), `answers` (what a model says), `store` (what is remembered), `app` (all of it served), and `flavor`: all in
which providers differ. Invariant: nothing here shares code with the gateway's own OpenAI surface or its clients, so one
cannot hide the other's mistakes.
"""

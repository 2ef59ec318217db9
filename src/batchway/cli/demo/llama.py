"""The child process that serves one GGUF model over llama.cpp's own HTTP server, until its stdin closes.

It is started by `model.py` (`python -m batchway.cli.demo.llama SETTINGS`, a JSON object), and prints one JSON line with
the address once the model is loaded. Waiting for the end of stdin ties its life to its parent's: also a parent that was
killed leaves no model behind.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def serve(settings: dict[str, Any]) -> None:
    """Serves the model at `settings["gguf"]` on a free loopback port; `model.py` writes the settings."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.model_alias = {settings["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = settings["api_keys"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.ui = False
    # With mean pooling one server answers both chat and embeddings; without it embeddings are refused with a 400.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()
    # llama.cpp waits for open connections when it is destroyed; clients that keep theirs alive would hold us here.
    os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

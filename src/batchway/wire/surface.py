"""Names of OpenAI's HTTP surface that are no shapes: where they come from is not who serves them."""

from __future__ import annotations

PROCESSING_HEADER = b"openai-processing-ms"  # an answer's header: milliseconds of work
CLASSIC_SEGMENT = "openai"  # the first path segment of Azure's spelling of the same API

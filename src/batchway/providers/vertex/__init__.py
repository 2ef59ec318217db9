"""Vertex AI batch inference: Gemini, Claude and embeddings over a bucket. See README.md in this folder."""

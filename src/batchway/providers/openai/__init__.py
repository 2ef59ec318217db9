"""OpenAI, all of it: the provider, its native shapes, its simulator and samples."""

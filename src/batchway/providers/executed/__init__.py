"""Our own executor, seen as a batch provider; and accounts that are nothing but an OpenAI-compatible endpoint."""

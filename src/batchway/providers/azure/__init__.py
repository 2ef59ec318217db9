"""Azure OpenAI (Microsoft Foundry), all of it: the provider, its credentials, its blobs, its simulator and samples."""

"""Where a job is sent: one folder a provider, and what they share."""

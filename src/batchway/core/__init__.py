"""The nouns: states, errors, jobs, usage, money, events, ids. Pure: no module here reads, writes or waits."""

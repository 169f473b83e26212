"""Work beside the runs: look-ups, messages, housekeeping, preflight."""

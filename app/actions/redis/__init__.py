"""Actions on Redis."""

"""Metrics and logs about our own work."""

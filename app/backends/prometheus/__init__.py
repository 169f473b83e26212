"""Prometheus: the values of series."""

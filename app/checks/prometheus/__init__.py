"""Checks that ask Prometheus."""

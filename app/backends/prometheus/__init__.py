"""Prometheus: what series say."""

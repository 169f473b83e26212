"""Alertmanager: which alerts fire."""

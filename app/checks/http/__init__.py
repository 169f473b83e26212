"""Checks by HTTP."""

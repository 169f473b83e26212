"""Runs, episodes and what belongs to them."""

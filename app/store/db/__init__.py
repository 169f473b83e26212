"""Connections, the schema, and how transactions are made."""

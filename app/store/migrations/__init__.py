"""Migrations of the schema, and the upgrade of rows that an older release wrote."""

"""Checks: what is observed before the steps (`when`) and after them (`verify`). One file each."""

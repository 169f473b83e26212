"""The walk of an alert: take in, plan, guard, apply, verify, close. Start with `pipeline`."""

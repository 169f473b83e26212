"""The run ledger and the inbox: the only place that speaks SQL about our own state."""

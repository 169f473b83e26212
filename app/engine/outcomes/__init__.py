"""What follows from how a run ends, and what people decide about it."""

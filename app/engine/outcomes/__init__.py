"""The consequences of a run's end, and people's decisions about runs."""

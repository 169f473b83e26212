"""The HTTP edge: the only place that knows the web framework."""

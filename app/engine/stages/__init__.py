"""The stages of a run, in the order of `app.engine.pipeline`."""

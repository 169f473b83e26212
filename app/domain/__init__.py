"""Values and rules of the remediator: no I/O, no SDK, no clock."""

"""A backend of the remediator: commands on hosts, over SSH."""

"""The remediator: Prometheus alerts in, safe, verified and audited remediations out."""

__version__ = "0.1.0"

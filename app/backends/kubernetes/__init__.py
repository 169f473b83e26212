"""Kubernetes: workloads of a cluster."""

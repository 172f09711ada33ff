"""Operators for Kubernetes; they arrive with the release that runs on clusters."""

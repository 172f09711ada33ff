"""Kubernetes from the client's side: the only package of the platform that imports its client."""

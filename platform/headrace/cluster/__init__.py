"""Kubernetes from the client's side: the only package of the platform that imports its client."""

from headrace.cluster.cluster import Cluster, Seen
from headrace.cluster.connection import connect
from headrace.cluster.kinds import LEASE, MODEL_DEPLOYMENT, POD, TRAINING_RUN, Kind, Object

__all__ = ["LEASE", "MODEL_DEPLOYMENT", "POD", "TRAINING_RUN", "Cluster", "Kind", "Object", "Seen", "connect"]

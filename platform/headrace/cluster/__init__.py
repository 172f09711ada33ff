"""Kubernetes from the client's side: the only package of the platform that imports its client."""

from headrace.api.kinds import LEASE, MODEL_DEPLOYMENT, POD, TRAINING_RUN, Kind, Object
from headrace.cluster.cluster import Cluster, Seen
from headrace.cluster.connection import connect

__all__ = ["LEASE", "MODEL_DEPLOYMENT", "POD", "TRAINING_RUN", "Cluster", "Kind", "Object", "Seen", "connect"]

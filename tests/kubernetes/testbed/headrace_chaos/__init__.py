"""A storm: the operator is killed, the API server restarted, over and over, while runs and deployments come and change.

Afterwards the API server's audit log and what is left in it must tell of exactly one RayJob an attempt, honest counts,
and the ends that were written into each run's script. `make chaos` plays the long one.
"""

"""Operators for Kubernetes: TrainingRun, ModelDeployment and ModelMonitor on a controller runtime of their own."""

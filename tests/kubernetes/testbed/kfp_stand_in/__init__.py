"""A stand-in for Kubeflow Pipelines' v2beta1 API. It is not Kubeflow: nothing that it says proves that Kubeflow does.

A real backend cannot be built from the package registries. What was seen of one (2.17, Argo 4.0.8, on a real node) is
written down in the team's KUBEFLOW.md; this package answers as that page says, and
`tests/local/test_kubeflow_stand_in.py` holds it to each of its facts. It carries a run's steps out, if asked to, by the
very commands of the compiled pipeline and with the environment that it asks for, so that a submission ends with real
results.
"""

from kfp_stand_in.programs import Programs
from kfp_stand_in.script import Failed, Script, StepTask
from kfp_stand_in.server import KubeflowStandIn
from kfp_stand_in.world import Beats, World

__all__ = ["Beats", "Failed", "KubeflowStandIn", "Programs", "Script", "StepTask", "World"]

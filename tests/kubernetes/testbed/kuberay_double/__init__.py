"""KubeRay's double: a program that plays KubeRay, the kubelet and Ray to the operators under test. It is not KubeRay.

The kubernetes tier has no node, so the real KubeRay (tests/kubernetes/conftest.py) gets no pod to run there; whole jobs
and services, thousands of them, under kills, need somebody who says what KubeRay would say. This package follows
KubeRay 1.6's own reconcile functions step by step; the table in `kuberay_scenarios` holds it to the real one.
"""

from kuberay_double.double import Intervals, JobsDouble, KubeRayDouble
from kuberay_double.front import FrontDouble
from kuberay_double.script import Behaviour, Script

__all__ = ["Behaviour", "FrontDouble", "Intervals", "JobsDouble", "KubeRayDouble", "Script"]

"""The four components. Each is one call into `headrace.steps`: what a step does is the platform's, not Kubeflow's.

kfp copies the source of these functions into the pipeline, so they import inside and say nothing that is not needed.
Values are strings only: kfp turns integers into floats, replaces "python3" inside texts, and crashes on None.
Annotations are not postponed here because kfp reads them.

`request` and `job_id` are for scheduled runs, which begin without an id: `run_of` makes theirs of the two.
"""

from kfp import dsl

# No registry and no tag: whoever submits the pipeline puts the target's image here; kfp.local reads "python" in it.
IMAGE = "headrace-python"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def split(
    split_spec: str,
    source_fingerprint: str,
    run_id: str,
    attempt: str,
    request: str,
    job_id: str,
    dataset: dsl.Output[dsl.Dataset],
) -> str:
    """Data to a manifest. Returns the split's fingerprint."""
    from headrace.steps import split as step
    from headrace.steps.scheduled import run_of

    return step.split(split_spec, run_of(run_id, request, job_id), attempt, source_fingerprint, dataset)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    train_spec: str,
    split_fingerprint: str,
    champion: str,
    run_id: str,
    attempt: str,
    request: str,
    job_id: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """A trained model, measured on the test split beside the champion. Returns the URI of the step's result."""
    from headrace.steps import train as step
    from headrace.steps.scheduled import run_of

    run_id = run_of(run_id, request, job_id)
    return step.train(train_spec, split_fingerprint, champion, run_id, attempt, model, metrics)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    register_spec: str,
    deploy_spec: str,
    train_spec: str,
    training: str,
    run_id: str,
    attempt: str,
    request: str,
    job_id: str,
    model: dsl.Output[dsl.Model],
) -> str:
    """The gate's verdict, and the model in the registry. Returns the URI of the step's result."""
    from headrace.steps import register as step
    from headrace.steps.scheduled import run_of

    run_id = run_of(run_id, request, job_id)
    return step.register(register_spec, deploy_spec, train_spec, training, run_id, attempt, model)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy(
    deploy_spec: str,
    register_spec: str,
    registration: str,
    run_id: str,
    attempt: str,
    request: str,
    job_id: str,
) -> str:
    """The registered version answers, then the alias moves. Returns the endpoint's URL."""
    from headrace.steps import deploy as step
    from headrace.steps.scheduled import run_of

    run_id = run_of(run_id, request, job_id)
    return step.deploy(deploy_spec, register_spec, registration, run_id, attempt)

"""The one pipeline: what kfp.local runs on a laptop and Kubeflow on a cluster, for every spec."""

from kfp import dsl

from headrace_pipelines import components
from headrace_pipelines.pods import in_the_workspace

NAME = "headrace"


@dsl.pipeline(name=NAME, description="split, train, register, deploy: one model's life, from one spec.")
def headrace_pipeline(
    split_spec: str,
    train_spec: str,
    register_spec: str = "",
    deploy_spec: str = "",
    run_id: str = "",
    attempt: str = "1",
    source_fingerprint: str = "at-run",
    champion: str = "",
    request: str = "",
) -> None:
    """A run of one spec.

    Args:
        split_spec: URI in the store of what the split step reads, as are the three that follow.
        train_spec: of the train step.
        register_spec: of the register step; empty for a run that neither gates nor registers.
        deploy_spec: of the deploy step; empty for a run that does not serve.
        run_id: Headrace's id of the run; empty for a scheduled one, whose steps derive it.
        attempt: the run's attempt, a number.
        source_fingerprint: of the data's listing when the run started; "at-run" lists it in the split step.
        champion: the version that the gate measures against, as "digits@champion"; empty for none.
        request: URI in the store of what a scheduled run is asked for; empty for others.
    """
    common = {"run_id": run_id, "attempt": attempt, "request": request, "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    split = components.split(split_spec=split_spec, source_fingerprint=source_fingerprint, **common)
    in_the_workspace(split)
    train = components.train(
        train_spec=train_spec, split_fingerprint=split.outputs["Output"], champion=champion, **common
    )
    in_the_workspace(train)
    with dsl.If(register_spec != "", name="registers"):
        register = components.register(
            register_spec=register_spec,
            deploy_spec=deploy_spec,
            train_spec=train_spec,
            training=train.outputs["Output"],
            **common,
        )
        in_the_workspace(register)
        with dsl.If(deploy_spec != "", name="deploys"):
            deploy = components.deploy(
                deploy_spec=deploy_spec, register_spec=register_spec, registration=register.outputs["Output"], **common
            )
            in_the_workspace(deploy)

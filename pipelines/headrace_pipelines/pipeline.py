"""The one pipeline: what kfp.local runs on a laptop and Kubeflow on a cluster, for every spec."""

from kfp import dsl

from headrace_pipelines import components

NAME = "headrace"


@dsl.pipeline(name=NAME, description="split, train, register, deploy: one model's life, from one spec.")
def headrace_pipeline(
    run_id: str,
    attempt: str,
    split_spec: str,
    train_spec: str,
    register_spec: str = "",
    deploy_spec: str = "",
    source_fingerprint: str = "at-run",
    champion: str = "",
) -> None:
    """A run of one spec.

    Args:
        run_id: Headrace's id of the run.
        attempt: the run's attempt, a number.
        split_spec: URI in the store of what the split step reads, as are the three that follow.
        train_spec: of the train step.
        register_spec: of the register step; empty for a run that neither gates nor registers.
        deploy_spec: of the deploy step; empty for a run that does not serve.
        source_fingerprint: of the data's listing when the run started; "at-run" lists it in the split step.
        champion: the version that the gate measures against, as "digits@champion"; empty for none.
    """
    # Kubeflow's cache knows neither our code nor the data; each step looks into the store.
    split = components.split(
        split_spec=split_spec, run_id=run_id, attempt=attempt, source_fingerprint=source_fingerprint
    ).set_caching_options(False)
    train = components.train(
        train_spec=train_spec,
        split_fingerprint=split.outputs["Output"],
        champion=champion,
        run_id=run_id,
        attempt=attempt,
    ).set_caching_options(False)
    with dsl.If(register_spec != "", name="registers"):
        register = components.register(
            register_spec=register_spec,
            deploy_spec=deploy_spec,
            train_spec=train_spec,
            training=train.outputs["Output"],
            run_id=run_id,
            attempt=attempt,
        ).set_caching_options(False)
        with dsl.If(deploy_spec != "", name="deploys"):
            components.deploy(
                deploy_spec=deploy_spec,
                register_spec=register_spec,
                registration=register.outputs["Output"],
                run_id=run_id,
                attempt=attempt,
            ).set_caching_options(False)

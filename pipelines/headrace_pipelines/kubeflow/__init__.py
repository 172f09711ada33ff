"""Runs on Kubeflow Pipelines: the same pipeline as on a laptop, sent to a target and followed from anywhere.

    ir           the compiled pipeline with a target's image, and its arguments checked
    credentials  the bearer token, read anew for every request
    answers      what the API's errors mean
    connection   the one user of kfp.Client: calls, with patience where the server is gone for a while
    pages        its lists, read to their end
    uploads      the pipeline, once for each content
    api          what is asked of Kubeflow, as plain values
    tasks        what Kubeflow says of a run's tasks, without what is not ours
    beats        where a run's time went: into its steps, or into Kubeflow
    cluster      a target's store and Kubeflow
    submission   what the store knows of a run on a cluster, and how one is sent
    words        what the steps of an attempt said, in the store
    verdict      how a run stands or ended, of all that is known
    reasons      why a step failed or does not start, from pods and artifacts
    absence      a server that is away while a run is followed
    watch        what Kubeflow is at between the words of steps
    following    what a follower is told, as it comes, and the deadline
    run          one run, seen from outside: status, follow, cancel, resume, logs
    schedule     runs by the clock

Nothing here imports kfp until Kubeflow is asked something.
"""

"""What is asked of Kubeflow, as plain values: uploads once a content, runs once a name, pages to their end.

Whatever makes something can be asked again after an answer was lost: it looks whether the thing is there before it
makes a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.base.errors import Unavailable
from headrace_pipelines.kubeflow.answers import Refused
from headrace_pipelines.kubeflow.connection import Connection
from headrace_pipelines.kubeflow.ir import Ir
from headrace_pipelines.kubeflow.pages import PAGE, Record, named, pages
from headrace_pipelines.kubeflow.uploads import Uploads


class Kubeflow:
    """The API of one target. Every method raises what `Connection.call` does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def host(self) -> str:
        """Its address."""
        return self.connection.host

    @property
    def _namespace(self) -> str | None:
        return self.connection.kubeflow.namespace

    def version_of(self, ir: Ir) -> tuple[str, str]:
        """The ids of the pipeline and of the version that IR is, uploaded where they are not there yet."""
        return Uploads(self.connection).version_of(ir)

    def experiment(self, name: str) -> str:
        """The id of the experiment NAME, made where there is none."""

        def make(client: Any) -> Any:
            return client.create_experiment(name, namespace=self._namespace)

        try:
            made = self.connection.call("make the experiment", make)
        except Refused as refused:
            if refused.status != 409:
                raise
            made = self.connection.call("make the experiment", make)  # somebody else just did: it is found now
        return str(made["experiment_id"])

    # runs

    def create_run(
        self, name: str, *, experiment: str, pipeline: str, version: str, arguments: Mapping[str, Any]
    ) -> Record:
        """The run NAME, made unless one of that name is there already."""
        settings = self.connection.kubeflow

        def create(client: Any) -> Any:
            return client.run_pipeline(
                experiment,
                name,
                params=dict(arguments),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=settings.pipeline_root,
                enable_caching=None,
                service_account=settings.service_account,
            )

        try:
            made: Record = self.connection.call("create the run", create, patience_seconds=0.0)
        except Unavailable:  # the answer may be what was lost: look before a second one is made
            found = self.find_run(experiment, name)
            return found if found is not None else self._created_again(create)
        return made

    def _created_again(self, create: Callable[[Any], Any]) -> Record:
        made: Record = self.connection.call("create the run", create, patience_seconds=0.0)
        return made

    def find_run(self, experiment: str | None, name: str) -> Record | None:
        """The newest run of that display name, or None."""
        wanted = named("display_name", name)
        for found in pages(
            self.connection,
            "list runs",
            "runs",
            lambda client, token: client.list_runs(
                page_token=token,
                page_size=PAGE,
                sort_by="created_at desc",
                experiment_id=experiment,
                namespace=None if experiment else self._namespace,
                filter=wanted,
            ),
        ):
            if found.get("display_name") == name:
                return found
        return None

    def run(self, run_id: str, *, patience_seconds: float | None = None) -> Record | None:
        """What Kubeflow says of the run that it calls RUN_ID; None where it knows it not, or no more."""
        try:
            found: Record = self.connection.call(
                "read the run", lambda client: client.get_run(run_id), patience_seconds=patience_seconds
            )
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return found

    def terminate(self, run_id: str) -> None:
        """Ask the run to end. One that has ended, or was asked before, stays as it is."""
        try:
            self.connection.call("end the run", lambda client: client.terminate_run(run_id))
        except Refused as refused:
            if refused.status not in {400, 404}:
                raise

    # recurring runs

    def create_recurring_run(
        self, name: str, cron: str, *, experiment: str, pipeline: str, version: str, arguments: Mapping[str, Any]
    ) -> Record:
        """A run by the clock: one at a time, and none made up for that was missed."""
        settings = self.connection.kubeflow
        made: Record = self.connection.call(
            "create the schedule",
            lambda client: client.create_recurring_run(
                experiment,
                name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=dict(arguments),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=settings.pipeline_root,
                service_account=settings.service_account,
            ),
            patience_seconds=0.0,  # not made twice: whoever asks again is told that it is there
        )
        return made

    def recurring_runs(self) -> list[Record]:
        """Every recurring run of the namespace."""
        return list(
            pages(
                self.connection,
                "list schedules",
                "recurringRuns",
                lambda client, token: client.list_recurring_runs(
                    page_token=token, page_size=PAGE, namespace=self._namespace
                ),
            )
        )

    def delete_recurring_run(self, identity: str) -> None:
        """Make no more of its runs."""
        self.connection.call("delete the schedule", lambda client: client.delete_recurring_run(identity))

    def pause_recurring_run(self, identity: str) -> None:
        """Make none of its runs for now."""
        self.connection.call("pause the schedule", lambda client: client.disable_recurring_run(identity))

    def continue_recurring_run(self, identity: str) -> None:
        """Make its runs again."""
        self.connection.call("continue the schedule", lambda client: client.enable_recurring_run(identity))

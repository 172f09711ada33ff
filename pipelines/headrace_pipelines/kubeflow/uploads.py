"""The pipeline in Kubeflow: uploaded once for each content, whoever uploads it first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from headrace_pipelines.kubeflow.answers import Refused
from headrace_pipelines.kubeflow.connection import Connection
from headrace_pipelines.kubeflow.ir import PIPELINE, Ir
from headrace_pipelines.kubeflow.pages import PAGE, named, pages


class Uploads:
    """The pipelines of one Kubeflow. Every method raises what `Connection.call` does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def _namespace(self) -> str | None:
        return self.connection.kubeflow.namespace

    def version_of(self, ir: Ir) -> tuple[str, str]:
        """The ids of the pipeline and of the version that IR is, uploaded where they are not there yet."""
        pipeline = self._pipeline() or self._made(
            lambda path: self._upload_pipeline(path), ir, lambda: self._pipeline()
        )
        version = self._version(pipeline, ir.version) or self._made(
            lambda path: self._upload_version(path, pipeline, ir.version),
            ir,
            lambda: self._version(pipeline, ir.version),
        )
        return pipeline, version

    def _made(self, upload: Callable[[str], str], ir: Ir, find: Callable[[], str | None]) -> str:
        """What UPLOAD makes of a file with IR; what FIND finds where somebody else was quicker."""
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(ir.text, encoding="utf-8")
            try:
                return upload(str(path))
            except Refused as refused:
                found = find() if refused.status == 409 else None
                if found is None:
                    raise
                return found

    def _upload_pipeline(self, path: str) -> str:
        made = self.connection.call(
            "upload the pipeline",
            lambda client: client.upload_pipeline(path, pipeline_name=PIPELINE, namespace=self._namespace),
        )
        return str(made["pipeline_id"])

    def _upload_version(self, path: str, pipeline: str, name: str) -> str:
        made = self.connection.call(
            "upload the pipeline's version",
            lambda client: client.upload_pipeline_version(path, name, pipeline_id=pipeline),
        )
        return str(made["pipeline_version_id"])

    def _pipeline(self) -> str | None:
        wanted = named("display_name", PIPELINE)
        for found in pages(
            self.connection,
            "list pipelines",
            "pipelines",
            lambda client, token: client.list_pipelines(
                page_token=token, page_size=PAGE, filter=wanted, namespace=self._namespace
            ),
        ):
            if found.get("display_name") == PIPELINE:
                return str(found["pipeline_id"])
        return None

    def _version(self, pipeline: str, name: str) -> str | None:
        wanted = named("display_name", name)
        for found in pages(
            self.connection,
            "list the pipeline's versions",
            "pipeline_versions",
            lambda client, token: client.list_pipeline_versions(
                pipeline, page_token=token, page_size=PAGE, filter=wanted
            ),
        ):
            if found.get("display_name") == name:
                return str(found["pipeline_version_id"])
        return None

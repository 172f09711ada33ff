"""The one user of kfp.Client: it makes the client, calls it, and waits where the server is gone for a while.

The client is made as Kubeflow 2.17 needs it: by the target alone, where kfp would also take a namespace, a cookie and
logins from ~/.config/kfp, the environment and Google; the server asked once beforehand, as the constructor would wait
25 seconds in silence where a proxy answers for it; time-outs, which it has none of; answers that are no JSON refused,
of which it makes empty objects; and its prints, meant for notebooks, swallowed.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import httpx

from headrace.base.errors import HeadraceError, InvalidInput, Unavailable
from headrace.spec.targets import Kubeflow
from headrace_pipelines.kubeflow.answers import is_record, page, refusal, unreachable
from headrace_pipelines.kubeflow.credentials import token_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp import Client

PREFIX = "/apis/v2beta1"
TIMEOUT_SECONDS = (10, 60)  # to connect, and between two reads
PATIENCE_SECONDS = 30.0  # for a server that restarts, in a command that a person waits for
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 5.0


class Connection:
    """Kubeflow's API at one address. Nothing is asked before the first call.

    Args:
        patience_seconds: how long a server that does not answer is tried again.
    """

    def __init__(self, kubeflow: Kubeflow, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.kubeflow = kubeflow
        self.patience_seconds = patience_seconds
        self._token = token_of(kubeflow)

    @property
    def host(self) -> str:
        """The address."""
        return self.kubeflow.host

    def call(self, doing: str, ask: Callable[[Client], Any], *, patience_seconds: float | None = None) -> Any:
        """What ASK gives of the client, as plain JSON values. DOING says in an error what was wanted.

        Raises:
            Unavailable: it does not answer, for as long as there was patience.
            Refused: it said no.
            InvalidInput: the token is missing, unknown or without the rights.
        """
        deadline = time.monotonic() + (self.patience_seconds if patience_seconds is None else patience_seconds)
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                return self._once(doing, ask)
            except Unavailable:
                if time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _once(self, doing: str, ask: Callable[[Client], Any]) -> Any:
        with self._foreign_errors(doing):
            client = self._client
            with redirect_stdout(io.StringIO()):
                found = ask(client)
            return _service(client).sanitize_for_serialization(found)

    @contextmanager
    def _foreign_errors(self, doing: str) -> Iterator[None]:
        from kfp_server_api import ApiException  # type: ignore[import-untyped]
        from urllib3.exceptions import HTTPError

        try:
            yield
        except HeadraceError:
            raise
        except ApiException as error:
            raise refusal(int(error.status or 0), str(error.body or error.reason or ""), self.host, doing) from error
        except (HTTPError, TimeoutError, ConnectionError) as error:
            raise unreachable(self.host, getattr(error, "reason", None) or error) from error

    @cached_property
    def _client(self) -> Client:
        """The client, made once the server has answered."""
        self._probe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client = _of_the_target_alone()(
                host=self.host,
                namespace=self.kubeflow.namespace or "",
                credentials=None if self._token is None else _credentials(self._token),
                ssl_ca_cert=self.kubeflow.ca,
                verify_ssl=self.kubeflow.verify,
            )
        rest = _service(client).rest_client
        rest.request = partial(_request, rest.request, self.host)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of each connection that it tries again
        if not self.kubeflow.verify:  # as the target says, for each request
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")
        return client

    def _probe(self) -> None:
        """Ask whether it is well. Raises what `call` raises."""
        headers = {} if self._token is None else {"authorization": f"Bearer {self._token()}"}
        try:
            # no proxy of the environment, as the client takes none either
            with httpx.Client(verify=self._trust(), timeout=TIMEOUT_SECONDS[0], trust_env=False) as http:
                answer = http.get(f"{self.host}{PREFIX}/healthz", headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise unreachable(self.host, error) from error
        if answer.is_redirect or (answer.is_success and not is_record(answer.content)):
            raise page(self.host)
        if answer.status_code == 404:
            raise InvalidInput(
                f"there is no Kubeflow Pipelines at {self.host} ({answer.url} answers 404)",
                action="correct kubeflow.host of the target: often HOST/pipeline, without /apis",
                code="kubeflow-not-there",
            )
        if not answer.is_success:
            raise refusal(answer.status_code, answer.text, self.host, "say whether it is well")
        self._require_namespace(answer.json())

    def _trust(self) -> Any:
        import ssl

        if not self.kubeflow.verify:
            return False
        return True if self.kubeflow.ca is None else ssl.create_default_context(cafile=self.kubeflow.ca)

    def _require_namespace(self, health: dict[str, Any]) -> None:
        if health.get("multi_user") and self.kubeflow.namespace is None:
            raise InvalidInput(
                f"Kubeflow at {self.host} is multi-user, and the target names no namespace",
                action="add kubeflow.namespace, your profile's, to the target",
                code="namespace-missing",
            )


def _of_the_target_alone() -> type[Client]:
    import kfp
    import kfp_server_api

    class Client(kfp.Client):
        """Takes nothing from files, variables and clouds that the target does not name."""

        def _load_context_setting_or_default(self) -> None:
            self._context_setting = {"namespace": ""}

        def _load_config(self, host: str, _client_id: str | None, *rest: Any) -> Any:
            return super()._load_config(host, None, *rest)

        def get_kfp_healthz(self, *_: Any, **__: Any) -> Any:
            """The constructor asks where there is no namespace; `_probe` did, in time, and refused a multi-user one."""
            return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)

        def _is_inverse_proxy_host(self, _host: str) -> bool:
            return False

    return Client


def _credentials(token: Callable[[], str]) -> Any:
    from kfp.client import token_credentials_base

    class Credentials(token_credentials_base.TokenCredentialsBase):
        """The client asks for the token before every request."""

        def refresh_api_key_hook(self, config: Any) -> None:
            """Put the present token into CONFIG."""
            config.api_key["authorization"] = token()

    return Credentials()


def _service(client: Client) -> Any:
    """The API client below CLIENT, one for all its services."""
    return client.runs.run_service_get_run.__self__.api_client


def _request(request: Callable[..., Any], host: str, method: str, url: str, **given: Any) -> Any:
    """What REQUEST, kfp's own, answers: in time, and from Kubeflow itself."""
    from kfp_server_api import ApiException

    given["_request_timeout"] = given.get("_request_timeout") or TIMEOUT_SECONDS
    try:
        answer = request(method, url, **given)
    except ApiException as error:
        if method == "GET" and error.status == 500:  # of a database that is away: nothing of what is read is refused
            raise unreachable(host, "HTTP 500") from error
        raise
    if not is_record(answer.data):
        raise page(host)
    return answer

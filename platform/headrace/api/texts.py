"""The kinds of text that the custom resources hold: how each is spelt, how long it may be, what is said of a wrong one.

Patterns are of the part of regular expressions that Python, Rust (pydantic) and Go (the API server) read alike.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from headrace.api.rules import DATE_TIME, matching
from headrace.base.ids import LONGEST_NAME

DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
URL = r"^[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.+$"  # chained as fsspec has it: zip::s3://...
WEB = r"^https?://[^/]+.*$"
VARIABLE = "^[A-Za-z_][A-Za-z0-9_]*$"
DNS_1035 = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def pattern(expression: str, message: str, longest: int) -> Any:
    """What a text must match, and the MESSAGE for one that does not."""
    return Field(min_length=1, max_length=longest, pattern=expression, json_schema_extra=matching(expression, message))


ObjectName = Annotated[
    str,
    pattern(
        DNS_SUBDOMAIN,
        "${self} can be the name of no object: write small letters, digits, - and ., a letter or digit at both ends",
        253,
    ),
]
Quantity = Annotated[str, pattern(QUANTITY, "${self} is no quantity: write a number and a unit, as 2, 500m or 4Gi", 20)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Address = Annotated[str, pattern(URL, "${self} is no URL: begin with where it lies, as s3://, gs:// or https://", 1024)]
WebAddress = Annotated[
    str, pattern(WEB, "${self} is no address of a server: begin with http:// or https://, then the host", 1024)
]
DeploymentName = Annotated[
    str,
    pattern(
        DNS_1035,
        "${self} can be no ModelDeployment: their names are of small letters, digits and -, a letter first",
        LONGEST_NAME,
    ),
]
Time = Annotated[str, Field(json_schema_extra=DATE_TIME)]  # RFC 3339, UTC

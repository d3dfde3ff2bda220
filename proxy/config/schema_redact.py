"""Redaction in the config file; see `proxy.config.schema`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.config.resolved import RedactAction
from proxy.config.schema_base import Strict
from proxy.config.values import HeaderName, JsonPath, ParameterName, SecretKey, json_path

#: They carry credentials. A request's or an answer's header is in no record; a list like this also
#: tells what must never become a label.
SECRET_HEADERS = (
    "authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key", "api-key",
    "x-auth-token", "x-amz-security-token", "x-goog-api-key",
)  # fmt: skip
#: What vendors call credentials in URLs.
SECRET_PARAMETERS = (
    "access_token", "api_key", "api-key", "apikey", "auth", "key", "password", "secret", "sig",
    "signature", "token",
)  # fmt: skip


class RedactRuleFile(Strict):
    """A path, and what happens to the values there. A path alone is `{path: …, action: drop}`."""

    path: JsonPath
    """Path in JSON bodies, such as inputs[*].parameters.ssn."""
    action: RedactAction = RedactAction.DROP
    """drop: left out. mask: "***", 0, false, {} or []. hash: a keyed hash, equal for equal values."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, data: Any) -> Any:
        """Take a path alone; a wrong one is told of the entry, which has no key to name."""
        return {"path": json_path(data)} if isinstance(data, str) else data


class _OrText:
    """Tells editors that a path alone will do."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


JsonRules = Annotated[
    tuple[Annotated[RedactRuleFile, _OrText], ...],
    Field(max_length=256),
]


class RouteRedactFile(Strict):
    """What never reaches a disk of one route's bodies, beside what `record.redact` says."""

    json_rules: Annotated[JsonRules, Field(alias="json")] = ()
    """Further paths for this route's bodies, written as in record.redact.json."""


class RedactFile(Strict):
    """What never reaches a disk."""

    headers: tuple[HeaderName, ...] = SECRET_HEADERS
    """Header names; a list given here replaces the default. No header is recorded as it is."""
    json_rules: Annotated[JsonRules, Field(alias="json")] = ()
    """Paths in JSON bodies, such as inputs[*].parameters.ssn, or {path: user.email, action: hash}."""
    query: Annotated[tuple[ParameterName, ...], Field(max_length=256)] = SECRET_PARAMETERS
    """Parameters hidden where a path holds them (/x;token=…, /x%3Ftoken=…). No query is recorded."""
    key: SecretKey = ""
    """Secret of the hashes that `action: hash` writes, such as "${UNDERSTUDY_REDACT_KEY}"."""

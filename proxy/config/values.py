"""The kinds of values in the YAML: how each is written, checked and explained when it is wrong.

A kind decides about one scalar by itself; `proxy.config.schema` puts them together and says which
range a key accepts. Each has a pattern for editors in the JSON Schema, looser than the check here.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jmespath
import jmespath.exceptions
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from proxy.config.addresses import endpoint, listener, network
from proxy.config.resolved import Address, Endpoint, Split, SplitKind
from proxy.config.units import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    SIZE_PATTERN,
    basis_points,
    seconds,
    size_bytes,
)

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
#: A field name of HTTP (RFC 9110 section 5.1) and a method (section 9.1) are tokens.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: The grammar of `proxy.pairs.paths`, which stands above this package; a test holds both together.
_STEP = r'(?:[A-Za-z_][A-Za-z0-9_]*|"(?:[^"\\]|\\["\\])+"|\*)'
_INDEX = r"\[(?:0|[1-9][0-9]{0,8}|\*)\]"
_JSON_PATH = re.compile(rf"(?:{_STEP}|{_INDEX})(?:\.{_STEP}|{_INDEX})*")

#: Those of `proxy.comparison.comparators`, which stands above this package; a test holds both together.
COMPARATORS = ("exact", "json", "numeric", "label", "top_k", "ranking", "vector", "text")
#: A function of the operator's: `module:function`.
_OWN_COMPARATOR = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"

#: Names that mean a leg in records and metrics, so no candidate may have them.
RESERVED_NAMES = ("primary", "replicate")


#: The settings of `record.kafka.options` with the values each may have; None: any text. The recorder
#: gives them to its client; a test holds both lists together.
KAFKA_OPTIONS: dict[str, tuple[str, ...] | type[int] | None] = {
    "client.id": None,
    "compression.type": ("none", "gzip", "snappy", "lz4", "zstd"),
    "connections.max.idle.ms": int,
    "metadata.max.age.ms": int,
    "request.timeout.ms": int,
    "retry.backoff.ms": int,
    "security.protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl.mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "sasl.username": None,
    "sasl.password": None,
    "ssl.ca.location": None,
    "ssl.certificate.location": None,
    "ssl.key.location": None,
    "ssl.key.password": None,
    "ssl.endpoint.identification.algorithm": None,
}

#: Never tunnelled: within these protocols come requests again (h2c smuggling; RFC 2817 for TLS).
HTTP_AGAIN = frozenset({"h2", "h2c", "h3", "http", "https", "tls"})
#: What frames or names a message (RFC 9112 section 6, RFC 9110 section 7.6), and what pairs legs up.
_FIXED_HEADERS = frozenset(
    {
        "connection", "content-length", "expect", "http2-settings", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "traceparent",
        "trailer", "transfer-encoding", "upgrade", "via", "x-request-id",
    }
)  # fmt: skip

#: Shorter tokens fall to a patient guesser; `understudy init` suggests 32 random characters.
MIN_TOKEN_LENGTH = 8
#: A key is guessed offline, from one known pair of value and hash.
MIN_KEY_BYTES = 16
_MAX_NAME_LENGTH = 63


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(
            f"{value!r} is no name; use lower-case letters, digits, '-' and '_', starting with a "
            "letter or digit (names become parts of file names and metrics)"
        )
    if len(value) > _MAX_NAME_LENGTH:
        raise ValueError(f"{value[:20]!r}… is longer than {_MAX_NAME_LENGTH} characters")
    return value


def _candidate_name(value: str) -> str:
    if value in RESERVED_NAMES:
        raise ValueError(f"{value!r} has a meaning of its own in records; choose another name")
    return value


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a valid header name")
    return value


def _own_header(value: str) -> str:
    name = _header_name(value).lower().replace("_", "-")  # CGI and its heirs read both alike
    if name in _FIXED_HEADERS or name.startswith("x-understudy-"):
        raise ValueError(f"{value!r} is written by Understudy itself and cannot be changed")
    return value


def _model_name(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} is no model's name: it has line breaks, or spaces at its ends")
    return value


def _header_value(value: str) -> str:
    if value != value.strip() or not value.isprintable():
        raise ValueError("a header value has no line breaks and no spaces at its ends")
    return value


def _method(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not a valid method")
    if value != value.upper():
        raise ValueError(f"methods are in capitals; write {value.upper()}")
    return value


def _upgrade_name(value: str) -> str:
    name, slash, version = value.lower().partition("/")
    if not _TOKEN.fullmatch(name) or (slash and not _TOKEN.fullmatch(version)):
        raise ValueError(f"{value!r} is not the name of a protocol; write it like websocket")
    if name in HTTP_AGAIN:
        raise ValueError(
            f"{value!r} would carry requests that nobody here has checked past every rule; "
            "leave it out, and such a client goes on with HTTP/1.1"
        )
    return value.lower()


def _host(value: str) -> str:
    if value and not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+", value):
        raise ValueError(f"{value!r} is not a host name; leave out scheme, port and path")
    return value.lower()


def _url_path(value: str) -> str:
    if value and not re.fullmatch(r"/[!-~]*", value):
        raise ValueError(f"{value!r} must start with '/', percent-encoded as it is sent")
    if "?" in value or "#" in value:
        raise ValueError(f"{value!r} must not have a query; only the path is matched")
    return value


def _jmespath(value: str) -> str:
    try:
        if value:
            jmespath.compile(value)
    except jmespath.exceptions.JMESPathError as exc:
        reason = str(exc).splitlines()[0].removesuffix(", for expression:")
        raise ValueError(f"{value!r} is not a JMESPath expression: {reason}") from exc
    return value


def _prediction_path(value: str) -> str:
    if not value.startswith("$"):
        return _jmespath(value)
    # Here, because it takes 6 MB that few need.
    jsonpath = importlib.import_module("jsonpath")
    try:
        jsonpath.compile(value)
    except jsonpath.JSONPathError as exc:
        reason = str(exc).splitlines()[0]
        raise ValueError(f"{value!r} is not a JSONPath expression: {reason}") from exc
    return value


def _prediction_place(value: str) -> str:
    return value if value == "$" else json_path(value)


def _comparator(value: str) -> str:
    if value in COMPARATORS or re.fullmatch(_OWN_COMPARATOR, value):
        return value
    near = difflib.get_close_matches(value.lower().replace("-", "_"), COMPARATORS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else " and no function, written module:function"
    raise ValueError(f"{value[:40]!r} is not one of {', '.join(COMPARATORS)}{hint}")


def json_path(value: str) -> str:
    """Return a path of the grammar of `proxy.pairs.paths`.

    Raises:
        ValueError: it is none; says how to write one.
    """
    if not _JSON_PATH.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a path; write keys as a.b, array elements as a[0] or a[*], and "
            'other keys in quotes as a."x-y"'
        )
    return value


def _bootstrap(value: str) -> str:
    match = re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", value)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"{value!r} is not a broker; write host:port, such as 127.0.0.1:9092")
    return value


def _topic_prefix(value: str) -> str:
    # Kafka's own rule for topic names, less the length of the longest suffix we add.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value) or value in (".", ".."):
        raise ValueError(f"{value[:40]!r} is no topic prefix; use letters, digits, '.', '_', '-'")
    return value


def _kafka_option(value: str) -> str:
    if value not in KAFKA_OPTIONS:
        near = difflib.get_close_matches(value.replace("_", "."), KAFKA_OPTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(KAFKA_OPTIONS)}"
        raise ValueError(f"unknown client setting {value[:60]!r}; {hint}")
    return value


def _otlp_endpoint(value: str) -> str:
    # Never say the value: an address with a password in it would be printed.
    if not re.fullmatch(
        r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^?#\s@]*)?", value
    ):
        raise ValueError("must be the address of a collector, such as http://127.0.0.1:4318")
    return value.rstrip("/")


def _instance_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", value):
        raise ValueError(f"{value[:40]!r} is no instance name; use letters, digits, '.', '_', '-'")
    return value


def _path(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a path has no control characters")
    try:
        Path(value).expanduser()
    except RuntimeError as exc:
        raise ValueError(f"{value[:40]!r}: there is no such home folder") from exc
    return value


def _no_bool(value: Any) -> Any:
    """Refuse true and false as numbers, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 - pydantic reports ValueError
    return value


_HAVE_NAME = (SplitKind.HEADER, SplitKind.COOKIE, SplitKind.JSON)


def split_key(value: Any) -> Split:
    """Return where a key is found in a request.

    Raises:
        ValueError: it is none; says how to write one.
    """
    if isinstance(value, Split):
        return value
    kind, has_name, name = str(value).partition(":")
    if kind not in list(SplitKind):
        raise ValueError(
            f"{value!r} is no split key; write header:NAME, cookie:NAME, json:PATH, client_ip or "
            "request_id"
        )
    wants_name = kind in _HAVE_NAME
    if wants_name and not name.strip():
        raise ValueError(f"write which one, such as {kind}:{'user.id' if kind == 'json' else 'x'}")
    if has_name and not wants_name:
        raise ValueError(f"{kind} takes no name; write {kind} alone")
    if kind == SplitKind.JSON:
        _jmespath(name)
    elif wants_name:
        _header_name(name)
    return Split(SplitKind(kind), name)


def _option_text(value: Any) -> Any:
    """Return a number or bool as the text a client library expects; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _bearer_token(value: str) -> str:
    # Never say the value: faults are printed, and logged on reload.
    if not re.fullmatch(r"[!-~]*", value):
        raise ValueError("a token has only visible ASCII characters, no spaces or line breaks")
    if value and len(value) < MIN_TOKEN_LENGTH:
        raise ValueError(f"a token needs at least {MIN_TOKEN_LENGTH} characters, or it is guessed")
    return value


def _parameter_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~\[\]-]+", value):
        raise ValueError(f"{value[:40]!r} is not a parameter's name, such as api_key")
    return value


def _secret_key(value: str) -> str:
    # Never say the value, as above.
    if value and len(value.encode()) < MIN_KEY_BYTES:
        raise ValueError(
            f"a key needs at least {MIN_KEY_BYTES} bytes, or hashes are guessed; make one with "
            "`openssl rand -hex 32`"
        )
    return value


def _unit(convert: Callable[[Any], float], schema: dict[str, Any]) -> tuple[Any, Any]:
    return BeforeValidator(convert), WithJsonSchema(schema)


def _text(check: Callable[[str], str], schema: dict[str, Any] | None = None) -> tuple[Any, Any]:
    return AfterValidator(check), Field(json_schema_extra=schema)


_DURATION = {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}
_SIZE = {"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 0}]}
_PERCENT = {"anyOf": [{"type": "string", "pattern": PERCENT_PATTERN}, {"const": 0}]}
_SPLIT = {"type": "string", "pattern": "^((header|cookie|json):.+|client_ip|request_id)$"}

Seconds = Annotated[float, *_unit(seconds, _DURATION)]
Bytes = Annotated[int, *_unit(size_bytes, _SIZE)]
BasisPoints = Annotated[int, *_unit(basis_points, _PERCENT)]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]

Name = Annotated[str, *_text(_name, {"pattern": NAME_PATTERN})]
CandidateName = Annotated[Name, AfterValidator(_candidate_name)]
HeaderName = Annotated[str, *_text(_header_name)]
OwnHeader = Annotated[str, *_text(_own_header)]
ModelName = Annotated[str, *_text(_model_name)]
HeaderValue = Annotated[str, *_text(_header_value)]
Method = Annotated[str, *_text(_method, {"pattern": "^[^a-z]+$"})]
Host = Annotated[str, *_text(_host)]
UpgradeName = Annotated[str, *_text(_upgrade_name)]
UrlPath = Annotated[str, *_text(_url_path, {"pattern": "^(/[^?#]*)?$"})]
JmesPath = Annotated[str, *_text(_jmespath)]
PredictionPath = Annotated[str, *_text(_prediction_path)]
PredictionPlace = Annotated[str, *_text(_prediction_place)]
ComparatorName = Annotated[
    str, *_text(_comparator, {"pattern": f"^({'|'.join(COMPARATORS)}|{_OWN_COMPARATOR})$"})
]
JsonPath = Annotated[str, *_text(json_path)]
Bootstrap = Annotated[str, *_text(_bootstrap, {"pattern": "^.+:[0-9]+$"})]
TopicPrefix = Annotated[str, *_text(_topic_prefix, {"pattern": "^[A-Za-z0-9._-]+$"})]
OtlpEndpoint = Annotated[str, *_text(_otlp_endpoint, {"pattern": "^https?://"})]
InstanceName = Annotated[str, *_text(_instance_name)]
Folder = Annotated[str, *_text(_path), Field(min_length=1)]
FilePath = Annotated[str, *_text(_path), Field(min_length=1)]
TlsVersion = Annotated[
    Literal["1.2", "1.3"],
    BeforeValidator(_option_text),
    WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
]
Token = Annotated[str, *_text(_bearer_token)]
ParameterName = Annotated[str, *_text(_parameter_name)]
SecretKey = Annotated[str, *_text(_secret_key)]
KafkaOption = Annotated[str, *_text(_kafka_option)]
OptionText = Annotated[
    str, BeforeValidator(_option_text), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
Network = Annotated[
    str,
    BeforeValidator(network),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f:./]+$"}),
]
SplitKey = Annotated[Split, BeforeValidator(split_key), WithJsonSchema(_SPLIT)]
EndpointUrl = Annotated[
    Endpoint,
    BeforeValidator(endpoint),
    WithJsonSchema({"type": "string", "pattern": "^(https?://|unix:)"}),
]
Listener = Annotated[
    Address, BeforeValidator(listener), WithJsonSchema({"type": "string", "pattern": ":[0-9]+$"})
]

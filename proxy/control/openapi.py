"""`GET /openapi.json`: the admin API described, bodies from the models that check them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from proxy import __version__
from proxy.control.bodies import LatchOrder, RampOrder, ReloadOrder, WeightOrder
from proxy.pairs import label
from proxy.state import decision_record

_REF = "#/components/schemas/{model}"

LABELS_PATH = "/api/v1/labels"

#: Method, path, summary, body model, statuses beside 200.
OPERATIONS: tuple[tuple[str, str, str, type[BaseModel] | None, tuple[int, ...]], ...] = (
    ("get", "/healthz", "Control answers.", None, ()),
    ("get", "/readyz", "Users are served; says what else is wrong.", None, (503,)),
    ("get", "/metrics", "Metrics, Prometheus or OpenMetrics format.", None, (401,)),
    ("get", "/openapi.json", "This document.", None, (401,)),
    ("get", "/api/v1/status", "Everything: processes, routes, counters, ledger.", None, (401,)),
    ("get", "/api/v1/routes", "Routes and candidates with live state.", None, (401,)),
    ("get", "/api/v1/decisions", "The last decisions, newest first.", None, (401, 422)),
    (
        "post",
        "/api/v1/kill",
        "Latch the kill switch; without a usable control page a kill file is left (see in_effect).",
        LatchOrder,
        (202, 401, 403, 404, 412, 415, 422, 503),
    ),
    (
        "post",
        "/api/v1/revive",
        "Open the latch, unless the order is stale; writes an unreadable control page afresh.",
        LatchOrder,
        (401, 403, 404, 408, 412, 415, 422, 503),
    ),
    (
        "put",
        "/api/v1/routes/{route}/candidates/{candidate}/weight",
        "Set a candidate's live canary weight; refused when stale, like a revive.",
        WeightOrder,
        (401, 403, 404, 408, 409, 412, 415, 422, 503),
    ),
    *(
        (
            "post",
            f"/api/v1/routes/{{route}}/ramp/{word}",
            summary,
            RampOrder,
            (401, 403, 404, 408, 409, 412, 415, 422, 503),
        )
        for word, summary in (
            ("start", "Begin a ramp in the shadow, at 0%; refused when stale, like a revive."),
            ("pause", "Leave the weight as it is; the gates may still roll it back."),
            ("resume", "Go on from the highest step at or below the live weight."),
            ("promote", "Approve the step that is holding."),
            ("abort", "Take the weight to 0."),
        )
    ),
    (
        "post",
        LABELS_PATH,
        "Ground truth: one JSON object a line (Label); bad lines are named and left out.",
        None,
        (401, 403, 413, 415, 422, 503),
    ),
    (
        "post",
        "/api/v1/reload",
        "Read the config file again; says what changed, or why it was refused and the old one stays.",
        ReloadOrder,
        (401, 403, 409, 412, 415, 422, 503),
    ),
)


_LABELS_TAKEN = {
    "type": "object",
    "required": ["accepted", "refused", "errors"],
    "properties": {
        "accepted": {"type": "integer", "description": "lines taken; they are on the disk"},
        "refused": {"type": "integer", "description": "lines that are no labels"},
        "errors": {
            "description": "the first of them",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"line": {"type": "integer"}, "error": {"type": "string"}},
            },
        },
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, body, errors in OPERATIONS:
        paths.setdefault(path, {})[method] = _operation(path, summary, body, errors)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Understudy admin API", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                },
                **{
                    model.__name__: model.model_json_schema(ref_template=_REF)
                    for model in (LatchOrder, WeightOrder, RampOrder, ReloadOrder)
                },
                "Label": _schema(label.json_schema()),
                "LabelsTaken": _LABELS_TAKEN,
                "Decision": _schema(decision_record.json_schema()),
            },
        },
    }


def _schema(published: dict[str, Any]) -> dict[str, Any]:
    """Return a published JSON Schema as a part of this document."""
    return {key: value for key, value in published.items() if not key.startswith("$")}


def _operation(
    path: str, summary: str, body: type[BaseModel] | None, errors: tuple[int, ...]
) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done."},
            **{
                str(code): {"description": "Refused; says why.", "content": error}
                if code >= 400
                else {"description": "Taken, and not in effect yet; `warnings` says why."}
                for code in errors
            },
        },
    }
    names = [word[1:-1] for word in path.split("/") if word.startswith("{")]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if path == "/api/v1/decisions":
        operation["parameters"] = [
            {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 1000}}
        ]
        decision = {"type": "array", "items": {"$ref": _REF.format(model="Decision")}}
        told = {"type": "object", "properties": {"decisions": decision}}
        operation["responses"]["200"]["content"] = {"application/json": {"schema": told}}
    if path in ("/healthz", "/readyz"):
        operation["security"] = []
    if path == LABELS_PATH:
        lines = {"application/x-ndjson": {"schema": {"$ref": _REF.format(model="Label")}}}
        operation["requestBody"] = {"required": True, "content": lines}
        taken = {"schema": {"$ref": _REF.format(model="LabelsTaken")}}
        operation["responses"]["200"]["content"] = {"application/json": taken}
    if body is not None:
        reference = {"$ref": _REF.format(model=body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    return operation

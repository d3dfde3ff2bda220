"""Whether primary and candidates answer alike: one request of the operator's, sent to each.

The only check that asks a model something, and so only when a request is given. Every copy is
marked `x-understudy-mirror: 1`, and a candidate's is changed as the data plane changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from proxy.analysis.backend_client import client, extensions
from proxy.config.resolved import Backend, Candidate, Config, Route
from proxy.config.tls_files import TlsFileError
from proxy.doctor.findings import Finding, Level, ok
from proxy.pairs.protocols.answer import Extract
from proxy.pairs.protocols.extract import Extractor
from proxy.routing.match import Router
from proxy.wire.rewrite import Rewrite

#: An answer is read up to so much.
_LIMIT_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """A request to send; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a backend answered; `error` when it did not."""

    status: int
    content_type: str
    extract: Extract
    error: str = ""


async def sample_findings(config: Config, sample: Sample) -> list[Finding]:
    """Send `sample` to the primary and the candidates of its route; return what is unlike."""
    subject = f"{sample.method} {sample.path}"
    fields = {name.encode(): value.encode() for name, value in sample.headers.items()}
    path = sample.path.partition("?")[0]
    route = Router(config.routes).match(
        sample.method.encode(), fields.get(b"host", b""), path.encode(), fields
    )
    if route is None:
        return [
            Finding("sample", subject, Level.FAULT, "no route takes it", "it would get 404",
                    "see `understudy explain`")
        ]  # fmt: skip
    primary = await _send(config.backends[route.primary], route, sample)
    found = [_judge_primary(route, subject, primary)]
    for candidate in route.candidates:
        own = _for_candidate(sample, candidate, route)
        heard = await _send(config.backends[candidate.backend], route, own)
        found.append(_judge(f"{route.name}/{candidate.name}", primary, heard))
    return found


def _for_candidate(sample: Sample, candidate: Candidate, route: Route) -> Sample:
    """Return the request as `candidate` gets it: its own header fields, and its model's name."""
    change = candidate.rewrite
    headers = {k: v for k, v in sample.headers.items() if k not in change.remove_headers}
    compiled = Rewrite(change, route.protocol)
    body = compiled.body(sample.body) if compiled.changes_body and sample.body else sample.body
    return Sample(
        sample.method,
        compiled.target(sample.path.encode()).decode()
        if change.model and not compiled.changes_body
        else sample.path,
        {**headers, **change.set_headers},
        body if isinstance(body, bytes) else sample.body,
    )


async def _send(backend: Backend, route: Route, sample: Sample) -> _Heard:
    nothing = Extract(reason="no_answer")
    headers = {**sample.headers, "x-understudy-mirror": "1"}
    try:
        async with client(backend, backend.endpoints[0]) as http, http.stream(
            sample.method, sample.path, content=sample.body, headers=headers,
            extensions=extensions(backend),
        ) as answer:  # fmt: skip
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > _LIMIT_BYTES:
                    return _Heard(0, "", nothing, f"more than {_LIMIT_BYTES} bytes")
    except (httpx.HTTPError, TlsFileError) as exc:
        return _Heard(0, "", nothing, str(exc) or type(exc).__name__)
    content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    extract = Extractor(route.protocol, route.compare.prediction).read(
        bytes(body), content_type or None, answer.headers.get("content-encoding")
    )
    return _Heard(answer.status_code, content_type, extract)


def _judge_primary(route: Route, subject: str, heard: _Heard) -> Finding:
    told = heard.error or f"{route.primary} answers {heard.status} {heard.content_type}"
    if heard.error or heard.status >= 400:
        return Finding("sample", subject, Level.FAULT, told, "there is nothing to compare with",
                       "send a request that the primary answers")  # fmt: skip
    if heard.extract.reason is not None:
        return Finding(
            "sample", subject, Level.FAULT,
            f"{told}, and no prediction is found in it ({heard.extract.reason})",
            "no pair of this route can be compared",
            f"mend routes.{route.name}: protocol, or compare.prediction",
        )  # fmt: skip
    place = heard.extract.path or "the whole answer"
    return ok("sample", subject, f"{told}; the prediction is {place}")


def _judge(name: str, primary: _Heard, heard: _Heard) -> Finding:
    why = "pairs will not be comparable, or never agree"
    mend = "make the candidate speak the primary's protocol"
    unlike = []
    if heard.error:
        unlike.append(heard.error)
    elif heard.status // 100 != primary.status // 100:
        unlike.append(f"status {heard.status}, where the primary has {primary.status}")
    else:
        if heard.content_type != primary.content_type:
            unlike.append(
                f"{heard.content_type or 'no type'}, where the primary has {primary.content_type or 'none'}"
            )
        if heard.extract.reason is not None:
            unlike.append(f"no prediction in its answer ({heard.extract.reason})")
        elif _shape(heard.extract.prediction) != _shape(primary.extract.prediction):
            unlike.append(
                f"its prediction is {_shape(heard.extract.prediction)}, the primary's "
                f"{_shape(primary.extract.prediction)}"
            )
    if unlike:
        return Finding("sample", name, Level.FAULT, "; ".join(unlike), why, mend)
    return ok("sample", name, f"answers alike: {heard.status} {heard.content_type}")


def _shape(value: object) -> str:
    """Return what a prediction is made of, such as `a number` or `a list of 3, each a number`."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return f"a list of {len(value)}, each {_shape(value[0])}" if value else "an empty list"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, dict) else "nothing"

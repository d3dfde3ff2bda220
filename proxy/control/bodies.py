"""The bodies of the admin API: what an order must hold, and how a bad one is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request

from proxy.state.control_page import Part
from proxy.state.kill import Scope
from proxy.telemetry import wall_ns

#: An order is a few hundred bytes; more is a mistake or an attack.
BODY_LIMIT_BYTES = 64 * 1024

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Body = TypeVar("Body", bound=BaseModel)

#: Three decimals of a percent are finer than a basis point can say.
_WHOLE_BP_TOLERANCE = 1e-6


class ApiError(Exception):
    """A request that is answered with `status` and a sentence that says what and how to mend."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


class Order(BaseModel):
    """What every order may say: why, until when it holds, and what its giver had seen."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason = Field(description="why; kept in the decisions log")
    expires_ms: int | None = Field(
        None,
        ge=0,
        description="wall clock of the instance, milliseconds (`now_ms` of GET /api/v1/status plus "
        "your own patience): carried out later than this, the order is refused with 412",
    )
    seen_generation: int | None = Field(
        None,
        ge=0,
        description="`control_page.generation` of GET /api/v1/status: a revive or weight is "
        "refused with 412 when a kill was latched after that",
    )


class LatchOrder(Order):
    """The body of `kill` and `revive`: no route means everything, no part both live ones."""

    route: Name | None = Field(None, description="one route; left out: everything")
    candidate: Name | None = Field(None, description="one candidate of the route")
    only: Literal["mirror", "canary", "record"] | None = Field(
        None, description="one part; left out: kill stops mirror and canary, revive opens all three"
    )

    def scope(self) -> Scope:
        """Return what the order covers.

        Raises:
            ApiError: a candidate without its route.
        """
        if self.candidate and not self.route:
            raise ApiError(422, "candidate needs its route as well")
        return Scope(self.route or "", self.candidate or "")

    def part(self, default: Part) -> Part:
        """Return the part that the order names, else `default`."""
        return default if self.only is None else Part[self.only.upper()]


class WeightOrder(Order):
    """The body of a weight change."""

    percent: float = Field(ge=0, le=100, allow_inf_nan=False, description="0 to 100, step 0.01")

    def weight_bp(self) -> int:
        """Return the weight in basis points.

        Raises:
            ApiError: it is finer than a basis point.
        """
        weight_bp = round(self.percent * 100)
        if abs(weight_bp - self.percent * 100) > _WHOLE_BP_TOLERANCE:
            raise ApiError(422, f"percent: {self.percent:g} is finer than the step of 0.01")
        return weight_bp


class RampOrder(Order):
    """The body of a word to a ramp."""

    candidate: Name | None = Field(
        None, description="which candidate of the route; left out: the only one"
    )
    dry_run: bool = Field(default=False, description="say what would happen, and change nothing")


class ReloadOrder(Order):
    """The body of a reload."""


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the request's body as `kind`.

    Raises:
        ApiError: it is not JSON by its type (415), too large (413) or not valid (400, 422).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(415, "send the order as `Content-Type: application/json`")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT_BYTES:
            raise ApiError(413, f"an order has at most {BODY_LIMIT_BYTES} bytes")
    try:
        return kind.model_validate_json(bytes(data))
    except ValidationError as exc:
        raise _explain(exc, kind) from exc


def _explain(exc: ValidationError, kind: type[BaseModel]) -> ApiError:
    faults = exc.errors(include_url=False, include_context=False)
    if any(fault["type"] == "json_invalid" for fault in faults):
        return ApiError(400, f"the body is not JSON: {faults[0]['msg']}")
    return ApiError(422, "; ".join(_sentence(fault, kind) for fault in faults))


def _sentence(fault: Any, kind: type[BaseModel]) -> str:
    key = ".".join(map(str, fault["loc"])) or "body"
    if fault["type"] == "extra_forbidden":
        return f"{key}: no such key; there are: {', '.join(kind.model_fields)}"
    return f"{key}: {fault['msg']}"


def refuse_if_expired(order: Order) -> None:
    """Refuse an order whose time is over by this machine's clock (412)."""
    if order.expires_ms is None:
        return
    late_ms = wall_ns() // 1_000_000 - order.expires_ms
    if late_ms > 0:
        raise ApiError(
            412,
            f"nothing was changed: this order expired {late_ms / 1000:g} s ago by this machine's "
            "clock; give it again",
        )

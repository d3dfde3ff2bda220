"""Ramps in the config file; see `proxy.config.schema`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from proxy.config.schema_base import DAY_S, MINUTE_S, Strict
from proxy.config.values import BasisPoints, Number, Seconds, SecretKey, Whole


def _webhook_url(value: str) -> str:
    # Never say the value: it may hold a token.
    if not re.fullmatch(
        r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?][^#\s]*)?", value
    ):
        raise ValueError("must be an address such as https://host/path, without user and fragment")
    return value


WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]


class StepFile(Strict):
    """One step of a ramp."""

    weight: Annotated[BasisPoints, Field(gt=0)]
    """Share of live traffic that the candidate serves during this step."""
    min_pairs: Annotated[Whole, Field(ge=0, le=10**12)] = 100
    """Pairs that the gates must have seen before the next step."""
    min_duration: Annotated[Seconds, Field(ge=0, le=366 * DAY_S)] = MINUTE_S
    """Shortest time in this step."""
    max_duration: Annotated[Seconds, Field(ge=0, le=366 * DAY_S)] = 0.0
    """Longest time in this step, then it is rolled back; 0: no limit."""
    approval: Literal["auto", "manual"] = "auto"
    """manual: an operator must promote, whatever the gates say."""


class GateFile(Strict):
    """A statistical gate on the difference between candidate and primary."""

    metric: Literal["agreement", "availability", "latency", "correctness"]
    """What is judged."""
    margin: Annotated[Number, Field(gt=0, lt=1)] = 0.01
    """How much worse the candidate may be, as a share of requests."""
    budget: Annotated[Seconds, Field(gt=0, le=DAY_S)] | None = None
    """Latency only: a call that takes longer is too slow."""


class WebhookFile(Strict):
    """Somebody who is told of a ramp by `POST`, as JSON."""

    url: WebhookUrl
    """Where; a secret, because many of these addresses are."""
    secret: SecretKey = ""
    """Key of the signature in X-Understudy-Signature (HMAC-SHA256); empty: not signed."""
    timeout: Annotated[Seconds, Field(gt=0, le=MINUTE_S)] = 5.0
    """For a whole call."""


class RampFile(Strict):
    """The plan that moves the canary weight through gates."""

    steps: Annotated[tuple[StepFile, ...], Field(min_length=1, max_length=100)]
    """Weights in rising order."""
    gates: Annotated[tuple[GateFile, ...], Field(min_length=1, max_length=4)]
    """What must hold before the next step, and roll back when it surely does not."""
    confirm: WebhookFile | None = None
    """Asked before each step up, which waits until it answers 2xx; left out: the gates suffice."""
    notify: WebhookFile | None = None
    """Told of everything that happens to the ramp; it decides nothing."""

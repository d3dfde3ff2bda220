"""Whether a Kafka cluster is there and does not let us in, from what its client raises and logs.

The client hides most causes: a refused password ends as "unable to bootstrap", and only its log names
the cause.
"""

from __future__ import annotations

from typing import Final

from aiokafka import errors

from proxy.kafka.log import ClientLog

UNAUTHENTICATED: Final = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)


def refusal_of(error: BaseException, log: ClientLog) -> BaseException | None:
    """Return why a broker refuses who we say we are; None where that is not the trouble."""
    causes = (error, *log.causes)
    return next((cause for cause in causes if isinstance(cause, UNAUTHENTICATED)), None)

"""Logarithm and exponential that give the same bits on every machine.

A verdict is recomputed from its counts, perhaps years later on another processor, and must come out
bit for bit. The functions of libm and numpy do not promise that: their last digit depends on the
library's version and on the vector instructions there are. Addition, multiplication, division,
rounding to integers and scaling by powers of two are fixed by IEEE 754, so these two are made of
nothing else, one elementwise operation at a time (no fused multiply-add, no reduction whose order
depends on a length). Within 2 ulp of the true value; some ten times slower than numpy's. Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: ln 2 in two parts (fdlibm, e_exp.c): the first has so few bits that k times it is exact.
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_PER_LN2: Final = 1.44269504088896338700e00
_SQRT_HALF: Final = 7.07106781186547524401e-01
#: Below this, exp is 0 in doubles.
_UNDERFLOW: Final = -746.0
#: |r| <= ln 2 / 2: the term after these is under 1e-17.
_EXP_TERMS: Final = 13
#: |s| <= 0.172: the term after these is under 1e-17 of the first.
_LOG_TERMS: Final = 11


def exp(values: Floats) -> Floats:
    """Return e to the power of each of `values`, which are at most 700."""
    clipped = np.maximum(values, _UNDERFLOW)
    powers = np.rint(clipped * _PER_LN2)
    rest = (clipped - powers * _LN2_HIGH) - powers * _LN2_LOW
    found = np.ones_like(rest)
    for divisor in range(_EXP_TERMS, 0, -1):
        found *= rest
        found /= divisor
        found += 1.0
    return np.ldexp(found, powers.astype(np.int32))


def log(values: Floats) -> Floats:
    """Return the natural logarithm of each of `values`, which are positive and finite."""
    mantissas, exponents = np.frexp(values)
    is_small = mantissas < _SQRT_HALF
    mantissas = np.where(is_small, mantissas * 2.0, mantissas)
    powers = (exponents - is_small).astype(np.float64)
    over = mantissas - 1.0
    ratio = over / (2.0 + over)
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for term in range(_LOG_TERMS, -1, -1):
        series *= square
        series += 1.0 / (2 * term + 1)
    return powers * _LN2_HIGH + (2.0 * ratio * series + powers * _LN2_LOW)


def log1p(values: Floats) -> Floats:
    """Return log(1 + x) of each of `values`, which are over -1; exact to the end for small ones."""
    sums = 1.0 + values
    # What the addition rounded away, to first order.
    return log(sums) + (values - (sums - 1.0)) / sums

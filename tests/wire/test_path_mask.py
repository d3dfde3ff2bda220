"""Credentials that clients put into paths, and paths that only look like it."""

from __future__ import annotations

import pytest

from proxy.wire.path_mask import PathMask


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        (b"/score", b"/score"),
        (b"/score;token=s3cret", b"/score;token=***"),
        (b"/score;a=1;TOKEN=s3cret;b=2/x", b"/score;a=1;TOKEN=***;b=2/x"),
        (b"/score%3Ftoken=s3cret", b"/score%3Ftoken=***"),
        (b"/score%3fa%3D1%26token%3ds3cret%26b%3D2", b"/score%3fa%3D1%26token%3d***"),
        (b"/token=s3c/ret==", b"/token=***"),
        (b"/x&api_key=s3cret,key=s3cret", b"/x&api_key=***"),
        (b"/x;tokens=7;monkey=3", b"/x;tokens=7;monkey=3"),
        (b"/token/7", b"/token/7"),
    ],
    ids=repr,
)
def test_values_of_named_parameters_are_hidden(path: bytes, masked: bytes) -> None:
    """In any case, encoded or not; other parameters stay."""
    assert PathMask(("token", "api_key", "key")).apply(path) == masked


def test_without_names_nothing_is_hidden() -> None:
    """An empty list in the config turns it off."""
    assert PathMask(()).apply(b"/x;token=1;=2") == b"/x;token=1;=2"

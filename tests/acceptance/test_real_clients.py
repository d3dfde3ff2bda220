"""NVIDIA's tritonclient through a whole instance: right answers, and right records of them.

Against scikit-learn models, a better one as the candidate, and against a server that gives every
tensor back. The other clients are in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient import http as triton

from proxy.demo.processes import Child
from tests.support.identity_server import identity_server
from tests.support.instance import Instance, running
from tests.support.models import digit_servers, digits, trained
from tests.support.shadowed import records_of, shadow_config

pytestmark = pytest.mark.slow

ROWS = 40


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    """Serve the primary and the candidate that often disagrees."""
    with digit_servers(tmp_path_factory.mktemp("digits"), "digits-v1", "digits-v3") as servers:
        yield servers


@pytest.fixture(scope="module")
def digit_proxy(
    models: dict[str, Child], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """Run a proxy in front of both."""
    route = {
        "name": "digits",
        "protocol": "open-inference",
        "compare": {"prediction": "outputs[0].data", "comparator": "label"},
    }
    config = shadow_config(route, models["digits-v1"].url, models["digits-v3"].url)
    with running(config, tmp_path_factory.mktemp("digit-proxy")) as instance:
        yield instance


def _infer(
    client: Any, rows: npt.NDArray[np.float64], name: str, *, is_binary: bool
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Ask for the labels and probabilities of `rows`, `(n, 64)`."""
    pixels = triton.InferInput("pixels", list(rows.shape), "FP64")
    pixels.set_data_from_numpy(rows, binary_data=is_binary)
    wanted = [
        triton.InferRequestedOutput(output, binary_data=is_binary)
        for output in ("label", "probabilities")
    ]
    answer = client.infer(
        "digits", [pixels], outputs=wanted, request_id=name, headers={"x-request-id": name}
    )
    assert answer.get_response()["model_version"] == "1"
    return answer.as_numpy("label").tolist(), answer.as_numpy("probabilities")


def test_tritonclient_in_json_gets_the_primarys_answers_and_full_records(
    digit_proxy: Instance, models: dict[str, Child]
) -> None:
    """Labels and probabilities as asked directly; both models' labels in every record."""
    rows = digits().held_out_rows[:ROWS]
    direct_url = models["digits-v1"].url.removeprefix("http://")
    proxied_url = digit_proxy.runtime["listen"]
    with (
        triton.InferenceServerClient(direct_url) as direct,
        triton.InferenceServerClient(proxied_url) as proxied,
    ):
        assert proxied.is_server_live()
        assert proxied.is_model_ready("digits")
        assert proxied.get_model_metadata("digits") == direct.get_model_metadata("digits")
        for number in range(ROWS):
            row = rows[number : number + 1]
            expected = _infer(direct, row, f"json-{number}", is_binary=False)
            labels, probabilities = _infer(proxied, row, f"json-{number}", is_binary=False)
            assert labels == expected[0]
            assert np.array_equal(probabilities, expected[1])
    records = records_of(digit_proxy, "json-", ROWS)
    first, second = (trained(name).model.predict(rows)[0].tolist() for name in _MODELS)
    assert first != second, "the two models must disagree somewhere for this test to say anything"
    for number, record in enumerate(records):
        assert record["request_id"] == f"json-{number}"
        assert record["primary_prediction"] == [first[number]]
        assert record["candidate_prediction"] == [second[number]]
        assert (record["primary_model_version"], record["candidate_model_version"]) == ("1", "3")
        assert record["comparable"] is True
        assert record["equal"] is (first[number] == second[number])
        assert record["loss_diff"] == float(first[number] != second[number])
        assert record["protocol"] == "open-inference"
        assert record["path"] == "/v2/models/digits/infer"


_MODELS = ("digits-v1", "digits-v3")


def test_tritonclient_in_binary_is_answered_and_compared_as_in_json(
    digit_proxy: Instance, models: dict[str, Child]
) -> None:
    """Binary tensors pass untouched both ways, and both models' labels are in the records."""
    rows = digits().held_out_rows
    direct_url = models["digits-v1"].url.removeprefix("http://")
    sizes = (1, 7, 256)  # up to 128 KiB in one request
    with (
        triton.InferenceServerClient(direct_url) as direct,
        triton.InferenceServerClient(digit_proxy.runtime["listen"]) as proxied,
    ):
        for number, size in enumerate(sizes):
            expected = _infer(direct, rows[:size], f"binary-{number}", is_binary=True)
            labels, probabilities = _infer(proxied, rows[:size], f"binary-{number}", is_binary=True)
            assert labels == expected[0]
            assert np.array_equal(probabilities, expected[1])
    first, second = (trained(name).model.predict(rows)[0].tolist() for name in _MODELS)
    for size, record in zip(sizes, records_of(digit_proxy, "binary-", len(sizes)), strict=True):
        assert record["primary_content_type"] == "application/octet-stream"
        assert record["primary_prediction"] == first[:size]
        assert record["candidate_prediction"] == second[:size]
        assert (record["primary_model_version"], record["candidate_model_version"]) == ("1", "3")
        assert record["comparable"] is True
        assert record["equal"] is (first[:size] == second[:size])


def test_tritonclient_asks_for_many_at_once(digit_proxy: Instance) -> None:
    """Its pool of greenlets gets each answer where it belongs."""
    rows = digits().held_out_rows[:16]
    with triton.InferenceServerClient(digit_proxy.runtime["listen"], concurrency=8) as client:
        waiting = []
        for number in range(16):
            pixels = triton.InferInput("pixels", [1, 64], "FP64")
            pixels.set_data_from_numpy(rows[number : number + 1], binary_data=False)
            wanted = [triton.InferRequestedOutput("label", binary_data=False)]
            waiting.append(
                client.async_infer(
                    "digits",
                    [pixels],
                    outputs=wanted,
                    headers={"x-request-id": f"many-{number}"},
                )
            )
        labels = [answer.get_result().as_numpy("label").tolist()[0] for answer in waiting]
    assert labels == trained("digits-v1").model.predict(rows)[0].tolist()
    records = records_of(digit_proxy, "many-", 16)
    assert all(record["comparable"] for record in records)


@pytest.fixture(scope="module")
def identity_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Run a proxy in front of a server that gives every tensor back; its candidate is the same."""
    folder = tmp_path_factory.mktemp("identity")
    route = {
        "name": "identity",
        "protocol": "open-inference",
        "compare": {"prediction": "outputs[*].data", "comparator": "exact"},
    }
    with (
        identity_server(folder) as server,
        running(shadow_config(route, server.url, server.url), folder) as instance,
    ):
        yield instance


TENSORS: dict[str, npt.NDArray[Any]] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [10, 32]], np.uint8),
    "UINT16": np.array([[0, 65_535], [1, 2]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1], [1, 2]], np.uint64),
    "INT8": np.array([[-128, 127], [10, 32]], np.int8),
    "INT16": np.array([[-(2**15), 1], [2, 3]], np.int16),
    "INT32": np.array([[-(2**31), 1], [2, 3]], np.int32),
    "INT64": np.array([[-(2**63), 1], [2, 3]], np.int64),
    "FP16": np.array([[0.1, -65_504.0], [1e-7, 2.5]], np.float16),
    "FP32": np.array([[0.1, -3e38], [1e-45, 2.5]], np.float32),
    "FP64": np.array([[0.1, -1e308], [5e-324, 2.5]], np.float64),
    "BF16": np.array([[0.1, -3e38], [1e-40, 2.5]], ml_dtypes.bfloat16),
    "BYTES": np.array([["a", ""], ["ü", "two words"]], np.object_),
}


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_tritonclient_sends_and_gets_every_datatype(
    identity_proxy: Instance, is_binary: bool, compression: str | None
) -> None:
    """All in one request, compressed both ways or not; the record holds what numpy holds."""
    name = f"types-{is_binary}-{compression}"
    # JSON has no BF16 in this client.
    tensors = {kind: value for kind, value in TENSORS.items() if is_binary or kind != "BF16"}
    inputs = []
    for datatype, values in tensors.items():
        tensor = triton.InferInput(datatype, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=is_binary)
        inputs.append(tensor)
    with triton.InferenceServerClient(identity_proxy.runtime["listen"]) as client:
        answer = client.infer(
            "identity",
            inputs,
            headers={"x-request-id": name},
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
    for datatype, values in tensors.items():
        if datatype == "BYTES":
            texts = [
                text.decode() if is_binary else text for text in answer.as_numpy(datatype).flat
            ]
            assert texts == [*values.flat]
        else:
            assert np.array_equal(answer.as_numpy(datatype), values)
    (record,) = records_of(identity_proxy, name, 1)
    assert record["primary_content_encoding"] == compression
    assert (record["comparable"], record["equal"]) == (True, True)
    # A path with a wildcard names no one output, so that its data stays flat.
    expected = [_plain(values) for values in tensors.values()]
    assert record["primary_prediction"] == expected
    assert record["candidate_prediction"] == expected


def _plain(values: npt.NDArray[Any]) -> list[Any]:
    """Return an array as JSON numbers, flat."""
    if values.dtype == ml_dtypes.bfloat16:
        values = values.astype(np.float32)
    return [*values.reshape(-1).tolist()]

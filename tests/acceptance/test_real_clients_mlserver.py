"""A model server that others run, MLServer, behind a whole instance; asked as its users ask.

Its scikit-learn runtime serves a model of the iris data; a weaker one is the candidate. The first
run installs it into `.cache/mlserver`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_iris
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from proxy.demo.processes import Child
from tests.support.deadline import PATIENCE_S
from tests.support.instance import Instance, running
from tests.support.mlserver import InstallError, install, mlservers
from tests.support.shadowed import records_of, shadow_config

# The installation is part of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

PATH = "/v2/models/iris/infer"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    """Serve both models; skip where MLServer cannot be had, which in CI is a failure."""
    try:
        environment = install()
    except InstallError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(f"MLServer could not be installed: {exc}")
        pytest.skip(f"MLServer could not be installed: {exc}")
    with mlservers(environment, tmp_path_factory.mktemp("mlserver")) as started:
        yield started


@pytest.fixture(scope="module")
def proxied(
    servers: dict[str, Child], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """Run a proxy in front of both."""
    route = {
        "name": "iris",
        "protocol": "open-inference",
        "match": {"path_prefix": "/v2"},
        "compare": {"prediction": "outputs[0].data", "comparator": "label"},
    }
    config = shadow_config(route, servers["logistic"].url, servers["tree"].url)
    with running(config, tmp_path_factory.mktemp("proxy")) as instance:
        yield instance


def flowers() -> tuple[npt.NDArray[np.float64], list[int]]:
    """Return those that the models have not seen, `(75, 4)`, and their kinds."""
    features, kinds = load_iris(return_X_y=True)
    return features[1::2], kinds[1::2].tolist()


def _infer(client: Any, rows: npt.NDArray[np.float64], name: str, *outputs: str) -> Any:
    features = triton.InferInput("features", list(rows.shape), "FP64")
    features.set_data_from_numpy(rows, binary_data=False)
    wanted = [triton.InferRequestedOutput(output, binary_data=False) for output in outputs]
    headers = {"x-request-id": name}
    return client.infer("iris", [features], outputs=wanted, request_id=name, headers=headers)


def test_tritonclient_is_answered_as_without_a_proxy(
    proxied: Instance, servers: dict[str, Child]
) -> None:
    """Kinds and probabilities of every flower; both models' kinds are in the record, row by row."""
    rows, kinds = flowers()
    answers: dict[str, Any] = {}
    for name, url in (
        *((name, child.url.removeprefix("http://")) for name, child in servers.items()),
        ("proxied", proxied.runtime["listen"]),
    ):
        with triton.InferenceServerClient(url) as client:
            assert client.is_server_ready()
            assert client.is_model_ready("iris")
            answers[name] = _infer(client, rows, f"triton-{name}", "predict", "predict_proba")
    for output in ("predict", "predict_proba"):
        direct, seen = (answers[name].as_numpy(output) for name in ("logistic", "proxied"))
        assert np.array_equal(direct, seen)
    first, second = (answers[name].as_numpy("predict").tolist() for name in ("logistic", "tree"))
    assert np.mean(np.array(first).reshape(-1) == kinds) > 0.9
    (record,) = records_of(proxied, "triton-proxied", 1)
    assert record["primary_prediction"] == first  # one list a flower, as MLServer's shape says
    assert record["candidate_prediction"] == second
    assert (record["primary_model_version"], record["candidate_model_version"]) == (
        "logistic",
        "tree",
    )
    assert (record["comparable"], record["equal"]) == (True, first == second)
    assert record["loss_diff"] == 1.0


def test_httpx_is_answered_in_gzip_and_compared_all_the_same(
    proxied: Instance, servers: dict[str, Child]
) -> None:
    """MLServer compresses longer answers; the client gets the same bytes, the record the numbers."""
    rows, _ = flowers()
    tensor = {"name": "x", "shape": [75, 4], "datatype": "FP64", "data": rows.reshape(-1).tolist()}
    ask = {"id": "a", "inputs": [tensor], "outputs": [{"name": "predict_proba"}]}
    headers = {"x-request-id": "httpx-0"}
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        direct = client.post(f"{servers['logistic'].url}{PATH}", json=ask)
        seen = client.post(f"{proxied.base_url}{PATH}", json=ask, headers=headers)
    assert seen.status_code == 200
    assert seen.json() == direct.json()
    assert seen.headers["content-encoding"] == direct.headers["content-encoding"] == "gzip"
    assert seen.headers["ce-modelid"] == "iris"
    (record,) = records_of(proxied, "httpx-0", 1)
    assert record["primary_content_encoding"] == "gzip"
    probabilities = np.array(direct.json()["outputs"][0]["data"]).reshape(75, 3)
    assert record["primary_prediction"] == probabilities.tolist()
    assert len(record["candidate_prediction"]) == 75
    assert record["comparable"] is True


def test_what_mlserver_refuses_it_refuses_through_the_proxy(
    proxied: Instance, servers: dict[str, Child]
) -> None:
    """No such output, no such model: the same error, and no pair to compare."""
    rows, _ = flowers()
    errors = []
    for url in (servers["logistic"].url.removeprefix("http://"), proxied.runtime["listen"]):
        with (
            triton.InferenceServerClient(url) as client,
            pytest.raises(InferenceServerException) as caught,
        ):
            _infer(client, rows, "refused", "embedding")
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert "embedding" in errors[0]
    (record,) = records_of(proxied, "refused", 1)
    assert record["primary_status"] == "http_error"
    assert record["comparable"] is False

"""A model server for `tests.randhie.models`, asked as MLflow's is: `POST /QUESTION/invocations`.

python -m tests.randhie.server FILE...

It prints its URL, and takes the columns that a model knows from those that it is sent, by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.demo.listener import serve
from tests.randhie.models import Model, load_model


def app_of(models: Iterable[Model]) -> Starlette:
    """Return the application that serves `models`, which answer different questions."""
    by_question = {model.question: model for model in models}

    async def invocations(request: Request) -> Response:
        model = by_question.get(request.path_params["question"])
        if model is None:
            return _json({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no model"}, 404)
        try:
            table = orjson.loads(await request.body())["dataframe_split"]
            places = [table["columns"].index(column) for column in model.columns]
            rows = np.array(table["data"], dtype=np.float64)[:, places]
        except (ValueError, KeyError, TypeError, IndexError) as exc:
            return _json({"error_code": "BAD_REQUEST", "message": repr(exc)}, 400)
        return _json({"predictions": model.predict(rows)})

    async def ping(_request: Request) -> Response:
        return _json({})

    path = "/{question}/invocations"
    return Starlette(routes=[Route(path, invocations, methods=["POST"]), Route("/ping", ping)])


def _json(value: object, status: int = 200) -> Response:
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def main() -> None:
    """Load models and serve them on a free port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    serve(app_of(map(load_model, parser.parse_args().models)), "127.0.0.1", 0)


if __name__ == "__main__":
    main()

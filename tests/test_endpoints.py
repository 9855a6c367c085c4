"""Arrays and pictures that the browser fetches: equal to what the store holds, kept by the browser, never a path."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from dnnviz import endpoints
from dnnviz.catalogue import Catalogue
from dnnviz.results import Results
from dnnviz.settings import Settings
from dnnviz.store import Run
from tests.runs import write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "runs" / "small")


@pytest.fixture
def client(tmp_path: Path, run: Run) -> Iterator[FlaskClient]:
    server = Flask("test")
    settings = Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache")
    endpoints.register(server, endpoints.Context(settings, Catalogue(settings.runs), Results(tmp_path / "cache")), "/")
    with server.test_client() as found:
        yield found


def floats(client: FlaskClient, address: str) -> np.ndarray:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.data, "<f4").reshape([int(n) for n in answer.headers["X-Shape"].split(",")])


def test_layers_are_described_with_their_dead_share(client: FlaskClient, run: Run) -> None:
    described = client.get("/data/small/layers.json").json
    assert [entry["name"] for entry in described["layers"]] == [layer.name for layer in run.layers]
    assert [entry["stage"] for entry in described["layers"]] == ["stem", "layer1", "layer1", "fc"]
    for epoch, row in zip(described["epochs"], described["dead"], strict=True):
        assert row[0] == pytest.approx(float((run.active(epoch, "conv1") == 0).mean()), abs=1e-4)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("epoch=1&show=data", lambda run: run.data_mean(1)),
        ("epoch=5&show=data&split=test", lambda run: run.data_mean(5, split="test")),
        ("epoch=1&show=class:2", lambda run: run.class_mean(1)[2]),
        ("epoch=1&show=input:4", lambda run: run.activations(1)[4]),
        ("epoch=1&show=input:4&stat=max", lambda run: run.activations(1, stat="max")[4]),
        ("epoch=1&show=data&stat=active", lambda run: run.active(1)),
        ("epoch=1&show=class:2&stat=max", lambda run: run.activations(1, stat="max")[run.labels == 2].max(axis=0)),
        ("epoch=1&show=class:2&stat=active", lambda run: (run.activations(1, stat="max")[run.labels == 2] > 0).mean(axis=0)),
    ],
)
def test_values_are_those_of_the_store(client: FlaskClient, run: Run, query: str, expected) -> None:
    np.testing.assert_allclose(floats(client, f"/data/small/values?{query}"), expected(run), rtol=1e-6)


def test_selectivity_is_in_standard_deviations_of_the_unit(client: FlaskClient, run: Run) -> None:
    mean, std = run.data_mean(1), run.data_std(1)
    expected = np.where(std > 0, (run.class_mean(1)[0] - mean) / np.where(std > 0, std, 1), 0)
    np.testing.assert_allclose(floats(client, "/data/small/values?epoch=1&show=class:0&stat=selectivity"), expected, rtol=1e-4, atol=1e-6)


def test_all_epochs_and_their_range(client: FlaskClient, run: Run) -> None:
    every = floats(client, "/data/small/epochs?show=class:1")
    np.testing.assert_allclose(every, [run.class_mean(epoch)[1] for epoch in run.epochs], rtol=1e-6)
    found = floats(client, "/data/small/range?show=class:1")
    for row, layer in zip(found, run.layers, strict=True):
        assert row.tolist() == [every[:, layer.columns].min(), every[:, layer.columns].max()]


def test_inputs_come_with_their_predictions(client: FlaskClient, run: Run) -> None:
    found = client.get("/data/small/inputs.json?epoch=1").json
    assert found["labels"] == run.labels.tolist()
    assert found["predictions"] == run.logits(1).argmax(axis=1).tolist()


def test_pictures(client: FlaskClient, run: Run) -> None:
    image = np.asarray(Image.open(io.BytesIO(client.get("/data/small/image/3.png").data)))
    np.testing.assert_array_equal(image, run.images([3])[0])
    assert Image.open(io.BytesIO(client.get("/data/small/thumb/3.png?size=40").data)).size == (40, 40)
    sheet = Image.open(io.BytesIO(client.get("/data/small/sprite.png?size=16").data)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(sheet)[:16, 48:64], run.images([3])[0])


def test_the_browser_may_keep_an_answer_until_the_run_changes(client: FlaskClient, run: Run) -> None:
    first = client.get("/data/small/values?epoch=1")
    again = client.get("/data/small/values?epoch=1", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.data


@pytest.mark.parametrize(
    "address",
    [
        "/data/nope/values",
        "/data/..%2F..%2Fetc/layers.json",
        "/data/small/values?epoch=3",
        "/data/small/values?show=class:99",
        "/data/small/values?show=input:12",
        "/data/small/values?stat=median",
        "/data/small/values?split=nope",
        "/data/small/image/99.png",
    ],
)
def test_what_is_not_there_is_a_404(client: FlaskClient, address: str) -> None:
    assert client.get(address).status_code == 404

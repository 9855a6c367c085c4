"""Projections and neighbours: each against another implementation, and on what real layers look like at their worst."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnnviz import project as library
from dnnviz.errors import DNNVizError
from dnnviz.project import METHODS, nearest, project
from dnnviz.project.keys import get_graph, get_projection, graph_key, projection_key, wanted
from dnnviz.project.neighbours import exact_graph
from dnnviz.project.pca import principal_components
from dnnviz.project.quality import quality
from dnnviz.project.task import run as run_task
from dnnviz.results import Results
from dnnviz.settings import Settings
from tests.runs import LAYERS, write_run


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """240 vectors in 20 dimensions, four groups."""
    random = np.random.default_rng(0)
    centres = random.normal(scale=4, size=(4, 20))
    return (centres[np.arange(240) % 4] + random.normal(size=(240, 20))).astype(np.float32)


def quick(method: str) -> dict[str, object]:
    """Parameters that make a method fast enough for a test."""
    return {"iterations": 100} if method == "tsne" else {}


def test_methods_are_readable_without_heavy_libraries() -> None:
    code = (
        "import sys; import dnnviz.project.keys; from dnnviz.project import METHODS; "
        "assert list(METHODS) == ['pca', 'umap', 'tsne'], list(METHODS); "
        "print([m for m in ('torch', 'umap', 'numba', 'sklearn', 'openTSNE', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_describes_itself(name: str) -> None:
    method = METHODS[name]
    assert method.title and method.summary.endswith(".") and method.reading.endswith(".") and method.citation
    for parameter in method.parameters:
        assert parameter.text.endswith(".") and parameter.check(parameter.default) == parameter.default
        assert parameter.low < parameter.high


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_a_projection_is_deterministic_measured_and_keeps_groups(blobs: np.ndarray, name: str, dims: int) -> None:
    from sklearn.manifold import trustworthiness

    steps = []
    first = project(blobs, name, dims=dims, seed=3, progress=lambda done, total, text: steps.append((done, total, text)), **quick(name))
    again = project(blobs, name, dims=dims, seed=3, **quick(name))
    assert first.points.shape == (240, dims) and first.points.dtype == np.float32
    np.testing.assert_array_equal(first.points, again.points)
    assert first.trustworthiness == pytest.approx(trustworthiness(blobs, first.points), abs=1e-6)
    assert first.trustworthiness > 0.8
    assert 0 < first.neighbours_kept <= 1
    groups = np.arange(240) % 4
    assert (groups[nearest(first.points, 5)[0]] == groups[:, None]).mean() > 0.9
    assert steps
    if name != "pca":
        counted = [(done, total) for done, total, text in steps if text == METHODS[name].title]
        assert len(counted) > 3 and counted == sorted(counted) and counted[-1][0] == counted[-1][1]


@pytest.mark.parametrize("name", ["umap", "tsne"])
def test_another_seed_gives_another_picture(blobs: np.ndarray, name: str) -> None:
    assert not np.allclose(project(blobs, name, seed=0, **quick(name)).points, project(blobs, name, seed=1, **quick(name)).points)


@pytest.mark.parametrize("name", ["umap", "tsne"])
def test_what_progress_raises_ends_the_work(blobs: np.ndarray, name: str) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int, text: str) -> None:
        if done > 20 and text == METHODS[name].title:
            raise Stopped

    with pytest.raises(Stopped):
        project(blobs, name, progress=stop, **quick(name))


def test_pca_is_that_of_scikit_learn(blobs: np.ndarray) -> None:
    from sklearn.decomposition import PCA

    for matrix in (blobs, blobs[:12]):  # more inputs than units, and fewer
        reference = PCA(n_components=3).fit(matrix.astype(np.float64))
        found = project(matrix, "pca", dims=3)
        expected = reference.transform(matrix.astype(np.float64))
        np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-4)
        np.testing.assert_allclose(found.explained, reference.explained_variance_ratio_, atol=1e-6)
    points, explained = principal_components(blobs[:, :1], 3)
    assert explained[0] == pytest.approx(1) and (explained[1:] == 0).all() and (points[:, 1:] == 0).all()


def test_neighbours_are_those_of_scikit_learn(blobs: np.ndarray) -> None:
    from sklearn.neighbors import NearestNeighbors

    indices, distances = nearest(blobs, 15)
    expected_distances, expected = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(blobs.astype(np.float64)).kneighbors()
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-9)
    assert nearest(blobs[:4], 15)[0].shape == (4, 3)


def test_neighbours_survive_a_large_offset_duplicates_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.spatial.distance import cdist

    random = np.random.default_rng(1)
    matrix = random.normal(size=(90, 6)) * 1e-3 + 1e4
    matrix[30:60] = matrix[:30]
    monkeypatch.setattr("dnnviz.project.neighbours._BLOCK", 1000)
    indices, distances = nearest(matrix, 5)
    full = cdist(matrix, matrix)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :5], rtol=1e-6, atol=1e-12)
    assert (distances[:60, 0] == 0).all() and (indices[:30, 0] == np.arange(30, 60)).all()
    assert (indices != np.arange(90)[:, None]).all()
    for row in indices:
        assert len(set(row.tolist())) == 5


def test_the_sample_of_trustworthiness_is_near_the_whole() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(1500, 12))
    points = vectors[:, :2]
    whole, sampled = quality(vectors, points), quality(vectors, points, sample=500)
    assert whole == pytest.approx(sampled, abs=0.02) and whole != sampled


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("count", [5, 6, 12])
def test_few_inputs_are_projected(name: str, count: int) -> None:
    found = project(np.random.default_rng(0).normal(size=(count, 4)), name, **quick(name))
    assert np.isfinite(found.points).all() and np.isfinite(found.trustworthiness)
    assert bool(found.notes) == (name != "pca")


@pytest.mark.parametrize("name", METHODS)
def test_one_unit_and_many_duplicates_are_projected(name: str) -> None:
    random = np.random.default_rng(0)
    assert np.isfinite(project(random.normal(size=(40, 1)), name, **quick(name)).points).all()
    duplicates = np.repeat(random.normal(size=(4, 8)), 30, axis=0)
    assert np.isfinite(project(duplicates, name, **quick(name)).points).all()
    mostly_silent = np.zeros((60, 5))
    mostly_silent[:3] = random.normal(size=(3, 5))
    assert np.isfinite(project(mostly_silent, name, **quick(name)).points).all()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_unit_of_length_does_not_matter(blobs: np.ndarray, scale: float) -> None:
    found = project(blobs.astype(np.float64) * scale, "umap")
    assert found.trustworthiness > 0.8


@pytest.mark.parametrize(
    ("vectors", "method", "given", "sentence"),
    [
        (np.zeros((10, 4)), "pca", {}, "same activations"),
        (np.full((10, 4), np.nan), "pca", {}, "10 of 10 inputs have activations that are not numbers"),
        (np.zeros((1, 4)), "pca", {}, "There is 1 input; at least 2"),
        (np.zeros(4), "pca", {}, "shape [4]"),
        (np.eye(3), "umap", {}, "UMAP needs at least 5 inputs and there are 3"),
        (np.eye(3), "tsne", {}, "t-SNE needs at least 5 inputs and there are 3"),
        (np.eye(9), "lda", {}, "There is no projection 'lda' (there are: pca, umap, tsne)"),
        (np.eye(9), "umap", {"n_neighbors": 1}, "n_neighbors is 1; it must be a whole number from 2 to 90"),
        (np.eye(9), "umap", {"perplexity": 3}, "UMAP has no parameter 'perplexity'"),
        (np.eye(9), "pca", {"dims": 4}, "dims is 4"),
    ],
)
def test_bad_input_gets_a_sentence(vectors: np.ndarray, method: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(DNNVizError) as caught:
        project(vectors, method, **given)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_neighbours_of_bad_vectors_get_a_sentence() -> None:
    with pytest.raises(DNNVizError, match="not numbers"):
        nearest(np.array([[1.0, np.inf], [0.0, 1.0]]))


def test_a_graph_is_used_again(blobs: np.ndarray) -> None:
    graph = exact_graph(blobs)
    asked = []
    found = project(blobs, "umap", graph=graph, progress=lambda done, total, text: asked.append(text))
    np.testing.assert_array_equal(found.points, project(blobs, "umap").points)
    assert "Nearest neighbours" not in asked
    with pytest.raises(DNNVizError, match="100 vectors"):
        project(blobs[:100], "umap", graph=graph)


def test_umap_agrees_with_umap_learn_as_it_comes(blobs: np.ndarray) -> None:
    import umap

    reference = umap.UMAP(n_neighbors=15, random_state=0, n_jobs=1).fit_transform(blobs)
    found = project(blobs, "umap")
    assert found.trustworthiness == pytest.approx(quality(blobs, reference)[0], abs=0.02)


def test_the_task_stores_projection_and_graph_once(tmp_path: Path) -> None:
    opened = write_run(tmp_path / "runs" / "small", inputs=24)
    settings = Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache")
    results = Results(settings.private_cache() / "results")
    params = {"run": "small", "epoch": 5, "layer": "layer1.0", "method": "umap", "dims": 2, "seed": 0, "params": {"n_neighbors": 4}}
    reported = []
    keys = run_task(settings, params, lambda done, total, text: reported.append(text))
    want = wanted(opened, params)
    assert keys == [projection_key(opened, want), graph_key(opened, want)]
    assert want == wanted(opened, want.as_params("small"))
    stored, graph = get_projection(results, keys[0]), get_graph(results, keys[1])
    assert stored.points.shape == (24, 2) and stored.parameters["n_neighbors"] == 4 and stored.seconds > 0
    assert graph.indices.shape == (24, 23)
    expected = nearest(opened.activations(5, "layer1.0"), 23)
    np.testing.assert_array_equal(graph.indices, expected[0])
    reported.clear()
    assert run_task(settings, params, lambda done, total, text: reported.append(text)) == keys and not reported
    # PCA stands on the same graph, and knows its axes.
    keys_pca = run_task(settings, {**params, "method": "pca", "params": {}}, lambda done, total, text: None)
    assert keys_pca[1] == keys[1] and get_projection(results, keys_pca[0]).explained.shape == (2,)
    # Another epoch, layer, split or parameter is another question.
    others = [
        replace(want, epoch=1),
        replace(want, layer="conv1"),
        replace(want, split="test"),
        replace(want, dims=3),
        replace(want, parameters={**want.parameters, "min_dist": 0.5}),
    ]
    assert len({projection_key(opened, each) for each in [want, *others]}) == 6


def test_the_task_projects_a_split_and_names_what_is_wrong(tmp_path: Path) -> None:
    opened = write_run(tmp_path / "runs" / "small", inputs=24)
    settings = Settings(runs=(tmp_path / "runs",), cache=tmp_path / "cache")
    base = {"run": "small", "epoch": 5, "layer": LAYERS[0].name, "method": "pca"}
    keys = run_task(settings, {**base, "split": "test"}, lambda done, total, text: None)
    assert len(get_projection(Results(settings.private_cache() / "results"), keys[0]).points) == 12
    mean = np.load(opened.path / "snapshots" / "000005" / "mean.npy")
    mean[3, 0] = np.nan
    np.save(opened.path / "snapshots" / "000005" / "mean.npy", mean)
    for params, sentence in [
        ({**base}, "Layer conv1 at epoch 5: 1 of 24 inputs have activations that are not numbers"),
        ({**base, "epoch": 7}, "no snapshot of epoch 7"),
        ({**base, "layer": "nowhere"}, "no layer 'nowhere'"),
        ({**base, "split": "holdout"}, "no split 'holdout'"),
        ({**base, "run": "../small"}, "no run called"),
        ({**base, "seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(DNNVizError, match=sentence):
            run_task(settings, params, lambda done, total, text: None)


def test_warming_up_compiles_without_a_sound() -> None:
    library.warm()

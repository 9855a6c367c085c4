"""dnnviz.analysis.comparison and the modules that it uses: two sides over the layers they share, on small runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dnnviz.analysis import class_rows, comparison, distance, matching, sides
from dnnviz.analysis.sides import Side
from dnnviz.components import comparison_card as card
from dnnviz.errors import RunError
from dnnviz.store import Run, open_run
from tests.runs import LAYERS, write_run


def change(run: Run, name: str, edit) -> Run:
    """The run with one array of every snapshot changed in place."""
    for epoch in run.epochs:
        file = run.path / "snapshots" / f"{epoch:06d}" / f"{name}.npy"
        array = np.load(file)
        np.save(file, edit(array))
    return open_run(run.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return write_run(folder / "digits", inputs=96, classes=8)


@pytest.fixture(scope="module")
def twin(folder: Path) -> Run:
    """The same network: a little noise on every unit."""
    made = write_run(folder / "digits-twin", inputs=96, classes=8)
    noise = np.random.default_rng(1)
    made = change(made, "mean", lambda a: (a + noise.normal(0, 0.05, a.shape)).astype(a.dtype))
    return change(made, "class_mean", lambda a: a + 0.1)


@pytest.fixture(scope="module")
def shuffled(folder: Path, run: Run) -> Run:
    """The same network, its units in another order within every layer but the last."""
    made = write_run(folder / "digits-shuffled", inputs=96, classes=8)
    order = np.arange(run.units)
    for layer in LAYERS[:-1]:
        order[layer.columns] = layer.offset + np.random.default_rng(layer.offset).permutation(layer.units)
    for name in ("mean", "class_mean", "class_std", "data_mean", "data_std", "active"):
        made = change(made, name, lambda array: array[..., order])
    return made


@pytest.fixture(scope="module")
def marked(folder: Path) -> Run:
    """A run of which class 3 differs between training and test images."""
    made = write_run(folder / "digits-marked", inputs=96, classes=8)

    def edit(means: np.ndarray) -> np.ndarray:
        # The random runs differ between splits everywhere: bring the splits together, then move one class.
        means[1] = means[0] + np.random.default_rng(5).normal(0, 0.02, means[0].shape)
        means[0, 3, 6:14] += 1.0
        return means

    return change(made, "class_mean", edit)


def test_shared_layers_are_those_of_the_same_name_kind_and_size(run, folder):
    layers = (*LAYERS[:1], replace(LAYERS[1], units=9, shape=(9, 4, 4)), replace(LAYERS[2], offset=15), replace(LAYERS[3], name="head", offset=23))
    other = write_run(folder / "wider", layers=layers, classes=8)
    shared = matching.shared_layers(run, other)
    assert [layer.name for layer in shared.layers] == ["conv1", "layer1.0"]
    assert [layer.offset for layer in shared.layers] == [0, 6]
    assert shared.first.tolist() == [*range(6), *range(14, 22)]
    assert shared.second.tolist() == [*range(6), *range(15, 23)]
    assert shared.only_first == ("layer1.0.conv1", "fc")
    assert shared.only_second == ("layer1.0.conv1", "head")
    assert not shared.complete
    found = comparison.compare(Side(run, 5), Side(other, 5), "index")
    np.testing.assert_array_equal(found.second, other.data_mean(5)[shared.second])
    assert found.partners.tolist() == [*range(6), *range(8)]


def test_difference_of_two_classes_is_in_deviations_over_all_inputs(run):
    found = comparison.compare(Side(run, 5, "class:1"), Side(run, 5, "class:6"))
    expected = (run.one_class_mean(5, 6) - run.one_class_mean(5, 1)) / run.data_std(5)
    np.testing.assert_allclose(found.difference, expected, rtol=1e-4)
    np.testing.assert_allclose(found.distances[0], np.sqrt(np.mean(np.square(expected[:6]))), rtol=1e-4)
    assert found.pairing.how == "index" and found.pairing.agreement is None


def test_sides_of_inputs_and_splits(run):
    np.testing.assert_array_equal(Side(run, 5, "input:7").values, run.input_activations(5, 7))
    np.testing.assert_array_equal(Side(run, 5, "class:2", "test").values, run.one_class_mean(5, 2, "test"))
    assert (comparison.compare(Side(run, 5), Side(run, 5)).difference == 0).all()


def test_networks_with_a_common_order_are_compared_by_index(run, twin):
    pairing = matching.pair_units(run, 5, twin, 5)
    assert pairing.how == "index" and pairing.agreement > 0.9
    assert pairing.over == "96 inputs that both runs kept"


def test_networks_without_a_common_order_are_matched(run, shuffled):
    pairing = matching.pair_units(run, 5, shuffled, 5)
    assert pairing.how == "correlation" and abs(pairing.agreement) < matching.COMMON_ORDER
    assert pairing.correlation == pytest.approx(1.0, abs=1e-3)
    found = comparison.compare(Side(run, 5), Side(shuffled, 5))
    np.testing.assert_allclose(found.difference, 0, atol=1e-5)
    by_index = comparison.compare(Side(run, 5), Side(shuffled, 5), "index")
    assert by_index.distances[0] > 0.05
    # The output layer keeps the order of its classes.
    assert found.partners[22:].tolist() == [0, 1, 2, 3]
    assert "no common order" in " ".join(card.notice(Side(run, 5), Side(shuffled, 5), "index"))
    assert "stands beside the unit of B" in " ".join(card.notice(Side(run, 5), Side(shuffled, 5), "auto"))


def test_layers_of_any_width_are_compared_without_matching(run, shuffled, folder):
    values, over = matching.layer_similarity(run, 5, shuffled, 5)
    assert values.shape == (4, 4) and over == "96 inputs that both runs kept"
    np.testing.assert_allclose(values.diagonal(), 1, atol=1e-3)
    stranger = write_run(folder / "stranger", classes=3)
    assert matching.layer_similarity(run, 5, stranger, 5) is None
    assert not matching.comparable(run, stranger)


def test_a_class_whose_training_images_are_marked_stands_out(run, marked):
    found = class_rows.gap(marked, 5)
    assert found.splits == ("train", "test")
    assert found.outlier == 3 and found.measured.z[3] > 10
    assert class_rows.gap(run, 5).outlier is None
    first, second = Side(run, 5), Side(marked, 5)
    assert class_rows.rows_shown(first, second, "auto") == "gap"
    assert class_rows.rows_shown(first, replace(first, epoch=0), "auto") == "means"
    shared = matching.shared_layers(run, marked)
    rows = class_rows.class_layer(second, second, shared.layers[1], rows="gap")
    assert np.abs(rows.difference).mean(axis=1).argmax() == 3
    assert class_rows.telling_layer(first, second, comparison.compare(first, second), shared.layers, "gap") in ("layer1.0.conv1", "conv1", "layer1.0")
    said = "".join(part if isinstance(part, str) else part.children for part in card.standing_out(second, "B", ("train", "test"))[0].children)
    assert "class “class 3” lies" in said and "between train and test" in said


def test_a_run_of_one_split_has_no_gap(folder):
    single = write_run(folder / "single", splits=("all",))
    assert class_rows.gap(single, 5) is None
    assert class_rows.rows_shown(Side(single, 5), Side(single, 5), "gap") == "means"
    with pytest.raises(RunError, match="one split"):
        class_rows.class_layer(Side(single, 5), Side(single, 5), LAYERS[0], rows="gap")


def test_classes_of_one_network_are_set_against_the_data_set(run):
    side = Side(run, 5, "class:1")
    part = class_rows.class_layer(side, side, LAYERS[0])
    expected = (run.class_mean(5, "conv1") - run.data_mean(5, "conv1")) / run.data_std(5, "conv1")
    np.testing.assert_allclose(part.difference, expected, rtol=1e-3, atol=1e-5)
    assert part.first_shade.max(axis=0) == pytest.approx(np.ones(6))


def test_classes_of_two_runs_are_joined_by_name(run, folder):
    other = write_run(folder / "renamed", classes=8)
    other.classes = ["x", "class 2", "class 1", "y", "z", "u", "v", "w"]
    assert sides.shared_classes(run, other) == [(1, 2), (2, 1)]


def test_what_is_worth_comparing(run, twin, folder):
    alike = {"digits-twin": twin, "lonely": write_run(folder / "lonely", classes=5)}
    assert comparison.worth_comparing(Side(run, 5), alike) == ("digits-twin", 5, "data")
    assert comparison.worth_comparing(Side(run, 5), {}) == (None, 0, "data")
    assert comparison.worth_comparing(Side(run, 0), {}) == (None, 0, "class:0")
    assert comparison.worth_comparing(Side(run, 5, "input:3"), alike) == (None, 5, f"class:{run.labels[3]}")
    name, epoch, show = comparison.worth_comparing(Side(run, 5, "class:2"), alike)
    assert (name, epoch) == (None, 5) and show != "class:2"


def test_overview_is_the_blocks_and_what_is_outside(run):
    assert [layer.name for layer in comparison.layers_of(run.layers, "outline")] == ["conv1", "layer1.0", "fc"]
    assert [layer.name for layer in comparison.layers_of(run.layers, "conv")] == ["conv1", "layer1.0.conv1"]
    assert len(comparison.layers_of(run.layers, "all")) == 4
    assert len(comparison.layers_of(run.layers, "attention")) == 3


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([0.1, 0.2, 0.3, 1.0], "SHARE layer1.0 CLOSE and part in the last layer, fc (1.00)."),
        ([0.1, 0.6, 0.3, 0.2], "SHARE conv1 CLOSE and part at layer1.0.conv1 (0.60), where they are furthest apart."),
        ([0.1, 0.6, 0.9, 0.2], "SHARE conv1 CLOSE and part at layer1.0.conv1 (0.60); they are furthest apart in layer1.0 (0.90)."),
        ([0.7, 0.6, 0.9, 0.8], "The two classes differ from the first layer on, most in layer1.0 (0.90)."),
        ([0.7, 0.1, 0.9, 0.2], "The two classes differ in the first layers, most in layer1.0 (0.90), and are close from fc on (distance below 0.5)."),
        ([0.1, 0.2, 0.3, 0.2], "The two classes stay close throughout: the largest distance of a layer is 0.30, at layer1.0."),
        ([0.0, 0.0, 0.0, 0.0], "The two are the same: no unit differs."),
    ],
)  # fmt: skip
def test_sentence_says_what_the_distances_are(run, distances, expected):
    first, second = Side(run, 5, "class:1"), Side(run, 5, "class:6")
    found = replace(comparison.compare(first, second), distances=np.array(distances))
    said = card.sentence(first, second, found, list(found.shared.layers))
    expected = expected.replace("SHARE", "The two classes share the network up to").replace("CLOSE", "(distance below 0.5)")
    assert "".join(part if isinstance(part, str) else part.children for part in said) == expected


def test_a_class_without_inputs_is_not_called_the_same(tmp_path):
    run = write_run(tmp_path / "few", inputs=6, classes=8)
    for name in ("class_mean", "class_std"):
        for epoch in run.epochs:
            file = run.path / "snapshots" / f"{epoch:06d}" / f"{name}.npy"
            values = np.load(file)
            values[:, 6:] = np.nan
            np.save(file, values)
    run = open_run(run.path)
    first, second = Side(run, 5, "class:1"), Side(run, 5, "class:7")
    found = comparison.compare(first, second)
    said = card.sentence(first, second, found, list(found.shared.layers))
    assert said == ["Nothing can be compared: B holds no input of “class 7”. Choose another class."]
    assert Side(run, 5, "class:1", "test").empty_class == "class 1"  # the first half of the inputs is the train split
    assert Side(run, 5, "class:1").empty_class is None


def test_titles_name_only_what_tells_the_sides_apart(run, twin):
    assert sides.titles(Side(run, 5, "class:1"), Side(run, 5, "class:2")) == ("class 1", "class 2")
    assert sides.titles(Side(run, 0), Side(run, 5)) == ("epoch 0", "epoch 5")
    assert sides.titles(Side(run, 5, id="a"), Side(twin, 5, id="b")) == ("a", "b")
    assert sides.titles(Side(run, 5, split="train"), Side(run, 5, split="test")) == ("train inputs", "test inputs")
    assert sides.titles(Side(run, 5), Side(twin, 0, "input:3")) == ("digits · epoch 5 · all inputs", "digits-twin · epoch 0 · input 3")


def test_ranking_names_layer_and_unit(run):
    found = comparison.compare(Side(run, 5, "class:1"), Side(run, 5, "class:6"))
    layers = [found.shared.layers[1], found.shared.layers[3]]
    ranked = card.ranking(found, layers, 5)
    columns = np.r_[6:14, 22:26]
    assert [column for *_, column in ranked] == columns[distance.rank_units(found.difference[columns], 5)].tolist()
    for layer, unit, value, column in ranked:
        assert layer.offset + unit == column and value == pytest.approx(float(found.difference[column]))

"""dnnviz.figures.similarity: names, scale and theme of the figure."""

import numpy as np

from dnnviz.figures.similarity import LABELLED, similarity
from dnnviz.theme import PALETTE


def test_rows_are_layers_of_a_from_the_top_and_negative_noise_is_zero():
    figure = similarity(np.array([[0.9, -0.02, 0.1]]), ["conv1"], ["a", "b", "c"], ("one, epoch 1", "two, epoch 2"), "dark")
    heatmap, layout = figure.data[0], figure.layout
    assert heatmap["z"].tolist() == [[0.9, 0.0, 0.1]] and (heatmap["zmin"], heatmap["zmax"]) == (0, 1)
    assert heatmap["colorscale"][1][1] == PALETTE["dark"]["cell1"]
    assert layout["yaxis"]["autorange"] == "reversed" and layout["yaxis"]["title"]["text"] == "A, one, epoch 1"
    assert list(layout["xaxis"]["tickvals"]) == ["a", "b", "c"]


def test_only_as_many_names_as_fit():
    names = [f"layer{i}" for i in range(175)]
    figure = similarity(np.eye(175), names, names, ("a", "b"), "light").to_dict()
    shown = figure["layout"]["yaxis"]["tickvals"]
    assert len(shown) <= LABELLED and shown[0] == "layer0"
    assert "texttemplate" not in figure["data"][0]

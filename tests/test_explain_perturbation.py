"""Attribution by covering parts of the picture, against Captum and scikit-learn on a trained network, and against closed forms."""

import numpy as np
import pytest
import torch
from torch import nn

from dnnviz.errors import DNNVizError
from dnnviz.explain import attribute
from dnnviz.explain import question as asking
from dnnviz.explain.methods.occlusion import _coarse_to_fine
from dnnviz.explain.methods.rise import enlarged
from dnnviz.explain.superpixels import cut
from tests import trained
from tests.networks import STYLES, Rectified
from tests.trained import MEAN, STD, close, predicted

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = {
    "occlusion": {"window": 4, "stride": 3},
    "feature_ablation": {"segments": 6},
    "lime": {"segments": 6, "samples": 60},
    "rise": {"masks": 40},
}


@pytest.fixture(scope="module")
def cifar(shared_data):
    return trained.cifar(shared_data, 4)


def linear(channels=3, size=12, classes=3):
    """A linear network, its weights [classes, C, H, W], and four inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
    weights = model[1].weight.detach().reshape(classes, channels, size, size)
    return model, weights, torch.randn(4, channels, size, size)


def spearman(a, b):
    ranks = [np.argsort(np.argsort(v)) for v in (a, b)]
    return np.corrcoef(*ranks)[0, 1]


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (7, 3), (32, 32), (5, 4)])
def test_occlusion_is_captums(resnet20, cifar, window, stride):
    from captum.attr import Occlusion

    with torch.no_grad():
        reference = Occlusion(resnet20).attribute(
            cifar,
            target=predicted(resnet20, cifar),
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            perturbations_per_eval=16,
        )
    found = attribute(resnet20, cifar, "occlusion", window=window, stride=stride)
    close(found.values, reference[:, :1])
    close(found.heatmap, reference[:, 0])


def read_by_hand(model, inputs, window, read):
    """The fall of `read` (inputs → [n]) under windows side by side, [n, H, W]."""
    with torch.no_grad():
        clear, found = read(inputs), torch.zeros(len(inputs), *inputs.shape[2:])
        for y in range(0, inputs.shape[2], window):
            for x in range(0, inputs.shape[3], window):
                covered = inputs.clone()
                covered[:, :, y : y + window, x : x + window] = 0
                found[:, y : y + window, x : x + window] = (clear - read(covered))[:, None, None]
    return found


def test_occlusion_reads_probability_class_and_activation(resnet20, cifar):
    best = predicted(resnet20, cifar)
    every = torch.arange(len(cifar))
    given = {"window": 8, "stride": 8}
    probability = read_by_hand(resnet20, cifar, 8, lambda x: resnet20(x).softmax(dim=1)[every, best])
    close(attribute(resnet20, cifar, "occlusion", reading="probability", **given).heatmap, probability)
    contrast = read_by_hand(resnet20, cifar, 8, lambda x: resnet20(x).softmax(dim=1)[:, 3] - resnet20(x).softmax(dim=1)[:, 5])
    close(attribute(resnet20, cifar, "occlusion", "class:3-class:5", reading="probability", **given).heatmap, contrast)

    changes = read_by_hand(resnet20, cifar, 8, lambda x: (resnet20(x).argmax(dim=1) == best).float())
    found = attribute(resnet20, cifar, "occlusion", 0, reading="class", **given)
    np.testing.assert_array_equal(found.heatmap, changes)
    share = changes.flatten(1).mean(dim=1).tolist()
    assert any(share)
    for note, expected in zip(found.notes, share, strict=True):
        assert note.text == "the class never changes" if expected == 0 else note.value == pytest.approx(100 * expected, rel=1e-5)

    def total(x):
        seen = []
        with resnet20.layer2[1].register_forward_hook(lambda module, _, output: seen.append(output.sum(dim=(1, 2, 3)))):
            resnet20(x)
        return seen[0]

    found = attribute(resnet20, cifar, "occlusion", layer="layer2.1", reading="activation", **given)
    close(found.heatmap, read_by_hand(resnet20, cifar, 8, total))
    assert found.layer == "layer2.1"
    assert attribute(resnet20, cifar, "occlusion", reading="score", layer="layer2.1", **given).layer is None


@pytest.mark.parametrize("style", STYLES)
def test_occlusion_reads_a_layer_before_an_in_place_relu_overwrites_it(style):
    torch.manual_seed(1)
    model, inputs = Rectified(style).eval(), torch.randn(2, 3, 9, 9)
    found = attribute(model, inputs, "occlusion", layer="a", reading="activation", window=3, stride=3)
    close(found.heatmap, read_by_hand(model, inputs, 3, lambda x: model.a(x).sum(dim=(1, 2, 3))))


def test_a_reading_that_is_not_defined_gets_a_sentence():
    torch.manual_seed(1)
    model, inputs = Rectified("module").eval(), torch.randn(2, 3, 9, 9)
    with pytest.raises(DNNVizError, match="not defined for a unit"):
        attribute(model, inputs, "occlusion", "unit:b:3", reading="probability")
    with pytest.raises(DNNVizError, match="no layer 'z'"):
        attribute(model, inputs, "occlusion", layer="z", reading="activation")
    with pytest.raises(DNNVizError, match="a#2 does not give one activation an input in its call 2"):
        attribute(model, inputs, "occlusion", layer="a#2", reading="activation")
    assert not model.a._forward_hooks


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (13, 13), (16, 7)])
def test_places_come_coarse_first_and_each_once(rows, columns):
    places = _coarse_to_fine(rows, columns)
    assert sorted((y, x) for _, y, x in places) == [(y, x) for y in range(rows) for x in range(columns)]
    steps = [step for step, _, _ in places]
    assert steps == sorted(steps, reverse=True) and steps[-1] == 1
    # Wherever one stops after the first grid, every place has been seen or is stood for by one that has.
    coarse = {(y, x) for step, y, x in places if step == steps[0]}
    assert all((y // steps[0] * steps[0], x // steps[0] * steps[0]) in coarse for _, y, x in places)


def test_occlusion_shows_its_map_growing_from_coarse_to_fine(resnet20, cifar, monkeypatch):
    monkeypatch.setattr(asking, "_MOST_PER_PASS", 4)
    told = []
    found = attribute(resnet20, cifar[:1], "occlusion", watch=lambda *event: told.append(event), window=4, stride=4)
    assert [(done, total) for _, done, total, _ in told] == [(done, 64) for done in range(4, 65, 4)]
    # The first grid is 4 × 4 places: a map of the whole picture, in blocks, near the final one; each finer grid is nearer.
    errors = [np.abs(heatmap - found.heatmap).mean() for _, _, _, heatmap in told]
    first = told[3][3][0]
    assert first.all() and np.array_equal(first, np.kron(first[::8, ::8], np.ones((8, 8), np.float32)))
    assert errors[0] > errors[3] > errors[9] > errors[15] == 0
    monkeypatch.undo()
    np.testing.assert_allclose(found.heatmap, attribute(resnet20, cifar[:1], "occlusion", window=4, stride=4).heatmap, atol=1e-4)


def test_feature_ablation_is_captums(resnet20, cifar):
    from captum.attr import FeatureAblation

    pieces, counts = cut(cifar, 12)
    assert len(set(counts.tolist())) > 1, "choose inputs with different numbers of pieces"
    found = attribute(resnet20, cifar, "feature_ablation", segments=12)
    for row, target in enumerate(predicted(resnet20, cifar)):
        with torch.no_grad():
            one = cifar[row : row + 1]
            reference = FeatureAblation(resnet20).attribute(one, target=int(target), feature_mask=pieces[row][None, None], perturbations_per_eval=16)
        close(found.values[row : row + 1], reference[:, :1])


def test_superpixels_are_whole_pieces_and_depend_on_their_picture_only(cifar):
    from scipy import ndimage

    pieces, counts = cut(cifar, 30)
    for piece_of, count in zip(pieces.numpy(), counts.tolist(), strict=True):
        assert 15 <= count <= 45 and np.array_equal(np.unique(piece_of), np.arange(count))
        assert all(ndimage.label(piece_of == piece)[1] == 1 for piece in range(count))
    assert torch.equal(cut(cifar[2:3] * 3 + 1, 30)[0][0], pieces[2])
    halves = torch.zeros(1, 1, 16, 16)
    halves[..., 7:] = 1  # the piece may end a pixel beside the edge
    grey, _ = cut(halves, 4)
    assert not set(grey[0, :, :6].unique().tolist()) & set(grey[0, :, 8:].unique().tolist())
    assert cut(torch.zeros(1, 3, 16, 16), 4)[1].item() >= 1


def test_lime_is_the_weighted_ridge_regression_of_scikit_learn(resnet20, cifar):
    from sklearn.linear_model import Ridge

    samples, one = 150, cifar[1:2]
    found = attribute(resnet20, cifar, "lime", segments=12, samples=samples, ridge=2, seed=5)
    pieces, counts = (v[1].numpy() for v in cut(cifar, 12))
    shown = np.random.default_rng(5).random((counts, samples)).T < 0.5
    with torch.no_grad():
        scores = resnet20(torch.from_numpy(shown[:, pieces][:, None]) * one)[:, found.targets[1]].double().numpy()
    distance = 1 - np.sqrt(shown.mean(axis=1))
    weights = np.exp(-(distance**2) / (2 * 0.25**2))
    reference = Ridge(alpha=2).fit(shown.astype(float), scores, sample_weight=weights)
    close(found.heatmap[1], reference.coef_[pieces])
    fit = reference.score(shown.astype(float), scores, sample_weight=weights)
    assert found.notes[1].value == pytest.approx(1 - (1 - fit) * (samples - 1) / (samples - counts - 1), abs=1e-4)


def test_lime_ranks_pieces_as_captums(resnet20, cifar):
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    one, (pieces, counts) = cifar[1:2], cut(cifar[1:2], 12)
    found = attribute(resnet20, one, "lime", segments=12, samples=500)
    torch.manual_seed(0)
    explainer = Lime(resnet20, SkLearnLinearRegression(), get_exp_kernel_similarity_function("cosine", kernel_width=0.25))
    reference = explainer.attribute(
        one, target=int(found.targets[0]), feature_mask=pieces[:, None], n_samples=500, perturbations_per_eval=100, return_input_shape=True
    )
    each = [int((pieces[0].flatten() == piece).nonzero()[0]) for piece in range(int(counts[0]))]
    assert spearman(found.heatmap[0].ravel()[each], reference[0, 0].flatten()[each].numpy()) > 0.85


def test_superpixel_methods_of_a_linear_network_have_closed_forms():
    model, weights, inputs = linear()
    target = torch.tensor([0, 1, 2, 1])
    pieces, counts = cut(inputs, 9)
    shares = (weights[target] * inputs).sum(dim=1)
    expected = torch.stack(
        [torch.stack([share[of == piece].sum() for piece in range(count)])[of] for share, of, count in zip(shares, pieces, counts, strict=True)]
    )
    close(attribute(model, inputs, "feature_ablation", target, segments=9).heatmap, expected)
    found = attribute(model, inputs, "lime", target, segments=9, samples=400, ridge=1e-6)
    close(found.heatmap, expected)
    assert all(note.value == pytest.approx(1, abs=1e-4) and note.state == "good" for note in found.notes)
    few = attribute(model, inputs, "lime", target, segments=20, samples=10)
    assert {note.state for note in few.notes} == {"warning"} and few.notes[0].text.startswith("10 samples, ")


def test_lime_says_where_a_linear_model_does_not_fit():
    class Parity(nn.Module):
        """The score depends on whether an even number of four quarters is shown: no linear model fits."""

        def forward(self, x):
            seen = x[:, 0, 2::8, 2::8].flatten(1).sign()
            return torch.stack([1 - 2 * (seen.sum(dim=1) % 2), torch.zeros(len(x))], dim=1)

    halves = torch.ones(1, 1, 16, 16) * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.5
    note = attribute(Parity(), halves, "lime", 0, segments=4, samples=500).notes[0]
    assert note.state == "warning" and note.value < 0.2 and note.text.startswith("R² ")


def test_rise_is_the_mean_score_of_the_masks_that_show_a_pixel(resnet20, cifar):
    masks, seed, inputs = 60, 2, cifar[:2]
    found = attribute(resnet20, inputs, "rise", masks=masks, seed=seed)
    random = np.random.default_rng(seed)
    cells = torch.from_numpy((random.random((masks, 8, 8)) < 0.5).astype(np.float32))
    drawn = enlarged(cells, random.random((masks, 2)), (32, 32))
    best = torch.from_numpy(found.targets)
    with torch.no_grad():
        scores = torch.stack([resnet20(mask * inputs)[torch.arange(2), best] for mask in drawn])
    expected = torch.einsum("mn,mhw->nhw", scores.double(), drawn.double()) / drawn.double().sum(dim=0) - scores.double().mean(dim=0)[:, None, None]
    close(found.heatmap, expected)
    halves = [np.einsum("mn,mhw->nhw", scores[i::2], drawn[i::2]) / drawn[i::2].sum(dim=0).numpy() for i in range(2)]
    r = np.corrcoef(halves[0][0].ravel(), halves[1][0].ravel())[0, 1]
    assert found.notes[0].value == pytest.approx(2 * r / (1 + r), abs=1e-2)


def test_masks_of_rise_are_enlarged_and_shifted_cells():
    torch.manual_seed(0)
    cells = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    # Cells of 2 pixels; 2 × 2 cells enlarged to 6 × 6, cut to 4 × 4. Along a row: 0, 1/6 … interpolated between centres 1 and 4.
    ramp = torch.tensor([0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    full = (1 - ramp)[:, None] * ramp
    close(enlarged(cells, np.array([[0.0, 0.0]]), (4, 4)).numpy(), full[None, :4, :4])
    close(enlarged(cells, np.array([[0.6, 0.99]]), (4, 4)).numpy(), full[None, 1:5, 1:5])
    many = enlarged((torch.rand(2000, 8, 8) < 0.5).float(), np.random.default_rng(0).random((2000, 2)), (30, 20))
    assert many.shape == (2000, 30, 20) and many.min() >= 0 and many.max() <= 1
    assert (many.mean(dim=0) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("method", ["rise", "lime", "feature_ablation", "occlusion"])
def test_maps_point_at_the_object(method):
    class Bright(nn.Module):
        """Scores how much brightness there is in a picture."""

        def forward(self, x):
            return torch.stack([x.square().sum(dim=(1, 2, 3)), 1 + 0 * x.sum(dim=(1, 2, 3))], dim=1)

    inputs = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    inputs[0, :, 4:9, 20:26] = 2
    inputs[1, :, 22:28, 5:10] = 2
    found = attribute(Bright(), inputs, method, 0)
    for heatmap, (top, left) in zip(found.heatmap, ((4, 20), (22, 5)), strict=True):
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert top - 2 <= y < top + 8 and left - 2 <= x < left + 8
    flat = attribute(Bright(), inputs, method, 1)
    assert {note.state for note in flat.notes} == {"degenerate"} and not np.abs(flat.heatmap).max() > 1e-6


@pytest.mark.parametrize("method", ["occlusion", "feature_ablation", "lime"])
@pytest.mark.parametrize("fill", ["mean", "black", "blur"])
def test_covers_show_what_was_asked_for(method, fill):
    """Of a linear network every cover takes away Σ weights · (input − cover), however it is cut."""
    model, _, inputs = linear()
    inputs = (inputs.sigmoid() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    given = {"occlusion": {"window": 4, "stride": 4}, "feature_ablation": {"segments": 9}, "lime": {"segments": 9, "samples": 300, "ridge": 1e-6}}[
        method
    ]
    found = attribute(model, inputs, method, 1, fill=fill, mean=MEAN, std=STD, **given)
    if method == "occlusion":
        total = found.heatmap[:, ::4, ::4].sum(axis=(1, 2))
    else:
        total = [sum(heatmap[of == piece].mean() for piece in of.unique()) for heatmap, of in zip(found.heatmap, cut(inputs, 9)[0], strict=True)]
    path = attribute(model, inputs, "integrated_gradients", 1, steps=2, baseline=fill, mean=MEAN, std=STD)
    np.testing.assert_allclose(total, path.heatmap.sum(axis=(1, 2)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", FAST)
@pytest.mark.parametrize("channels", [1, 3])
def test_contrasts_and_units_are_explained(method, channels):
    torch.manual_seed(1)
    model, inputs = Rectified("shared in place", channels).eval(), torch.randn(3, channels, 9, 9)
    first, second, both = (attribute(model, inputs, method, target, **FAST[method]) for target in ("class:1", "class:2", "class:1-class:2"))
    # Each is linear in the score.
    close(both.heatmap, first.heatmap - second.heatmap, 1e-3)
    unit = attribute(model, inputs, method, "unit:b:3", **FAST[method])
    assert unit.targets.tolist() == [-1, -1, -1]

    class Unit(nn.Module):
        def forward(self, x):
            return model.norm(model.b(model.a(x).relu())).relu().mean(dim=(2, 3))

    close(unit.heatmap, attribute(Unit(), inputs, method, 3, **FAST[method]).heatmap, 1e-3)


@pytest.mark.parametrize("method", FAST)
def test_maps_grow_until_they_are_done_and_a_job_can_stop_them(method, monkeypatch):
    torch.manual_seed(1)
    model, inputs = Rectified("shared in place").eval(), torch.randn(3, 3, 9, 9)
    monkeypatch.setattr(asking, "_MOST_PER_PASS", 3)
    told = []
    found = attribute(model, inputs, method, watch=lambda *event: told.append(event), **FAST[method])
    assert len(told) > 2 and all(name == method and heatmap.shape == (3, 9, 9) for name, _, _, heatmap in told)
    assert [done for _, done, _, _ in told] == sorted({done for _, done, _, _ in told}) and told[-1][1] == told[-1][2]
    np.testing.assert_array_equal(told[-1][3], found.heatmap)
    assert not np.array_equal(told[0][3], found.heatmap)

    def stop(*_):
        raise KeyboardInterrupt

    for reading in [{}, {"reading": "activation"}] if method == "occlusion" else [{}]:
        with pytest.raises(KeyboardInterrupt):
            attribute(model, inputs, method, watch=stop, **FAST[method], **reading)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("order", [("rise", "saliency"), ("occlusion", "integrated_gradients", "full_gradient"), ("lime", "grad_cam", "deconvnet")])
def test_gradients_can_follow_perturbations(order):
    from dnnviz.explain import attribute_all

    torch.manual_seed(1)
    model, inputs = Rectified("module").eval(), torch.randn(2, 3, 9, 9)
    for target in (1, "unit:b:2"):
        together = attribute_all(model, inputs, {name: FAST.get(name, {}) for name in order}, target)
        for name, found in together.items():
            np.testing.assert_array_equal(found.heatmap, attribute(model, inputs, name, target, **FAST.get(name, {})).heatmap)

"""dnnviz.analysis.distance: units, scales, and the answers that are known beforehand."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from dnnviz.analysis import distance
from dnnviz.analysis.assignment import assign

LAYERS = [slice(0, 3), slice(3, 5)]


def test_difference_is_in_standard_deviations_of_each_unit():
    first, second = np.array([0.0, 1.0, 2.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 4.0, 0.0])
    std = np.array([0.5, 1.0, 4.0, 2.0, 1.0])
    np.testing.assert_allclose(distance.standardised_difference(first, second, std, LAYERS), [2.0, 0.0, -0.5, 2.0, 0.0])


def test_difference_takes_classes_as_leading_axis():
    first, second = np.zeros((7, 5)), np.ones((7, 5))
    found = distance.standardised_difference(first, second, np.full(5, 0.5), LAYERS)
    assert found.shape == (7, 5)
    assert (found == 2).all()


def test_a_unit_that_hardly_varies_is_measured_by_its_layer():
    first, second = np.array([0.0, 3.0, 1.0, 0.0, 0.0]), np.array([0.0, 3.5, 1.0, 0.0, 0.0])
    found = distance.standardised_difference(first, second, np.array([0.0, 1e-9, 1.0, 0.0, 0.0]), LAYERS)
    np.testing.assert_allclose(found, [0, 0.5 / (distance.LEAST * np.sqrt(1 / 3)), 0, 0, 0], rtol=1e-6)


def test_a_layer_that_does_not_vary_has_no_scale():
    first, second = np.array([0.0, 3.0, 1.0, 2.0, 2.0]), np.array([0.0, 3.5, 1.0, 2.0, 2.0])
    found = distance.standardised_difference(first, second, np.zeros(5), LAYERS)
    assert found[0] == 0 and np.isnan(found[1]) and found[2] == 0
    assert (found[3:] == 0).all()
    assert distance.layer_distances(found, LAYERS).tolist() == [0.0, 0.0]
    assert np.isnan(distance.layer_distances(np.array([np.nan, 1.0]), [slice(0, 1), slice(1, 2)])[0])
    assert distance.layer_distances(np.zeros((3, 0)), []).shape == (3, 0)


def test_swapping_the_sides_changes_the_sign_only():
    rng = np.random.default_rng(0)
    first, second, std = rng.normal(size=5), rng.normal(size=5), rng.uniform(1, 2, 5)
    there = distance.standardised_difference(first, second, std, LAYERS)
    np.testing.assert_allclose(there, -distance.standardised_difference(second, first, std, LAYERS))


def test_pooled_std_is_the_root_of_the_mean_variance():
    np.testing.assert_allclose(distance.pooled_std(np.array([3.0, 1.0]), np.array([4.0, 1.0])), [np.sqrt(12.5), 1.0])


def test_layer_distance_is_the_root_mean_square():
    difference = np.array([[3.0, 0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0, np.nan]])
    np.testing.assert_allclose(distance.layer_distances(difference, LAYERS), [[np.sqrt(3), 2.0], [0.0, 1.0]])


def test_ranking_is_by_size_and_leaves_out_what_has_no_scale():
    difference = np.array([0.5, -3.0, np.nan, 2.0, 0.0])
    assert distance.rank_units(difference).tolist() == [1, 3, 0]
    assert distance.rank_units(difference, 2).tolist() == [1, 3]


def test_robust_z_finds_the_one_that_stands_out_and_none_among_equals():
    values = np.array([1.0, 1.1, 0.9, 1.05, 5.0, 0.95])
    found = distance.robust_z(values)
    assert found.argmax() == 4 and found[4] > 10
    assert np.abs(distance.robust_z(np.array([1.0, 1.0, 1.0, 1.01]))).max() < 1
    assert np.isnan(distance.robust_z(np.array([np.nan, np.nan]))).all()


def two_networks(seed: int = 0, n: int = 300, units: int = 40, noise: float = 0.3):
    """Activations of a layer, and of the same layer with its units in another order and scale, and some noise."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, units))
    order = rng.permutation(units)
    second = first[:, order] * rng.uniform(0.5, 3, units) + 1 + noise * rng.normal(size=(n, units))
    return first, second, order


def test_matching_finds_the_permutation():
    first, second, order = two_networks()
    partner = distance.match_units(distance.correlations(first, second))
    assert sorted(partner) == list(range(40))
    assert (order[partner] == np.arange(40)).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 60), (200, 200)])
def test_the_best_pairs_are_scipys(shape):
    random = np.random.default_rng(1)
    for profit in (random.normal(size=shape), np.round(random.normal(size=shape)), np.zeros(shape)):
        rows, columns = linear_sum_assignment(-profit)
        found = assign(profit)
        assert len(set(found.tolist())) == shape[0]
        assert profit[np.arange(shape[0]), found].sum() == pytest.approx(profit[rows, columns].sum())
    if shape[0] < shape[1]:
        with pytest.raises(ValueError, match="cannot have a column each"):
            assign(np.zeros(shape[::-1]))


def test_matching_is_the_best_and_of_wide_layers_nearly():
    random = np.random.default_rng(1)
    for units, share in ((200, 1), (distance.EXACT + 50, 0.95)):
        correlation = random.normal(size=(units, units)).astype(np.float32)
        rows, columns = linear_sum_assignment(-correlation)
        partner = distance.match_units(correlation)
        assert len(set(partner.tolist())) == units
        assert correlation[np.arange(units), partner].sum() >= (share - 1e-6) * correlation[rows, columns].sum()


def test_matching_pairs_units_that_do_not_vary_last():
    first, second, _ = two_networks(units=6, noise=0.0)
    first[:, 2], second[:, 4] = 0.0, 7.0
    partner = distance.match_units(distance.correlations(first, second))
    assert sorted(partner) == list(range(6))
    assert (distance.match_units(np.zeros((4, 4))) == np.arange(4)).all()
    # More still units on one side than on the other.
    first[:, 3] = 1.0
    assert sorted(distance.match_units(distance.correlations(first, second))) == list(range(6))
    assert sorted(distance.match_units(distance.correlations(second, first))) == list(range(6))


def test_order_agreement_tells_one_network_from_two():
    first, second, order = two_networks()
    same = np.empty_like(second)
    same[:, order] = second
    assert distance.order_agreement(distance.correlations(first, same)) > 0.9
    assert abs(distance.order_agreement(distance.correlations(first, second))) < 0.15
    # All units of an early layer follow the brightness: that alone is no common order.
    brightness = 3 * np.random.default_rng(2).normal(size=(300, 1))
    assert distance.correlations(first + brightness, second + brightness).diagonal().mean() > 0.6
    assert abs(distance.order_agreement(distance.correlations(first + brightness, second + brightness))) < 0.2
    assert np.isnan(distance.order_agreement(np.zeros((5, 5))))


def hsic(k: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, written out: the unbiased estimate, from similarities with a zero diagonal."""
    n, one = len(k), np.ones(len(k))
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    middle = one @ k @ one * (one @ other @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ other) + middle - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))


def test_cka_is_the_unbiased_estimate():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 7)), rng.normal(size=(20, 11))
    y[:, :7] += x
    kx, ky = x @ x.T, y @ y.T
    expected = hsic(kx, ky) / np.sqrt(hsic(kx, kx) * hsic(ky, ky))
    np.testing.assert_allclose(distance.cka([x], [y]), [[expected]], rtol=1e-4)
    # In batches: the estimates are averaged, then divided.
    parts = [slice(0, None, 2), slice(1, None, 2)]
    means = [np.mean([hsic(k[part, part], other[part, part]) for part in parts]) for k, other in ((kx, ky), (kx, kx), (ky, ky))]
    np.testing.assert_allclose(distance.cka([x], [y], batch=10), [[means[0] / np.sqrt(means[1] * means[2])]], rtol=1e-4)


def test_cka_in_batches_tends_to_that_of_all():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1200, 40))
    y = x @ rng.normal(size=(40, 25)) + rng.normal(size=(1200, 25))
    whole, batched = (float(distance.cka([x], [y], batch=size)[0, 0]) for size in (1200, 64))
    assert abs(whole - batched) < 0.02 < whole


def test_cka_needs_no_common_order_number_or_rotation_of_units():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 30))
    rotation = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    other = rng.normal(size=(60, 500))
    found = distance.cka([x], [x, x[:, ::-1], 3 * x @ rotation + 1, np.hstack([x, x]), other, 1e9 * x])[0]
    np.testing.assert_allclose(found[:4], 1.0, atol=1e-4)
    assert found[5] > 0.9999 and abs(found[4]) < 0.1  # the biased estimate is far above zero with 500 units and 60 inputs
    assert (distance.centred_similarities(np.ones((10, 3))) == 0).all()
    with pytest.raises(ValueError, match="at least 4"):
        distance.centred_similarities(x[:3])

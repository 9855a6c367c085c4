"""The model-parameter randomisation check: does a map change when what the network has learned is taken away?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dnnviz.explain.maps import removed_after
from dnnviz.explain.network import undisturbed

_UNCHANGED = 0.7  # rank correlation above which a map counts as hardly changed
_OWN = "the network's own parameters"
_SPREAD = 0.02  # usual standard deviation of tokens and positions at the start
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_CONVOLUTIONS = nn.modules.conv._ConvNd


@dataclass(frozen=True)
class Likeness:
    """Of two maps: Spearman's correlation of absolute values, and of the values as they are (None where a map is constant), and SSIM."""

    correlation: float | None
    signed: float | None
    similarity: float


def stages(model: nn.Module, input: torch.Tensor, most: int) -> list[tuple[str, list[str]]]:
    """Stages of a network from the output backwards: (name, names of its modules with parameters of their own); runs one pass of [1, C, H, W].

    The layer of the output is a stage of its own, the others are grouped by their place in the module tree, in the order in which they run.
    """
    names = {module: name for name, module in model.named_modules()}
    ran: dict[str, int] = {}

    def record(module: nn.Module, _inputs: object) -> None:
        ran.setdefault(names[module], len(ran))

    with removed_after(*(module.register_forward_pre_hook(record) for module in names)), undisturbed(model), torch.no_grad():
        model(input)
    owners: dict[str, list[str]] = {}  # a module that ran → itself and those inside it whose parameters it uses without calling them
    for name, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        user = name
        while user not in ran and user:
            user = user.rpartition(".")[0]
        # What never ran (a head for training only) plays no part; the network itself is nobody's stand-in.
        if user in ran and (user or not name):
            owners.setdefault(user, []).append(name)
    order: list[str] = []
    for user in sorted(owners, key=ran.__getitem__):
        if order and isinstance(model.get_submodule(user), _NORMS):
            # A normalisation goes with the layer before it.
            owners[order[-1]] += owners[user]
        else:
            order.append(user)
    if not order:
        return []
    inner = {user for user in order if any(True for _ in model.get_submodule(user).children())}
    groups = [*_grouped(order[:-1], most - 1, inner), (order[-1] or _OWN, order[-1:])]
    return [(title, [name for user in group for name in owners[user]]) for title, group in reversed(groups)]


def cascade(model: nn.Module, stages: list[tuple[str, list[str]]], seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """(name of the stage, network whose stages up to and with this one are random), the same network each time, changed further.

    It is a copy: the model given stays as it is. Weights get the usual random start (He et al. 2015 for convolutions), drawn from the seed.
    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim: Sanity checks for saliency maps, NeurIPS 2018, section 4.1.
    """
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for title, names in stages:
        for name in names:
            _restart(changed.get_submodule(name), generator)
        yield title, changed


def likeness(heatmap: np.ndarray, other: np.ndarray) -> Likeness:
    """How alike two maps [H, W] are."""
    from skimage.metrics import structural_similarity

    small = min(7, *heatmap.shape)
    similarity = structural_similarity(_scaled(heatmap), _scaled(other), data_range=1.0, win_size=small - (small + 1) % 2)
    return Likeness(spearman(np.abs(heatmap), np.abs(other)), spearman(heatmap, other), float(similarity))


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation of two arrays of one shape; None where one is constant or not finite."""
    from scipy.stats import rankdata

    if not (np.isfinite(first).all() and np.isfinite(second).all()) or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def verdict(correlations: list[float | None]) -> tuple[str, str]:
    """(state, sentence) from the correlations of the stages: of the first only the output is random, of the last every weight."""
    first, last = (None if c is None else f"{c:.2f}".replace("-", "\N{MINUS SIGN}") for c in (correlations[0], correlations[-1]))
    if last is not None and correlations[-1] > _UNCHANGED:
        return "warning", (
            f"With all weights random the map hardly changes (rank correlation {last}): "
            "it shows the picture and the network's build, and does not depend on what the network has learned."
        )
    if first is not None and correlations[0] > _UNCHANGED and len(correlations) > 1:
        return "warning", (
            f"With the output's weights random the map hardly changes (rank correlation {first}): it depends on what the network has learned, "
            "but hardly on what that means for the target."
        )
    how = "the method shows nothing" if last is None else f"the map is another one (rank correlation {last})"
    return "good", f"With all weights random {how}: it depends on what the network has learned."


def _grouped(names: list[str], most: int, inner: set[str]) -> list[tuple[str, list[str]]]:
    """(title, names) of at most `most` groups, in order: by as much of the names' beginnings as tells them apart, then neighbours together.

    inner: modules with parts of their own, whose names would stand for more than the parameters that they hold themselves.
    """
    groups: dict[str, list[str]] = {}
    for depth in range(1, max((name.count(".") + 1 for name in names), default=0) + 1):
        groups = {}
        for name in names:
            groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
        # Enough stages, or a few of which none is most of the network.
        if len(groups) >= most or (len(groups) > 2 and 2 * max(map(len, groups.values())) <= len(names)):
            break
    if not groups:
        return []
    titles = list(groups)
    parts = [titles[part[0] : part[-1] + 1] for part in np.array_split(np.arange(len(titles)), min(most, len(titles)))]
    found = []
    for part in parts:
        named = [title for title in part if groups[title] != [title] or title not in inner] or [f"{part[0]}, its own parameters" if part[0] else _OWN]
        found.append((_span(named[0], named[-1]), [name for title in part for name in groups[title]]))
    return found


def _span(first: str, last: str) -> str:
    """Two names as one: `features.4 to 5`."""
    if first == last:
        return first
    one, other = first.split("."), last.split(".")
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return f"{first} to {'.'.join(other[shared:])}"


def _restart(module: nn.Module, generator: torch.Generator) -> None:
    """Give the parameters that a module itself holds their random start."""
    if isinstance(module, _NORMS):
        module.reset_parameters()
        return
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
            if parameter.ndim >= 2 and isinstance(module, (_CONVOLUTIONS, nn.Linear, nn.MultiheadAttention)):
                gain = 2.0 if isinstance(module, _CONVOLUTIONS) else 1.0
                parameter.copy_(drawn * (gain / parameter[0].numel()) ** 0.5)
            elif "bias" in name and parameter.ndim == 1:
                parameter.zero_()
            else:
                # Tokens, positions, scales of layers: no usual start is known, so their own range counts.
                parameter.copy_(parameter.mean() + drawn * (float(parameter.std(correction=0)) or _SPREAD))


def _scaled(heatmap: np.ndarray) -> np.ndarray:
    """Absolute values at 0 to 1."""
    size = np.nan_to_num(np.abs(heatmap).astype(np.float64), posinf=0.0)
    span = np.ptp(size)
    return (size - size.min()) / span if span > 0 else np.zeros_like(size)

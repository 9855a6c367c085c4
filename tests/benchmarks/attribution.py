"""Cost of attribution methods against Captum and against the floor (number of passes × time of a pass).

    python -m tests.benchmarks.attribution [--network resnet18] [--size 224] [--inputs 4] [--rounds 5] [--methods lime rise]

Variants run in turns in one process on one thread, in another order each round, and are compared by the CPU time they took in the
same round, so that other work on the machine changes little. A gradient's pass is forward and backward, another pass forward only.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, attribute
from dnnviz.explain.superpixels import cut
from dnnviz.models import build


def measure(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each variant in each round."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(variants), len(variants)):
            started = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - started)
    return times


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a method; floor, library: how many times those of its passes alone, and of Captum (None where it has no such method)."""

    seconds: float
    floor: float
    library: float | None


def ratios(
    network: str = "resnet18", size: int = 224, count: int = 4, steps: int = 20, rounds: int = 5, names: Sequence[str] = tuple(METHODS)
) -> Iterator[tuple[str, Cost | str]]:
    """(name, its cost, or the sentence that says why it is not defined for this network) of each method."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(f"torchvision:{network}").eval()
    inputs = torch.randn(count, 3, size, size)
    target = model(inputs).argmax(dim=1).tolist()
    shape = (3, size, size)
    parameters = {
        "integrated_gradients": {"steps": steps},
        "smoothgrad": {"samples": steps},
        "occlusion": {"window": size // 4, "stride": size // 8},
        "lime": {"samples": 4 * steps},
        "rise": {"masks": 4 * steps},
    }
    for name in names:
        method, chosen = METHODS[name], parameters.get(name, {})
        resolved = method.resolve(chosen)
        passes = method.passes(resolved, shape) if name != "feature_ablation" else int(cut(inputs, resolved["segments"])[1].max())
        try:
            layer = attribute(model, inputs[:1], name, **chosen).layer
        except DNNVizError as error:
            yield name, str(error)
            continue
        variants: dict[str, Callable[[], object]] = {
            "ours": lambda name=name, chosen=chosen, layer=layer: attribute(model, inputs, name, target, layer=layer, **chosen),
            "floor": floor(
                model,
                inputs,
                passes,
                gradient=method.backward,
                # The passes of relevance see the same inputs through other weights, one set after the other.
                together=method.family != "relevance",
            ),
        }
        reference = library(model, inputs, target, name, resolved, layer)
        if reference is not None:
            variants["library"] = reference
        found = measure(variants, rounds)
        against = {other: median(ours / theirs for ours, theirs in zip(found["ours"], found[other], strict=True)) for other in found}
        yield name, Cost(median(found["ours"]), against["floor"], against.get("library"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--inputs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    given = parser.parse_args()
    print(f"{given.network}, {given.inputs} inputs of {given.size} px, CPU time, median of {given.rounds}")
    print(f"{'method':22}{'seconds':>9}{'× floor':>9}{'× Captum':>10}")
    for name, cost in ratios(given.network, given.size, given.inputs, given.steps, given.rounds, given.methods):
        if isinstance(cost, str):
            print(f"{name:22}{cost}")
        else:
            print(f"{name:22}{cost.seconds:9.3f}{cost.floor:9.2f}" + ("–".rjust(10) if cost.library is None else f"{cost.library:10.2f}"))


def floor(model: torch.nn.Module, inputs: torch.Tensor, passes: int, gradient: bool, together: bool) -> Callable[[], object]:
    """The passes alone; together: in batches as large as those of a method that may put all of them into one."""
    total = passes * len(inputs)
    size = min(total, max(1, min(256, 16 * 224 * 224 // (inputs.shape[2] * inputs.shape[3])))) if together else len(inputs)

    def run() -> None:
        for first in range(0, total, size):
            count = min(size, total - first)
            batch = inputs.repeat(-(-count // len(inputs)), 1, 1, 1)[:count]
            if gradient:
                batch = batch.clone().requires_grad_()
                torch.autograd.grad(model(batch).max(dim=1).values.sum(), batch)
            else:
                with torch.inference_mode():
                    model(batch)

    return run


def library(
    model: torch.nn.Module, inputs: torch.Tensor, target: list[int], name: str, parameters: dict[str, Any], layer: str | None
) -> Callable[[], object] | None:
    """The same by Captum, as a careful user would call it; None where Captum does not have it or fails on this network."""
    import captum.attr as captum
    from captum._utils.models.linear_model import SkLearnLinearRegression
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    leaf = inputs.clone().requires_grad_()
    if name == "saliency":
        return lambda: captum.Saliency(model).attribute(leaf, target=target)
    if name == "guided_backprop":
        return lambda: captum.GuidedBackprop(model).attribute(leaf, target=target)
    if name == "integrated_gradients":
        return lambda: captum.IntegratedGradients(model).attribute(inputs, target=target, n_steps=parameters["steps"], return_convergence_delta=True)
    if name == "input_x_gradient":
        return lambda: captum.InputXGradient(model).attribute(leaf, target=target)
    if name == "deconvnet":
        return lambda: captum.Deconvolution(model).attribute(leaf, target=target)
    if name == "smoothgrad":
        tunnel, spread = captum.NoiseTunnel(captum.Saliency(model)), float(parameters["noise"] * (inputs.max() - inputs.min()))
        return lambda: tunnel.attribute(leaf, nt_samples=parameters["samples"], stdevs=spread, target=target, abs=False)
    if name == "feature_ablation":
        ablation = captum.FeatureAblation(model)
        return lambda: ablation.attribute(
            inputs, target=target, feature_mask=cut(inputs, parameters["segments"])[0][:, None], perturbations_per_eval=16
        )
    if name == "lime":
        # Captum takes one input at a time.
        kernel = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
        explainer = captum.Lime(model, SkLearnLinearRegression(), kernel)

        def explain() -> None:
            pieces = cut(inputs, parameters["segments"])[0]
            for row in range(len(inputs)):
                explainer.attribute(
                    inputs[row : row + 1],
                    target=target[row],
                    feature_mask=pieces[row][None, None],
                    n_samples=parameters["samples"],
                    perturbations_per_eval=64,
                )

        return explain
    if name == "occlusion":
        window, stride = parameters["window"], parameters["stride"]
        return lambda: captum.Occlusion(model).attribute(
            inputs, target=target, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), perturbations_per_eval=16
        )
    if name == "guided_grad_cam" and layer:
        guided = captum.GuidedGradCam(model, model.get_submodule(layer))
        return lambda: guided.attribute(leaf, target=target, interpolate_mode="bilinear")
    if name == "grad_cam" and layer:
        found = captum.LayerGradCam(model, model.get_submodule(layer))

        def run() -> None:
            maps = found.attribute(inputs, target=target, relu_attributions=True)
            captum.LayerAttribution.interpolate(maps, tuple(inputs.shape[2:]), interpolate_mode="bilinear")

        return run
    return None


if __name__ == "__main__":
    main()

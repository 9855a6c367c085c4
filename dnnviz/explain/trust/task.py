"""The background job of trust: the measures of one tile, or a ranking of methods on chosen inputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from dnnviz.catalogue import Catalogue
from dnnviz.errors import DNNVizError
from dnnviz.explain import METHODS, Attribution, attribute_all
from dnnviz.explain.explainer import Explainer
from dnnviz.explain.plan import Tile, about_tile, is_missing, plan, target_object
from dnnviz.explain.targets import LayerTarget
from dnnviz.explain.task import Work
from dnnviz.explain.trust import keys
from dnnviz.explain.trust.curves import deletion_insertion, random_map
from dnnviz.explain.trust.perturbation import infidelity, noise, sensitivity, squares
from dnnviz.explain.trust.randomisation import cascade, likeness, stages, verdict
from dnnviz.explain.trust.ranking import ranking
from dnnviz.explain.trust.scoring import Scorer
from dnnviz.results import Results
from dnnviz.settings import Settings

Report = Callable[[float, float, str], object]

# Maps in units of the gradient; the others are in units of the score (what a pixel adds to it), or in none.
_GRADIENTS = {"saliency", "smoothgrad", "deconvnet", "guided_backprop", "guided_grad_cam"}

log = logging.getLogger("dnnviz")


def run(settings: Settings, params: Mapping[str, Any], report: Report) -> list[str]:
    """Measure a tile or rank methods, unless it is among the results already; returns the one key. See `dnnviz.explain.trust.keys` for params.

    Where the method fails the result is its sentence. Raises DNNVizError where the network cannot be built again.
    """
    opened = Catalogue(settings.runs).open(str(params.get("run")))
    results = Results(settings.private_cache() / "results")
    epoch, layer = params.get("epoch"), params.get("layer") or None
    if not isinstance(epoch, int) or params.get("what") not in ("tile", "ranking"):
        raise DNNVizError("The request to measure trust is incomplete; reload the page.")

    def explainer() -> Explainer:
        report(0, 1, "Building the network")
        return Explainer(opened, epoch, results, settings.allow)

    if params["what"] == "tile":
        method, parameters = str(params.get("method")), _mapping(params.get("parameters"))
        source, target = str(params.get("source")), str(params.get("target") or "predicted")
        found = keys.tile_key(opened, epoch, source, method, parameters, target, layer)
        if not (keys.get_tile(results, found) or {}).get("complete"):
            [tile] = plan(opened, epoch, [source], {method: parameters}, [target], layer)
            _Measures(explainer(), tile, found, report, keys.work(opened, method, parameters)).measure()
        return [found]
    inputs, methods, targets = params.get("inputs"), _mapping(params.get("methods")), params.get("targets") or ["predicted"]
    if not isinstance(inputs, list) or not isinstance(targets, list) or not inputs or not methods:
        raise DNNVizError("A ranking needs at least one input and one method.")
    sources, given = [str(source) for source in inputs], {str(name): _mapping(values) for name, values in methods.items()}
    tiles = plan(opened, epoch, sources, given, [str(target) for target in targets], layer)
    found = keys.ranking_key(opened, epoch, sources, given, [str(target) for target in targets], layer)
    if not (keys.get_ranking(results, found) or {}).get("complete"):
        _rank(explainer(), tiles, found, report)
    return [found]


def _mapping(given: object) -> dict[str, Any]:
    return dict(given) if isinstance(given, dict) else {}


class _Measures:
    """Measures of one tile, stored one after another as they come."""

    def __init__(self, explainer: Explainer, tile: Tile, found: str, report: Report, total: float) -> None:
        self.explainer, self.tile, self.key, self.report, self.total = explainer, tile, found, report, total
        self.done = 0.0
        self.about: dict[str, Any] = {"complete": False}
        self.maps: dict[str, np.ndarray] = {}
        described, shape = METHODS[tile.method], explainer.shape
        self.cost = described.work(tile.parameters, shape)
        self.samples = keys.noise_samples(described.passes(tile.parameters, shape))

    def measure(self) -> None:
        started = time.perf_counter()
        tile, explainer = self.tile, self.explainer
        title = METHODS[tile.method].title
        try:
            [input] = torch.as_tensor(explainer.inputs([tile.source]))
            target = target_object(explainer.run, explainer.epoch, tile.target)
            scorer = Scorer(explainer.model, input, target, **explainer.normalisation)
            first = self._explain(explainer.model, scorer.input, scorer.target, tile.layer, title, self.cost)
            # The same layer from here on: what a changed input or network would choose is another question.
            layer = (first.layer or tile.layer) if METHODS[tile.method].uses_layer(tile.parameters) else None
            heatmap = first.heatmap[0]
            self.maps["heatmap"] = heatmap
            self._keep({"method": tile.method, "target": _text(scorer, tile.target), "layer": first.layer, "original": "heatmap"}, "")
            self._curves(scorer, heatmap)
            self._infidelity(scorer, first, input)
            self._sensitivity(scorer, heatmap, layer)
            self._randomisation(scorer, heatmap, layer)
            self.about.update(complete=True)
        except DNNVizError as error:
            self.about, self.maps = {"error": str(error)}, {}
        except Exception as error:
            log.exception("measures of %s of %s failed", tile.method, explainer.run.name)
            first_line = (str(error).splitlines() or [""])[0][:160]
            self.about, self.maps = {"error": f"{title} could not be measured on this network ({type(error).__name__}: {first_line})."}, {}
        self._keep({} if "error" in self.about else {"seconds": round(time.perf_counter() - started, 2)}, "")

    def _keep(self, part: Mapping[str, Any], text: str, work: float = 0) -> None:
        self.about.update(part)
        self.done += work
        keys.store(self.explainer.results, self.key, self.about, self.maps)
        self.report(self.done, self.total, text)

    def _explain(self, model: torch.nn.Module, inputs: torch.Tensor, target: object, layer: str | None, text: str, cost: float) -> Attribution:
        start = self.done

        def watch(_method: str, done: int, total: int, _heatmap: np.ndarray | None) -> None:
            self.report(start + cost * done / max(total, 1), self.total, text)

        self.report(start, self.total, text)
        methods = {self.tile.method: self.tile.parameters}
        [found] = attribute_all(model, inputs, methods, [target] * len(inputs), layer, watch=watch, **self.explainer.normalisation).values()
        self.done += cost
        return found

    def _curves(self, scorer: Scorer, heatmap: np.ndarray) -> None:
        self.report(self.done, self.total, "Deletion and insertion")
        curves = deletion_insertion(scorer, np.stack([heatmap, random_map(heatmap.shape)]), keys.STEPS)
        shares = [round(float(share), 4) for share in curves.shares]
        part: dict[str, Any] = {"reading": "probability" if scorer.of_a_class else "score"}
        for name, values, areas in (("deletion", curves.deletion, curves.deletion_area), ("insertion", curves.insertion, curves.insertion_area)):
            known = np.isfinite(values).all()
            part[name] = {
                "share": shares,
                "value": [float(v) for v in values[0]] if known else None,
                "area": float(areas[0]) if known else None,
                "random": float(areas[1]) if known else None,
            }
        self._keep(part, "Deletion and insertion", 4 * (keys.STEPS + 1))

    def _infidelity(self, scorer: Scorer, found: Attribution, input: torch.Tensor) -> None:
        self.report(self.done, self.total, "Infidelity")
        shape = scorer.input.shape[1:]
        # A map without channels says what a pixel adds: shared among its channels.
        values = found.values[0] if found.values.shape[1:] == shape else found.heatmap[0][None].repeat(shape[0], axis=0) / shape[0]
        values = torch.as_tensor(values).to(scorer.input)
        covered = squares((shape[1], shape[2]), keys.SQUARES).to(scorer.input.device)
        local = self.tile.method in _GRADIENTS
        part: dict[str, Any] = {"noise_infidelity": None}
        part["infidelity"] = _told(
            scorer, values, covered * scorer.input if local else covered.to(values).expand(-1, *shape), ~covered * scorer.input
        )
        if local:
            added = noise(scorer, keys.SQUARES, keys.RADIUS, "gaussian")
            part["noise_infidelity"] = _told(scorer, values, added, scorer.input - added)
        self._keep(part, "Infidelity", 2 * keys.SQUARES)

    def _sensitivity(self, scorer: Scorer, heatmap: np.ndarray, layer: str | None) -> None:
        noises = noise(scorer, self.samples, keys.RADIUS, "uniform")

        def explain(inputs: torch.Tensor) -> np.ndarray:
            return self._explain(self.explainer.model, inputs, scorer.target, layer, "Sensitivity to noise", self.cost * len(inputs)).heatmap

        value = sensitivity(scorer, heatmap, explain, noises)
        value = value if np.isfinite(value) else None
        self._keep({"sensitivity": {"value": value, "radius": keys.RADIUS, "samples": self.samples}}, "Sensitivity to noise")

    def _randomisation(self, scorer: Scorer, heatmap: np.ndarray, layer: str | None) -> None:
        rows: list[dict[str, Any]] = []
        found = stages(self.explainer.model, scorer.input, keys.STAGES)
        for number, (title, model) in enumerate(cascade(self.explainer.model, found)):
            text, name = f"Weights of {title} at random", f"stage{number}"
            row: dict[str, Any] = {"stage": title, "correlation": None, "signed": None, "similarity": None, "array": name}
            try:
                self.maps[name] = self._explain(model, scorer.input, scorer.target, layer, text, self.cost).heatmap[0]
            except DNNVizError as error:
                # A method may need what the network has learned (a CAM that adds up, scores that stay finite): then it shows nothing.
                log.info("%s with %s at random: %s", self.tile.method, title, error)
                self.maps[name] = np.zeros_like(heatmap)
            else:
                like = likeness(heatmap, self.maps[name])
                row.update(correlation=like.correlation, signed=like.signed, similarity=like.similarity)
            rows.append(row)
            self._keep({"randomisation": {"stages": rows, "state": None, "verdict": None}}, text)
        if rows:
            state, sentence = verdict([row["correlation"] for row in rows])
            self._keep({"randomisation": {"stages": rows, "state": state, "verdict": sentence}}, "")


def _told(scorer: Scorer, values: torch.Tensor, perturbations: torch.Tensor, changed: torch.Tensor) -> dict[str, Any]:
    found = infidelity(scorer, values, perturbations, changed)
    numbers = {"share": found.share, "normalised": found.normalised, "plain": found.plain}
    return {**{name: value if np.isfinite(value) else None for name, value in numbers.items()}, "samples": len(changed)}


def _text(scorer: Scorer, given: str) -> str:
    """The target explained, classes by number."""
    target = scorer.target
    if isinstance(target, LayerTarget):
        return given
    return f"class:{target.index}" if scorer.of_a_class else f"class:{target.index}-class:{target.against}"


def _rank(explainer: Explainer, tiles: list[Tile], found: str, report: Report) -> None:
    started = time.perf_counter()
    results, opened = explainer.results, explainer.run
    rows = list(dict.fromkeys((tile.source, tile.target) for tile in tiles))
    methods = list(dict.fromkeys(tile.method for tile in tiles))
    curve_work = len(rows) * (len(methods) + 1) * 2 * (keys.STEPS + 1)
    missing = [tile for tile in tiles if is_missing(about := about_tile(results, tile.key)) or "error" in about]
    map_work = sum(METHODS[tile.method].work(tile.parameters, explainer.shape) for tile in missing)
    if missing:

        def told(done: float, total: float, text: str) -> object:
            return report(map_work * done / total, map_work + curve_work, text)

        Work(explainer, len(missing), 0, told).do(missing)
    areas: dict[str | None, list[np.ndarray]] = {name: [] for name in [*methods, None]}
    failed: dict[str | None, str] = {}
    of_classes = True
    for number, (source, target) in enumerate(rows):
        report(map_work + curve_work * number / len(rows), map_work + curve_work, "Deletion and insertion")
        [input] = explainer.inputs([source])
        scorer = Scorer(explainer.model, input, target_object(opened, explainer.epoch, target), **explainer.normalisation)
        of_classes &= scorer.of_a_class
        maps: dict[str | None, np.ndarray] = {}
        for tile in (tile for tile in tiles if (tile.source, tile.target) == (source, target)):
            about = about_tile(results, tile.key) or {}
            heatmap = (results.get(tile.key) or {}).get("heatmap")
            if heatmap is None or "error" in about:
                failed[tile.method] = about.get("error", "The map is no longer in the cache; ask again.")
            else:
                maps[tile.method] = heatmap
        maps[None] = random_map(input.shape[1:], seed=number)
        curves = deletion_insertion(scorer, np.stack(list(maps.values())), keys.STEPS)
        for name, deleted, inserted in zip(maps, curves.deletion_area, curves.insertion_area, strict=True):
            areas[name].append(np.array([deleted, inserted]))
    listed = [
        {**row, "title": METHODS[row["method"]].title if row["method"] else "Random map", "failed": failed.get(row["method"])}
        for row in ranking({name: np.array(values) for name, values in areas.items()})
    ]
    about = {
        "complete": True,
        "reading": "probability" if of_classes else "score",
        "count": len(rows),
        "rows": [row for row in listed if row["method"]],
        "random": next(row for row in listed if not row["method"]),
        "seconds": round(time.perf_counter() - started, 2),
    }
    keys.store(results, found, about)

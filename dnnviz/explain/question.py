"""What every method is given and gives back: a batch of inputs, what is explained of them, and the network that scores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from dnnviz.errors import DNNVizError
from dnnviz.explain.attribution import Note
from dnnviz.explain.network import first_tensor, with_first
from dnnviz.explain.objectives import ClassObjective, LayerObjective
from dnnviz.explain.rectifiers import Node, OnCopies, rectified_gradient, rectifiers

# Pixels of one pass: 16 images of 224 × 224. More is no faster on a processor, and memory grows with it.
_PIXELS_PER_PASS = 16 * 224 * 224
_MOST_PER_PASS = 256

_NO_RECTIFIER = "This network has no ReLU (it may use GELU or SiLU), so nothing is rectified on the way back and the map is the plain gradient."
_UNCHANGED = "No ReLU between the target and the pixels holds anything back, so the map is the plain gradient."

T = TypeVar("T")
Change = Callable[[torch.Tensor], torch.Tensor]


class Watch(Protocol):
    """Called while a method works: how much is done (`done` of `total`), and its maps [n, H, W] as far as they are known."""

    def __call__(self, done: int, total: int, heatmap: torch.Tensor | None = None) -> object: ...


@dataclass
class Question:
    """A batch of inputs and the score asked about.

    inputs: [n, C, H, W] on the network's device. layer: as the user gave it.
    logits: [n, K] and scores: [n], without gradients; known after the first score.
    black, white: [C, 1, 1], what a black and a white pixel are to the network. watch: told of progress.
    Methods that look at the same question share what is computed once: `gradient`, and whatever they keep by `once`.
    """

    model: torch.nn.Module
    inputs: torch.Tensor
    objective: ClassObjective | LayerObjective
    layer: str | torch.nn.Module | None
    black: torch.Tensor
    white: torch.Tensor
    watch: Watch = lambda done, total, heatmap=None: None
    shared: tuple[torch.nn.Module, int] | None = None  # a module and the number of its call whose output the common pass keeps
    logits: torch.Tensor | None = field(default=None, init=False)
    scores: torch.Tensor | None = field(default=None, init=False)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def per_pass(self) -> int:
        """Images that a pass should hold at once."""
        return images_per_pass(self.inputs)

    @property
    def targets(self) -> torch.Tensor:
        """int64 [n]: the class explained (-1 where it is no class); known after the first score."""
        return self.objective.classes

    def read(self, inputs: torch.Tensor | None = None, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(values, weights) of one shape [m, …]: what the score is read from; score = Σ values · weights.

        inputs: derived from the question's, inputs[j] from row rows[j]; or the question's own, with gradients to follow.
        The first call must be about the question's own inputs: it fixes the targets and keeps the logits.
        """
        logits, values, weights = self.objective.read(self.model, self.inputs if inputs is None else inputs, rows)
        if self.logits is None:
            self.logits = logits.detach()
        return values, weights

    def score(self, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """[n]: what is explained (the logit of the target) of each of the question's own inputs; see `read`."""
        return self.score_of(inputs, None)

    def score_of(self, inputs: torch.Tensor | None, rows: torch.Tensor | None) -> torch.Tensor:
        """[m]: what is explained, of inputs derived from the question's: inputs[j] belongs to row rows[j]. Needs `score()` first."""
        values, weights = self.read(inputs, rows)
        found = (values * weights).flatten(1).sum(dim=1)
        if self.scores is None:
            self.scores = found.detach()
        return found

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """The value kept under `key`, computed by the first method that wants it."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def gradient(self) -> torch.Tensor:
        """[n, C, H, W]: gradient of each input's score with respect to that input. All gradients of a question share one forward pass."""
        return self.once("gradient", self._gradient)

    def _gradient(self) -> torch.Tensor:
        leaf, score, _ = self.once("pass", self._pass)
        # The network scores each input by itself (eval mode), so the gradient of the sum is the gradient of each.
        found = torch.autograd.grad(score.sum(), leaf, retain_graph=True, allow_unused=True)[0] if score.requires_grad else None
        return torch.zeros_like(leaf) if found is None else found

    def rectified(self, change: Change, gated: bool = True) -> tuple[torch.Tensor, str | None]:
        """As `gradient`, with `change` applied to what flows back into every rectifier; and why that made no difference, None where it did.

        gated: whether what was changed then passes through the rectifier's own derivative.
        """
        leaf, score, nodes = self.once("rectifiers", self._rectifiers)
        found, altered = rectified_gradient(score.sum(), leaf, nodes, change, gated) if score.requires_grad else (None, True)
        why = None if altered else _UNCHANGED if nodes else _NO_RECTIFIER
        return torch.zeros_like(leaf) if found is None else found, why

    def _rectifiers(self) -> tuple[torch.Tensor, torch.Tensor, list[Node]]:
        leaf, score, _ = self.once("pass", self._pass)
        if not score.requires_grad:
            return leaf, score, []
        nodes, hidden = rectifiers(score)
        if hidden:
            with OnCopies():
                leaf, score, _ = self._pass()
            nodes, _ = rectifiers(score)
        return leaf, score, nodes

    def output(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(output of the shared module, its gradient) from the pass that the gradients share; None where there is no such pass."""
        if self.shared is None:
            return None
        _, score, held = self.once("pass", self._pass)
        found = torch.autograd.grad(score.sum(), held[0], retain_graph=True, allow_unused=True)[0] if held and score.requires_grad else None
        return None if found is None else (held[0].detach(), found)

    def _pass(self) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        leaf = self.inputs.detach().clone().requires_grad_()
        held: list[torch.Tensor] = []
        calls = 0

        def hold(_module: torch.nn.Module, _inputs: object, output: object) -> object:
            nonlocal calls
            calls += 1
            if calls != self.shared[1]:
                return None
            held.append(first_tensor(output))
            # What follows may write in place (an in-place ReLU): it gets a copy.
            return with_first(output, held[0].clone())

        handle = self.shared[0].register_forward_hook(hold) if self.shared else None
        try:
            return leaf, self.score(leaf), held
        finally:
            if handle is not None:
                handle.remove()

    def classes_only(self, title: str) -> torch.Tensor:
        """[n, K]: weights of the classes in the score; raises DNNVizError where the score is not one of classes."""
        if isinstance(self.objective, LayerObjective):
            raise DNNVizError(f"{title} explains scores of classes; it is not defined for a unit or a direction of a layer.")
        if self.objective.weights is None:
            with torch.no_grad():
                self.score()
        return self.objective.weights


@dataclass
class Answer:
    """What a method gives back for a batch: values and heatmap as Attribution has them (tensors), a Note an input, the layer used."""

    values: torch.Tensor
    heatmap: torch.Tensor
    notes: list[Note]
    layer: str | None = None


def images_per_pass(inputs: torch.Tensor) -> int:
    """Images of this size [n, C, H, W] that a pass should hold at once."""
    height, width = inputs.shape[-2:]
    return max(1, min(_MOST_PER_PASS, _PIXELS_PER_PASS // (height * width)))


def percent(share: float) -> str:
    """A share as text, with the digits that matter for an error; one that is not finite is above all."""
    if not share < 10:
        return "above 1000\u00a0%"
    return "below 0.01\u00a0%" if share < 1e-4 else f"{100 * share:.{2 if share < 0.001 else 1 if share < 0.1 else 0}f}\u00a0%"


def rectified_notes(values: torch.Tensor, text: str, why: str, unchanged: str | None) -> list[Note]:
    """As `gradient_note`, of a rectified gradient; degenerate where the rectifiers changed nothing, for the reason `unchanged`."""
    notes = gradient_note(values, text, why)
    if unchanged is None:
        return notes
    none = "no ReLU found" if unchanged is _NO_RECTIFIER else "no ReLU changes it"
    return [Note("degenerate", f"equals the plain gradient: {none}", why=unchanged) if note.state == "good" else note for note in notes]


def gradient_note(values: torch.Tensor, text: str, why: str = "") -> list[Note]:
    """A Note an input: `text` and `why`, or degenerate where the map is zero everywhere or not finite."""
    flat = values.detach().flatten(1)
    peaks = torch.nan_to_num(flat.abs().amax(dim=1), nan=float("inf")).tolist()
    return [
        Note("degenerate", "not finite: the score overflows")
        if peak == float("inf")
        else Note("good", text, why=why)
        if peak > 0
        else Note("degenerate", "zero everywhere: the score does not depend on the input")
        for peak in peaks
    ]

"""What an attack works on: a network in the space of pixels, a goal for every image, and the best that was found. torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dnnviz.attack.registry import Norm
from dnnviz.errors import DNNVizError
from dnnviz.explain.network import scores

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def lengths(changes: torch.Tensor, norm: Norm) -> torch.Tensor:
    """[n]: size of every change [n, C, H, W] in a norm."""
    flat = changes.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


def along(scale: torch.Tensor) -> torch.Tensor:
    """One number an image [n], to be multiplied with images [n, C, H, W]."""
    return scale[:, None, None, None]


class Problem:
    """n images, the classes they should leave or reach, and a network that is asked about them.

    images: float32 [n, C, H, W], pixels from 0 to 1. classes: int64 [n], to be reached (targeted) or left. norm: by which of two
    results the smaller is kept. generator: of every chance in a method. watch: called with the number of steps taken.
    history: keep the probabilities of every step.

    A method asks by `gradient` and `logits` (rows: the images meant, int64), and hands in what it finds by `keep`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        images: torch.Tensor,
        classes: torch.Tensor | None,
        targeted: bool,
        norm: Norm,
        mean: torch.Tensor,
        std: torch.Tensor,
        generator: torch.Generator,
        watch: Callable[[int], object],
        history: bool,
    ) -> None:
        self.model, self.images, self.targeted, self.norm = model, images, targeted, norm
        self.mean, self.std, self.generator = mean, std, generator
        self.watch, self.history = watch, history
        count, device = len(images), images.device
        self.every = torch.arange(count, device=device)
        self.evaluations = torch.zeros(count, dtype=torch.int64, device=device)
        self.gradients = torch.zeros(count, dtype=torch.int64, device=device)
        self.taken = 0  # steps taken by the method so far
        original = self.logits(images, self.every)
        self.before = original.argmax(dim=1)
        self.classes = self.before.clone() if classes is None else classes
        outputs = original.shape[1]
        if outputs < 2:
            raise DNNVizError("The network has one class; there is no other that an attack could lead to.")
        if bool(((self.classes < 0) | (self.classes >= outputs)).any()):
            raise DNNVizError(f"The network has classes 0 to {outputs - 1}; {self.classes.tolist()[:6]} was asked for.")
        self.best = images.clone()
        self.best_length = torch.full((count,), torch.inf, device=device)
        self.best_logits = original.clone()
        self.best_step = torch.zeros(count, dtype=torch.int64, device=device)
        self.success = torch.zeros(count, dtype=torch.bool, device=device)
        self.probabilities = [original.softmax(dim=1)]
        # Without a step an image may be where the attack wants it already.
        self.keep(images, self.every, original)

    def logits(self, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[m, K]: the network's scores of images that stand for these rows."""
        self.evaluations[rows] += 1
        with torch.no_grad():
            return scores(self.model, (images - self.mean) / self.std)

    def gradient(self, images: torch.Tensor, rows: torch.Tensor, loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores [m, K], gradient of loss(scores, rows) [m] by the pixels [m, C, H, W])."""
        found, gradients = self.jacobian(images, rows, lambda logits: [loss(logits, rows)])
        return found, gradients[0]

    def jacobian(
        self, images: torch.Tensor, rows: torch.Tensor, losses: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(scores [m, K], gradients of several losses [m] of them by the pixels, each [m, C, H, W])."""
        leaf = images.detach().requires_grad_()
        found = scores(self.model, (leaf - self.mean) / self.std)
        wanted = losses(found)
        self.evaluations[rows] += 1
        self.gradients[rows] += len(wanted)
        last = len(wanted) - 1
        gradients = [torch.autograd.grad(each.sum(), leaf, retain_graph=i < last)[0] for i, each in enumerate(wanted)]
        return found.detach(), gradients

    def cross_entropy(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[m]: the loss that the attack wants to raise: of the class to leave, or minus that of the class to reach."""
        loss = torch.nn.functional.cross_entropy(logits, self.classes[rows], reduction="none")
        return -loss if self.targeted else loss

    def margin(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[m]: by how much the scores miss the goal; below zero where it is reached."""
        chosen = self.classes[rows][:, None]
        own = logits.gather(1, chosen)[:, 0]
        other = logits.scatter(1, chosen, -torch.inf).amax(dim=1)
        return other - own if self.targeted else own - other

    def reached(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """bool [m]: whether the class predicted is the one to reach, or another than the one to leave."""
        return (logits.argmax(dim=1) == self.classes[rows]) == self.targeted

    def keep(self, images: torch.Tensor, rows: torch.Tensor, logits: torch.Tensor, replace: bool = False, confidence: float = 0.0) -> torch.Tensor:
        """Take over the images that reach the goal with a smaller change than before; where none has, the latest one.

        replace: those that reach it are taken over, whatever their size. confidence: by how much the score must win.
        Returns which reach the goal, bool [m].
        """
        reached = self.reached(logits, rows)
        if confidence > 0:
            reached &= self.margin(logits, rows) <= -confidence
        size = lengths(images - self.images[rows], self.norm)
        better = torch.where(reached, replace | (size < self.best_length[rows]), ~self.success[rows])
        taken = rows[better]
        self.best[taken] = images[better].detach()
        self.best_logits[taken] = logits[better]
        self.best_step[taken] = self.taken
        self.success[rows] |= reached
        self.best_length[rows[better & reached]] = size[better & reached]
        return reached

    def shorten(self, halvings: int, confidence: float = 0.0) -> None:
        """Keep what lies nearest to the image, of what still reaches the goal on the straight line between the two, by bisection."""
        rows = self.every[self.success & (self.best_length > 0)]
        if not len(rows):
            return
        originals, changes = self.images[rows], self.best[rows] - self.images[rows]
        low, high = torch.zeros_like(self.best_length[rows]), torch.ones_like(self.best_length[rows])
        for _ in range(halvings):
            middle = (low + high) / 2
            images = (originals + along(middle) * changes).clamp(0, 1)
            reached = self.keep(images, rows, self.logits(images, rows), confidence=confidence)
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)

    def step(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        """Note what the network says after a step; rows left out stay as they were."""
        if self.history:
            now = self.probabilities[-1].clone()
            now[rows] = logits.softmax(dim=1)
            self.probabilities.append(now)
        self.watch(self.taken)

    def finish(self) -> None:
        """Let the history end with what was kept: the last step need not be the best."""
        final = self.best_logits.softmax(dim=1)
        if not self.history or len(self.probabilities) == 1 or not torch.equal(final, self.probabilities[-1]):
            self.probabilities.append(final)


def climb(
    problem: Problem,
    start: torch.Tensor,
    rows: torch.Tensor,
    steps: int,
    loss: Loss,
    move: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    stop: bool,
) -> None:
    """Raise a loss step by step from `start` [m, C, H, W], images that stand for these rows.

    move: (images, gradient, the rows they stand for) → images after the step, valid pixels. stop: an image is left alone as
    soon as it has reached the goal; otherwise all steps are done and the last image that reaches it is kept.
    """
    images = start
    logits = None
    for number in range(steps):
        logits, gradient = problem.gradient(images, rows, loss)
        if number:
            problem.step(rows, logits)
        if number or stop:
            reached = problem.keep(images, rows, logits)
            if stop:
                images, gradient, rows = images[~reached], gradient[~reached], rows[~reached]
                if not len(rows):
                    return
        images = move(images, gradient, rows)
        problem.taken += 1
    logits = problem.logits(images, rows)
    problem.step(rows, logits)
    problem.keep(images, rows, logits, replace=not stop)


def within(images: torch.Tensor, originals: torch.Tensor, size: float, norm: Norm) -> torch.Tensor:
    """The nearest images that differ from the originals by at most `size` in a norm and have pixels from 0 to 1."""
    changes = images - originals
    if norm == "linf":
        return (originals + changes.clamp(-size, size)).clamp(0, 1)
    return (originals + changes * along((size / lengths(changes, norm).clamp_min(1e-12)).clamp_max(1.0))).clamp(0, 1)


def unit(gradient: torch.Tensor) -> torch.Tensor:
    """Gradients [m, C, H, W] of Euclidean length 1."""
    return gradient / along(lengths(gradient, "l2").clamp_min(1e-12))

"""Batch plans: which images take a step together, in every step of an epoch.

A plan draws from two generators and from nothing else, so that an epoch follows from its seed and
its number. The order of the images comes from the first generator alone, partners and companions
from the second: two methods with one seed see the same images in the same order, augmented in the
same way, as far as their plans go along.

Shape legend: N images, K classes, S steps, B images of a plain step, R images of the step's
main forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from skdtune.describe.config import MethodConfig
from skdtune.describe.term_config import BatchPlanName


@dataclass(frozen=True, slots=True)
class EpochRows:
    """The images of one epoch, as row numbers of the training set."""

    main_SR: Tensor
    """int64, the images of each step's main forward."""

    second_SR: Tensor | None = None
    """int64, for each of them a partner or the same image again, augmented on its own."""


class BatchPlan(Protocol):
    """How the images of an epoch are divided into steps."""

    num_steps: int
    """Steps of an epoch, at least 1."""

    images_per_step: int
    """Images that a step augments and classifies."""

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw an epoch.

        Args:
            order: Source of the order of the images.
            others: Source of everything else.
        """


class Plain:
    """A random order without repetition; the last, smaller batch is dropped.

    Also the plan ``indexed``: no image comes twice in an epoch.
    """

    def __init__(self, num_images: int, batch_size: int) -> None:
        """Plan; fewer images than a batch make one batch."""
        self._num_images = num_images
        self._batch_size = min(batch_size, num_images)
        self.num_steps = num_images // self._batch_size
        self.images_per_step = self._batch_size

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw an order."""
        return EpochRows(self.order(order))

    def order(self, generator: Generator) -> Tensor:
        """Draw the order of the images that are used, int64 of shape (S, B)."""
        order_N = torch.randperm(self._num_images, generator=generator)
        return order_N[: self.num_steps * self._batch_size].view(self.num_steps, -1)


class TwoViews(Plain):
    """Every image in a second view, which is classified apart from the first."""

    def __init__(self, num_images: int, batch_size: int) -> None:
        """Plan; the views are augmented independently of each other."""
        super().__init__(num_images, batch_size)
        self.images_per_step = 2 * self._batch_size

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw an order; the second view is of the same image."""
        main_SR = self.order(order)
        return EpochRows(main_SR, main_SR)


class TwoViewsJoint(TwoViews):
    """Every image in two views, both in the main forward: rows i and i + B are one image."""

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw an order and double every batch."""
        order_SB = self.order(order)
        return EpochRows(torch.cat((order_SB, order_SB), dim=1))


class ClassPairs(TwoViews):
    """Every image with a partner, drawn with replacement from all images of its class.

    The partner may be the image itself, as in github.com/alinlab/cs-kd.
    """

    def __init__(self, labels_N: Tensor, batch_size: int) -> None:
        """Plan for the labels of the training images, int64 on the CPU."""
        super().__init__(len(labels_N), batch_size)
        self._classes = _Classes(labels_N)

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw an order and the partners."""
        main_SR = self.order(order)
        size_SR = self._classes.size_of(main_SR)
        place_SR = _draw_below(size_SR, others)
        return EpochRows(main_SR, self._classes.member(main_SR, place_SR))


class Groups:
    """Anchors with companions of their class, all in the main forward: anchors first.

    An epoch visits every image once as an anchor. Companions are drawn without replacement and
    are never the anchor, as in github.com/yxgeee/BAKE; a class that is too small for that gives
    them with replacement, and a class of one image gives the anchor itself.
    """

    def __init__(self, labels_N: Tensor, batch_size: int, num_companions: int) -> None:
        """Plan batches of ``batch_size`` images in all, companions included."""
        self._num_companions = num_companions
        anchors = max(1, min(batch_size, len(labels_N)) // (1 + num_companions))
        self._anchors = Plain(len(labels_N), anchors)
        self._classes = _Classes(labels_N)
        self.num_steps = self._anchors.num_steps
        self.images_per_step = anchors * (1 + num_companions)

    def draw(self, order: Generator, others: Generator) -> EpochRows:
        """Draw the anchors in random order and the companions of each."""
        anchor_SA = self._anchors.order(order)
        size_SA = self._classes.size_of(anchor_SA)
        is_small_SA = size_SA - 1 < self._num_companions
        # Places within the class that are taken, the anchor's own first.
        taken = [self._classes.place_of(anchor_SA)]
        companions = []
        for number in range(self._num_companions):
            free_SA = torch.where(is_small_SA, size_SA - 1, size_SA - 1 - number)
            place_SA = _draw_below(free_SA.clamp(min=1), others)
            ascending = list(torch.stack(taken).sort(dim=0).values)
            place_SA = torch.where(
                is_small_SA, _skip(place_SA, taken[:1]), _skip(place_SA, ascending)
            )
            place_SA = torch.minimum(place_SA, size_SA - 1)
            taken.append(place_SA)
            companions.append(self._classes.member(anchor_SA, place_SA))
        return EpochRows(torch.cat((anchor_SA, *companions), dim=1))


class _Classes:
    """The images of every class, so that a class and a place in it name an image."""

    def __init__(self, labels_N: Tensor) -> None:
        self._labels_N = labels_N
        self._order_N = torch.argsort(labels_N, stable=True)
        self._size_K = torch.bincount(labels_N)
        self._first_K = self._size_K.cumsum(0) - self._size_K
        self._place_N = torch.empty_like(labels_N)
        self._place_N[self._order_N] = (
            torch.arange(len(labels_N)) - self._first_K[labels_N[self._order_N]]
        )

    def size_of(self, rows: Tensor) -> Tensor:
        """Return how many images the class of each row has."""
        return self._size_K[self._labels_N[rows]]

    def place_of(self, rows: Tensor) -> Tensor:
        """Return where each row stands in its class."""
        return self._place_N[rows]

    def member(self, rows: Tensor, places: Tensor) -> Tensor:
        """Return the rows that stand at some places of the classes of others."""
        return self._order_N[self._first_K[self._labels_N[rows]] + places]


def _draw_below(limits: Tensor, generator: Generator) -> Tensor:
    """Draw whole numbers from 0 to below a limit each; uniform to one part in 2**53 / limit."""
    share = torch.rand(limits.shape, generator=generator, dtype=torch.float64)
    return (share * limits).long()


def _skip(place: Tensor, taken: list[Tensor]) -> Tensor:
    """Turn the so-manieth free place into a place, given the taken ones in ascending order."""
    for occupied in taken:
        place = place + (place >= occupied)
    return place


def build_plan(method: MethodConfig, labels_N: Tensor, batch_size: int) -> BatchPlan:
    """Build the batch plan that a method needs.

    Args:
        method: Settings of the terms.
        labels_N: Class numbers of the training images, int64.
        batch_size: Images of a step's main forward; the two joint views count as one.

    Returns:
        The plan; nothing is drawn yet.
    """
    labels_N = labels_N.cpu()
    name: BatchPlanName = method.batch_plan
    if name == "groups":
        return Groups(labels_N, batch_size, method.companions)
    if name == "class_pairs":
        return ClassPairs(labels_N, batch_size)
    if name == "two_views":
        return TwoViews(len(labels_N), batch_size)
    if name == "two_views_joint":
        return TwoViewsJoint(len(labels_N), batch_size)
    return Plain(len(labels_N), batch_size)

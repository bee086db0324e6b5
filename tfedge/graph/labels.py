"""Channel labels: integers on tensor axes that say which channels live and die together.

Every tensor of a graph carries `Marks`: label arrays, each broadcastable to the tensor's shape (an
axis along which it does not change has length 1). Elements with one label are cut together or not
at all; -1 means "never cut"; an element goes when any of the arrays says so. Reshape, transpose,
concat and repeat of channels are then the same numpy operations on the labels, so that a rule is
index data and not arithmetic on offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

NEVER = -1


class Labels:
    """Issues labels and keeps which of them are tied (a union-find) or blocked.

    Labels are issued in batches, one per producer axis; labels that are tied join their batches, so
    that the connected batches make up one channel group.
    """

    def __init__(self) -> None:
        self._parent = np.empty(256, int)
        self._count = 0
        self._batch_of = np.empty(256, int)
        self._batch_parent: list[int] = []
        self._passive: list[bool] = []
        self._flat = True  # every label points at its representative
        self.batch_names: list[str] = []
        self.blocked: dict[int, str] = {}
        self.joined_by: dict[int, str] = {}  # batch -> who last tied labels of it to one another

    def new(self, count: int, name: str, passive: bool = False) -> np.ndarray:
        """Issues fresh labels.

        Args:
            count: How many.
            name: What the axis is called.
            passive: True for copies of one value (a repeat, padding): they follow the channels that
                they meet, and make up no group of their own.

        Returns:
            Int array [count].
        """
        start, stop = self._count, self._count + count
        while stop > len(self._parent):
            self._parent = np.concatenate([self._parent, np.empty_like(self._parent)])
            self._batch_of = np.concatenate([self._batch_of, np.empty_like(self._batch_of)])
        issued = np.arange(start, stop)
        self._parent[start:stop] = issued
        self._batch_of[start:stop] = len(self._batch_parent)
        self._batch_parent.append(len(self._batch_parent))
        self.batch_names.append(name)
        self._passive.append(passive)
        self._count = stop
        return issued

    def _roots(self) -> np.ndarray:
        """The representative of every label."""
        parent = self._parent[: self._count]
        while not self._flat:
            above = parent[parent]
            self._flat = bool((above == parent).all())
            parent[:] = above
        return parent

    def resolve(self, labels: np.ndarray) -> np.ndarray:
        """Replaces each label by its class representative; -1 stays."""
        if not self._count:
            return labels
        return np.where(labels == NEVER, NEVER, self._roots()[labels])

    def groups(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Numbers the connected batches, and the classes in them.

        Returns:
            By label, for representatives: group number and channel in the group (int arrays, -1
            for other labels); and the groups' names.
        """
        roots = self._roots()
        batches = np.array([self.batch(b) for b in range(len(self._batch_parent))], int)
        heads = np.flatnonzero(roots == np.arange(self._count))
        active = np.unique(batches[~np.array(self._passive, bool)])
        heads = heads[np.isin(batches[self._batch_of[heads]], active)]
        first, numbers = np.unique(batches[self._batch_of[heads]], return_inverse=True)
        group, channel = np.full(self._count, -1), np.full(self._count, -1)
        group[heads] = numbers
        for g in range(len(first)):
            own = heads[numbers == g]
            channel[own] = np.arange(len(own))
        names = dict.fromkeys(first.tolist(), "")
        for b in range(len(batches)):
            if not self._passive[b]:
                names[int(batches[b])] = names[int(batches[b])] or self.batch_names[b]
        return group, channel, [names[b] for b in first.tolist()]

    def is_passive(self, labels: np.ndarray) -> bool:
        """True where all labels were issued as passive."""
        own = labels[labels != NEVER]
        return all(self._passive[b] for b in np.unique(self._batch_of[own]).tolist())

    def batch(self, number: int) -> int:
        """The representative of a batch."""
        parent = self._batch_parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def batch_of(self, label: int) -> int:
        """The representative of the batch that a label belongs to."""
        return self.batch(int(self._batch_of[label]))

    def tie(self, a: np.ndarray, b: np.ndarray, reason: str, by: str = "") -> None:
        """Ties two broadcastable label arrays element by element.

        Args:
            a: Labels.
            b: Labels; where one side is -1, the other side is blocked.
            reason: Why a channel that meets -1 cannot be cut.
            by: Who ties them.
        """
        a, b = np.broadcast_arrays(self.resolve(a), self.resolve(b))
        differ = a != b
        a, b = a[differ], b[differ]
        if not len(a):
            return
        low, high = np.minimum(a, b), np.maximum(a, b)
        if (low == NEVER).any():
            self.block(high[low == NEVER], reason)
            high, low = high[low != NEVER], low[low != NEVER]
        if len(high):
            pairs = np.unique(np.stack([low, high], 1), axis=0) if len(high) > 1 else None
            self._unite(*((low, high) if pairs is None else (pairs[:, 0], pairs[:, 1])), by)

    def _unite(self, low: np.ndarray, high: np.ndarray, by: str) -> None:
        """Joins classes by pairs of their representatives, low < high."""
        self._join_batches(low, high, by)
        if len(np.unique(high)) == len(high) and not np.isin(high, low).any():
            self._parent[high] = low
            merged = list(zip(low.tolist(), high.tolist(), strict=True)) if self.blocked else []
        else:
            merged = []
            for x, y in zip(low.tolist(), high.tolist(), strict=True):
                rx, ry = self._find(x), self._find(y)
                if rx != ry:
                    self._parent[max(rx, ry)] = min(rx, ry)
                    merged.append((min(rx, ry), max(rx, ry)))
        self._flat = False
        for stays, goes in merged:
            if goes in self.blocked:
                self.blocked.setdefault(stays, self.blocked.pop(goes))

    def _join_batches(self, low: np.ndarray, high: np.ndarray, by: str) -> None:
        pairs = np.unique(np.stack([self._batch_of[low], self._batch_of[high]], 1), axis=0)
        for x, y in pairs.tolist():
            bx, by_ = self.batch(x), self.batch(y)
            if bx == by_:
                self.joined_by[bx] = by
            else:
                self._batch_parent[max(bx, by_)] = min(bx, by_)
                if max(bx, by_) in self.joined_by:
                    self.joined_by.setdefault(min(bx, by_), self.joined_by[max(bx, by_)])

    def _find(self, label: int) -> int:
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = int(parent[label])
        return label

    def block(self, labels: np.ndarray, reason: str) -> None:
        """Marks labels as never to be cut; the first reason given for a class stays."""
        for label in np.unique(self.resolve(labels)).tolist():
            if label != NEVER:
                self.blocked.setdefault(label, reason)

    def reason(self, root: int) -> str:
        """Why the class of a representative is blocked, or ""."""
        return self.blocked.get(root, "")

    def __len__(self) -> int:
        """Number of labels issued."""
        return self._count


@dataclass(frozen=True, eq=False)
class Marks:
    """Which elements of one tensor live and die together.

    Attributes:
        planes: Label arrays, broadcastable to the tensor's shape; longer than 1 exactly on the axes
            along which they change. Several where axes are labelled independently. An element is
            cut when any plane's label is.
        rank: Rank of the tensor.
    """

    planes: tuple[np.ndarray, ...]
    rank: int

    @classmethod
    def of(cls, planes: Iterable[np.ndarray], rank: int) -> Marks:
        """Marks of label arrays, those that say nothing left out."""
        slim = (squeeze_axes(np.asarray(p)) for p in planes)
        return cls(tuple(p for p in slim if p.size > 1 or p.flat[0] != NEVER), rank)

    @property
    def axes(self) -> list[int]:
        """Axes along which some plane changes."""
        return sorted({a for p in self.planes for a in plane_axes(p)})

    def map(self, function: Callable[[np.ndarray], np.ndarray], rank: int | None = None) -> Marks:
        """The same operation on every plane."""
        return Marks.of([function(p) for p in self.planes], self.rank if rank is None else rank)

    def __add__(self, other: Marks) -> Marks:
        """Both: an element goes when either says so."""
        return Marks(self.planes + other.planes, self.rank)

    def resolved(self, labels: Labels) -> Marks:
        """The marks with every label replaced by its representative."""
        return self.map(labels.resolve)


def unlabelled(rank: int) -> Marks:
    """The marks of a tensor whose channels are never cut."""
    return Marks((), rank)


def along(labels: np.ndarray, axis: int, rank: int) -> Marks:
    """Puts labels on one axis of a tensor.

    Args:
        labels: Labels [n], or [k, n] for k independent labels an element.
        axis: The axis, may be negative.
        rank: Rank of the tensor.
    """
    shape = [1] * rank
    shape[axis] = labels.shape[-1]
    return Marks.of([row.reshape(shape) for row in labels.reshape(-1, labels.shape[-1])], rank)


def plane_axes(plane: np.ndarray) -> list[int]:
    """Axes along which a plane of `Marks` changes."""
    return [a for a, n in enumerate(plane.shape) if n > 1]


def squeeze_axes(labels: np.ndarray) -> np.ndarray:
    """Reduces every axis along which the labels do not change to length 1."""
    for axis in plane_axes(labels):
        first = labels[(slice(None),) * axis + (slice(0, 1),)]
        if (labels == first).all():
            labels = first
    return labels


def components(marks: Iterable[Marks]) -> list[list[int]]:
    """Sets of axes that labels connect: axes of one plane belong together."""
    sets: list[set[int]] = []
    for plane in (p for m in marks for p in m.planes):
        axes = set(plane_axes(plane))
        if axes:
            touching = [s for s in sets if s & axes]
            sets = [s for s in sets if not s & axes] + [axes.union(*touching)]
    return sorted(sorted(s) for s in sets)

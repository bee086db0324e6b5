"""Channel labels: integers on tensor axes that say which channels live and die together.

Every tensor of a graph gets a label array: integers, broadcastable to the tensor's shape (an axis
that carries no labels has length 1). Elements with one label are cut together or not at all; -1
means "never cut". Reshape, transpose, concat and repeat of channels are then the same numpy
operations on the labels, so that a rule is index data and not arithmetic on offsets.
"""

from __future__ import annotations

import numpy as np

NEVER = -1


class Labels:
    """Issues labels and keeps which of them are tied (a union-find) or blocked.

    Labels are issued in batches, one per producer axis; labels that are tied join their batches, so
    that the connected batches make up one channel group.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._batch_of: list[int] = []
        self._batch_parent: list[int] = []
        self.batch_names: list[str] = []
        self.blocked: dict[int, str] = {}

    def new(self, count: int, name: str) -> np.ndarray:
        """Issues `count` fresh labels for the axis called `name`; shape [count]."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        batch = len(self._batch_parent)
        self._batch_parent.append(batch)
        self.batch_names.append(name)
        self._batch_of.extend([batch] * count)
        return np.arange(start, start + count)

    def find(self, label: int) -> int:
        """The representative of a label's class."""
        return _find(self._parent, label)

    def batch(self, label: int) -> int:
        """The representative of the batch that a label belongs to."""
        return _find(self._batch_parent, self._batch_of[label])

    def tie(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """Ties two broadcastable label arrays element by element.

        Args:
            a: Labels.
            b: Labels; where one side is -1, the other side is blocked.
            reason: Why a channel that meets -1 cannot be cut.
        """
        a, b = np.broadcast_arrays(a, b)
        pairs = np.stack([a.ravel(), b.ravel()], 1)
        if len(pairs) > 64:
            pairs = np.unique(pairs, axis=0)
        for x, y in pairs.tolist():
            if x == y:
                continue
            if x == NEVER or y == NEVER:
                self.block(np.array([max(x, y)]), reason)
            else:
                self._union(x, y)

    def _union(self, x: int, y: int) -> None:
        rx, ry = self.find(x), self.find(y)
        if rx != ry:
            lo, hi = min(rx, ry), max(rx, ry)
            self._parent[hi] = lo
            if hi in self.blocked:
                reason = self.blocked.pop(hi)
                self.blocked.setdefault(lo, reason)
        bx, by = self.batch(x), self.batch(y)
        if bx != by:
            self._batch_parent[max(bx, by)] = min(bx, by)

    def block(self, labels: np.ndarray, reason: str) -> None:
        """Marks labels as never to be cut; the first reason given for a class stays."""
        for label in np.unique(labels).tolist():
            if label != NEVER:
                self.blocked.setdefault(self.find(label), reason)

    def reason(self, label: int) -> str:
        """Why a label is blocked, or ""."""
        return self.blocked.get(self.find(label), "")

    def resolve(self, labels: np.ndarray) -> np.ndarray:
        """Replaces each label by its class representative; -1 stays."""
        values, inverse = np.unique(labels, return_inverse=True)
        roots = np.array([v if v == NEVER else self.find(v) for v in values.tolist()], dtype=int)
        return roots[inverse].reshape(labels.shape)

    def __len__(self) -> int:
        """Number of labels issued."""
        return len(self._parent)


def _find(parent: list[int], x: int) -> int:
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


def unlabelled(rank: int) -> np.ndarray:
    """The label array of a tensor whose channels are never cut."""
    return np.full((1,) * rank, NEVER)


def along(labels: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Puts 1-D labels on one axis of a tensor of the given rank."""
    shape = [1] * rank
    shape[axis] = len(labels)
    return labels.reshape(shape)


def dependent_axes(labels: np.ndarray) -> list[int]:
    """Axes along which the labels change."""
    return [
        a
        for a in range(labels.ndim)
        if labels.shape[a] > 1 and (labels != np.take(labels, [0], axis=a)).any()
    ]


def squeeze_axes(labels: np.ndarray) -> np.ndarray:
    """Reduces every axis along which the labels do not change to length 1."""
    keep = set(dependent_axes(labels))
    index = tuple(slice(None) if a in keep else slice(0, 1) for a in range(labels.ndim))
    return labels[index]

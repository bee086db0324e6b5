"""Zeros and clusters of kernels that stay through quantization-aware training.

The trained kernel keeps its structure because its gradient has it: an optimizer that works element
by element, from a state of zeros, treats equal weights with equal gradients equally, and leaves a
weight whose gradient is always 0 where it is.

- "sparsity": where the kernel is exactly 0 the gradient is 0.
- "clusters": equal weights get the sum of their gradients, as if each centroid were one variable
  that the kernel looks up (Han et al. 2016, "Deep Compression", section 3); zeros stay zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge._keras import keras, tf
from tfedge.errors import InputError

KINDS = ("", "sparsity", "clusters")
"""What can be preserved."""

MOST_CLUSTERS = 256
"""A kernel with more different values is not clustered, and trains freely."""


def check_kind(kind: str) -> str:
    """The kind itself.

    Raises:
        InputError: No such kind.
    """
    if kind not in KINDS:
        raise InputError(
            "only zeros or clusters of weights can be preserved", f"preserve={kind!r}",
            "Choose 'sparsity' or 'clusters'",
        )  # fmt: skip
    return kind


def add_clusters(layer: Any, name: str, shape: Any) -> Any:
    """The variable `<name>_clusters`: each weight's cluster, int32; -1 throughout: none found.

    Args:
        layer: The wrapper that gets it.
        name: Of the kernel.
        shape: Of the kernel.
    """
    return layer.add_weight(
        f"{name}_clusters", shape=shape, dtype=tf.int32, trainable=False,
        initializer=keras.initializers.Constant(-1), experimental_autocast=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )  # fmt: skip


def find_clusters(kernel: np.ndarray) -> np.ndarray | None:
    """Each weight's cluster, int32 of the kernel's shape; None where the kernel is not clustered.

    Args:
        kernel: float32. Equal values are one cluster.
    """
    values, index = np.unique(kernel, return_inverse=True)
    if len(values) > MOST_CLUSTERS or 2 * len(values) > kernel.size:
        return None
    return index.reshape(kernel.shape).astype(np.int32)


def kept(kind: str, kernel: Any, variables: dict[str, Any]) -> Any:
    """The kernel, with a gradient that keeps its structure.

    Args:
        kind: One of `KINDS`.
        kernel: float32.
        variables: Of the kernel's quantizer; "clusters" is read.
    """
    if kind == "sparsity":
        return _sparse(kernel)
    if kind == "clusters":
        return _clustered(kernel, tf.convert_to_tensor(variables["clusters"]))
    return kernel


@tf.custom_gradient
def _sparse(kernel: Any) -> tuple[Any, Any]:
    def gradient(upstream: Any) -> Any:
        return tf.where(tf.equal(kernel, 0.0), 0.0, upstream)

    return tf.identity(kernel), gradient


def _clustered(kernel: Any, clusters: Any) -> Any:
    """The kernel with one value in each cluster.

    Rounding in an optimizer may part equal weights by a last bit; the largest stands for all.
    """
    # -1 throughout: each weight is a cluster of its own.
    single = tf.reshape(tf.range(tf.size(kernel)), tf.shape(kernel))
    index = tf.reshape(tf.where(clusters < 0, single, clusters), (-1,))
    count = tf.reduce_max(index) + 1

    @tf.custom_gradient
    def run(kernel: Any) -> tuple[Any, Any]:
        flat = tf.reshape(kernel, (-1,))
        centroids = tf.math.unsorted_segment_max(flat, index, count)
        merged = tf.reshape(tf.gather(centroids, index), kernel.shape)

        def gradient(upstream: Any) -> Any:
            total = tf.math.unsorted_segment_sum(tf.reshape(upstream, (-1,)), index, count)
            shared = tf.reshape(tf.gather(total, index), kernel.shape)
            return tf.where(tf.equal(kernel, 0.0), 0.0, shared)

        return merged, gradient

    return run(kernel)

"""Augmentations of image batches: pure functions of a batch and a seed, so that runs repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge._keras import tf
from tfedge.errors import InputError


def shift_and_flip(pixels: int = 2, *, flip: bool = True) -> Callable[[Any, Any], Any]:
    """Makes the augmentation "random shift by up to `pixels`, mirrored half of the time".

    Args:
        pixels: Largest shift along height and width, each drawn uniformly for every sample;
            what is shifted in is the border's mirror image.
        flip: Mirror left and right with probability 0.5.

    Returns:
        A function (images [N, H, W, C], seed int [2]) -> images of the same shape and dtype.

    Raises:
        InputError: `pixels` is negative.
    """
    if pixels < 0:
        raise InputError("the shift must not be negative", f"{pixels} pixels")

    def augment(images: Any, seed: Any) -> Any:
        shape = tf.shape(images)
        count, sides = shape[0], (shape[1], shape[2])
        moves = tf.random.stateless_uniform(
            [2, count], seed=seed, minval=0, maxval=2 * pixels + 1, dtype=tf.int32
        )
        border = [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]]
        padded = tf.pad(images, border, mode="SYMMETRIC")
        rows = moves[0][:, None] + tf.range(sides[0])[None]
        columns = moves[1][:, None] + tf.range(sides[1])[None]
        if flip:
            mirrored = tf.random.stateless_uniform([count], seed=seed + 1) < 0.5
            columns = tf.where(mirrored[:, None], columns[:, ::-1], columns)
        shifted = tf.gather(padded, rows, axis=1, batch_dims=1)
        shifted = tf.gather(shifted, columns, axis=2, batch_dims=1)
        return tf.ensure_shape(shifted, images.shape)

    return augment

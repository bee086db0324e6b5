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
        static = images.shape
        if pixels:
            images = _shifted(images, pixels, seed)
        if flip:
            # Another seed than the shift's, or the two would go together.
            draws = tf.random.stateless_uniform([tf.shape(images)[0]], seed=seed + 1)
            mirrored = tf.reshape(draws < 0.5, [-1, 1, 1, 1])
            images = tf.where(mirrored, _mirror(images), images)
        return tf.ensure_shape(images, static)

    if not pixels:
        # All that an image may become: a teacher's outputs can be cached for each.
        augment.views = (_as_it_is, _mirror) if flip else (_as_it_is,)  # type: ignore[attr-defined]
    return augment


def _as_it_is(images: Any) -> Any:
    return images


def _mirror(images: Any) -> Any:
    return images[:, :, ::-1]


def _shifted(images: Any, pixels: int, seed: Any) -> Any:
    """Every image moved by its own amount, by gathering rows and columns of the padded batch."""
    shape = tf.shape(images)
    moves = tf.random.stateless_uniform(
        [2, shape[0]], seed=seed, minval=0, maxval=2 * pixels + 1, dtype=tf.int32
    )
    border = [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]]
    padded = tf.pad(images, border, mode="SYMMETRIC")
    rows = moves[0][:, None] + tf.range(shape[1])[None]
    columns = moves[1][:, None] + tf.range(shape[2])[None]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)

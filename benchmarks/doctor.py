"""What `tfedge doctor --fix` does to files that the stock TFLiteConverter makes.

    python benchmarks/doctor.py [--only NASNetMobile:int8] [--force]

One row a model and scheme (random weights, batch statistics set from one batch; 96 px). Ops outside
XNNPACK and partitions before and after; microseconds before and after and their quotient, minima of
wall time and of thread CPU time, measured in turn on one thread, so that only the quotients mean
something on a busy machine; the largest move of an output in steps ("rel": of a float one, relative
to its largest element, where it is no multiple of a step); fixes kept and undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rows
from prune_zoo import settle

SIZE = 96


def application(name: str) -> Callable[[], Any]:
    """A model of tf_keras.applications without weights."""

    def make() -> Any:
        from tfedge._keras import keras

        return getattr(keras.applications, name)(weights=None, input_shape=(SIZE, SIZE, 3))

    return make


def unet() -> Any:
    """Three levels; up by nearest neighbours, joined with what went down."""
    from tfedge._keras import keras

    layers = keras.layers
    x = inputs = keras.Input((SIZE, SIZE, 3))

    def block(x: Any, width: int) -> Any:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    skips = []
    for width in (16, 32, 64):
        x = block(x, width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 64)
    for width, skip in zip((64, 32, 16), reversed(skips), strict=True):
        x = layers.UpSampling2D(interpolation="nearest")(x)
        x = block(layers.Concatenate()([x, skip]), width)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def pyramid() -> Any:
    """A spatial pyramid that joins eight maps, as segmentation heads do."""
    from tfedge._keras import keras

    layers = keras.layers
    inputs = keras.Input((SIZE // 2, SIZE // 2, 16))
    maps = []
    for width in range(8):
        y = layers.Conv2D(16, 3, dilation_rate=1 + width, padding="same")(inputs)
        maps.append(layers.ReLU(max_value=6.0)(y))
    y = layers.Conv2D(32, 1, activation="relu")(layers.Concatenate()(maps))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(y)))


def transformer() -> Any:
    """Two encoder blocks with layer normalization."""
    from tfedge._keras import keras

    layers = keras.layers
    x = inputs = keras.Input((64, 64))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 16)(y, y)])
        y = layers.Dense(128, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(64)(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS: dict[str, Callable[[], Any]] = {
    "U-Net": unet,
    "pyramid": pyramid,
    "transformer": transformer,
    **{n: application(n) for n in (
        "MobileNetV3Small", "EfficientNetB0", "NASNetMobile", "DenseNet121")},
}  # fmt: skip


def measure(row: str) -> dict[str, Any]:
    """The columns of one file."""
    import tfedge

    name, _, scheme = row.partition(":")
    found = tfedge.doctor(stock(MODELS[name](), scheme), fix=True)
    after = found.after or found.before
    columns: dict[str, Any] = {
        "outside": f"{found.before.outside} -> {after.outside} of {found.before.total_ops}",
        "partitions": f"{len(found.before.partitions)} -> {len(after.partitions)}",
    }
    if len(found.timing) == 2:
        a, b = found.timing
        columns |= {
            "us": f"{_us(a.min_ms)} -> {_us(b.min_ms)}",
            "ratio min": round((b.min_ms or 0) / (a.min_ms or 1), 3),
            "ratio cpu": round((b.cpu_min_ms or 0) / (a.cpu_min_ms or 1), 3),
            "load": round(a.load, 1),
        }
    moved = found.steps or 0.0
    columns["max steps"] = f"{moved:.2g}"
    for word, kept in (("kept", True), ("undone", False)):
        columns[word] = "; ".join(
            f"{f.name} x{f.places}" + ("" if kept else f" ({f.said})")
            for f in found.fixes
            if f.kept is kept
        )
    columns["left, by cost"] = "; ".join(
        f"{f.op} {f.cost_us or 0:.0f} us" for f in after.findings[:4]
    )
    return columns


def _us(milliseconds: float | None) -> int:
    return round((milliseconds or 0.0) * 1e3)


def stock(model: Any, scheme: str) -> bytes:
    """What TFLiteConverter makes of a model, with its own calibration."""
    from tfedge._keras import tf
    from tfedge.capture import captured

    batch = settle(model)
    shape = (1, *batch.shape[1:])
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "int8":
        converter.representative_dataset = lambda: ([s[None]] for s in batch)
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS,
        ]  # fmt: skip
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with captured():
        return bytes(converter.convert())


if __name__ == "__main__":
    names = [f"{name}:{scheme}" for name in MODELS for scheme in ("float32", "int8")]
    rows.main("doctor", names, measure, __doc__ or "")

"""Writes small models with the TensorFlow that runs this, and their inputs and outputs.

    python tests/golden/h5/write.py OUTPUT_FOLDER

Run once in an environment of its own for each of TensorFlow 2.12, 2.13, 2.14 and 2.15 (Python 3.10,
`pip install "tensorflow-cpu==2.12.*"`); tests/test_bridge_files.py reads what it wrote. Everything
is seeded, but TensorFlow's files are not byte-stable.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

keras = tf.keras
L = keras.layers
ZIPPED = "keras_v3" if tf.__version__.startswith("2.12") else "keras"


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            L.Rescaling(1 / 2.0, offset=0.1),
            L.Conv2D(8, 3, padding="same", use_bias=False, kernel_regularizer="l2"),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.DepthwiseConv2D(3, strides=2, padding="same"),
            L.LeakyReLU(0.1),
            L.SeparableConv2D(6, 3, activation="swish"),
            L.Conv2DTranspose(4, 2, strides=2, activation="hard_sigmoid"),
            L.PReLU(shared_axes=[1, 2]),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dropout(0.2),
            L.Dense(3, activation="softmax", name="scores"),
        ]
    )


def compiled():
    """A trained model: its file holds the optimizer's state."""
    model = keras.Sequential([L.Dense(4, "relu", input_shape=(3,)), L.Dense(2, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.ones((4, 3), "float32"), np.ones((4, 2), "float32"), verbose=0)
    return model


def recurrent():
    i = keras.Input((6,), dtype="int32", name="tokens")
    x = L.Embedding(11, 5, mask_zero=True)(i)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    x = L.GRU(5, return_sequences=True, reset_after=False)(x)
    x = L.TimeDistributed(L.Dense(4, "tanh"))(x)
    return keras.Model(i, L.Dense(2)(L.SimpleRNN(3, go_backwards=True)(x)))


def absolute(x):
    """A function of the user's own: the reader passes it in custom_objects."""
    return tf.abs(x)


def attention():
    i = keras.Input((5, 6), name="sequence")
    x = L.LayerNormalization()(i)
    y = L.MultiHeadAttention(2, 3, value_dim=4)(x, x)
    x = x * 2 + 1 - y
    x = tf.nn.relu(x[:, ::2]) / 3.0
    x = tf.concat([x, 1.0 - x], axis=-1)
    x = L.Lambda(absolute, name="absolute_value")(tf.reduce_mean(x, axis=1))
    return keras.Model(i, {"score": L.Dense(2, name="score")(x), "raw": x})


def nested():
    inner_in = keras.Input((6, 6, 2))
    inner = keras.Model(
        inner_in, L.Conv2D(4, 3, activation="relu", name="conv")(inner_in), name="base"
    )
    a, b = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 2), name="right")
    x = L.Subtract()([inner(a), inner(b)])
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(0).normal(2, 3, (32, 6, 6, 2)))
    head = keras.Sequential([L.Flatten(), L.Dense(3, "relu"), L.Dense(2)], name="head")
    x = L.Concatenate()([head(x), L.GlobalAveragePooling2D()(norm(b))])
    return keras.Model([a, b], [x, L.Dense(1, name="size")(x)])


def randomize(model):
    """Random weights; what `adapt` found stays."""
    rng = np.random.default_rng(0)
    adapted = {id(w) for x in model.layers if hasattr(x, "adapt") for w in x.weights}
    for w in model.weights:
        if id(w) in adapted:
            continue
        value = rng.normal(0, 0.5, w.shape)
        keep = any(k in w.name for k in ("variance", "gamma"))
        w.assign(np.abs(value) + 0.5 if keep else value)
    return model


def inputs_of(model):
    rng = np.random.default_rng(1)
    return [
        rng.integers(0, 10, (2, *t.shape[1:])).astype("int32")
        if t.dtype == tf.int32
        else rng.normal(size=(2, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]


def main(folder: Path) -> None:
    version = "tf" + "".join(tf.__version__.split(".")[:2])
    arrays = {}
    for build in (cnn, compiled, recurrent, attention, nested):
        keras.backend.clear_session()
        model = build() if build is compiled else randomize(build())
        x = inputs_of(model)
        name = f"{version}_{build.__name__}"
        model.save(folder / f"{name}.h5")
        if build in (attention, nested):
            model.save(folder / f"{name}.keras", save_format=ZIPPED)
        if build is compiled:
            model.save(folder / f"{name}.keras")  # TF 2.12 writes HDF5 under this name, later a zip
        for n, value in enumerate(x):
            arrays[f"{build.__name__}_in{n}"] = value
        for n, value in enumerate(tf.nest.flatten(model(x if len(x) > 1 else x[0]))):
            arrays[f"{build.__name__}_out{n}"] = value.numpy()
        if build is nested:  # a folder; zipped, so that it is one small file
            with tempfile.TemporaryDirectory() as there:
                model.save(there, save_format="tf")
                shutil.make_archive(str(folder / f"{name}_savedmodel"), "zip", there)
    np.savez_compressed(folder / f"{version}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

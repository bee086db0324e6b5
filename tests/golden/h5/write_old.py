"""Writes a small model with an older Keras: TensorFlow 1.15 to 2.11, or Keras 2.2.4 by itself.

    python tests/golden/h5/write_old.py OUTPUT_FOLDER [keras]

Run once in an environment of its own for each (h5py<3, protobuf<3.21); "keras" takes the separate
Keras package instead of tf.keras. Written for Python 3.6 on; see write.py for newer ones.
"""

import sys

import numpy as np
import tensorflow as tf

if sys.argv[2:] == ["keras"]:
    import keras

    VERSION = "keras" + "".join(keras.__version__.split("."))
else:
    keras = tf.keras
    VERSION = "tf" + "".join(tf.__version__.split(".")[:2])
L = keras.layers


def image():
    """A Sequential model with batch statistics."""
    return keras.models.Sequential(
        [
            L.Conv2D(6, 3, padding="same", use_bias=False, input_shape=(8, 8, 3)),
            L.BatchNormalization(),
            L.ReLU(6.0),
            L.SeparableConv2D(5, 3, activation="elu"),
            L.LeakyReLU(0.1),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dropout(0.2),
            L.Dense(3, activation="softmax"),
        ]
    )


def sequence():
    """A functional model with two inputs, a nested model and recurrent layers."""
    tokens, extra = L.Input((6,), name="tokens"), L.Input((4,), name="extra")
    inner_in = L.Input((4,))
    inner = keras.models.Model(inner_in, L.Dense(3, activation="tanh")(inner_in), name="inner")
    x = L.Embedding(11, 5, mask_zero=True)(tokens)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    x = L.GRU(5)(x)
    x = L.Concatenate()([x, inner(extra)])
    if keras is tf.keras and not tf.__version__.startswith("1."):
        x = x * 2.0 + 1.0
    return keras.models.Model([tokens, extra], [L.Dense(2)(x), L.Dense(1, name="size")(x)])


def main(folder):
    """Writes both models and their inputs and outputs."""
    arrays = {}
    rng = np.random.RandomState(0)
    for build in (image, sequence):
        model = build()
        model.set_weights([np.abs(rng.normal(0, 0.5, w.shape)) + 0.1 for w in model.get_weights()])
        if build is image:
            x = [rng.normal(size=(2, 8, 8, 3)).astype("float32")]
            model.compile("adam", "categorical_crossentropy")
        else:
            x = [rng.randint(0, 10, (2, 6)), rng.normal(size=(2, 4)).astype("float32")]
        y = model.predict(x if len(x) > 1 else x[0])
        for n, value in enumerate(x):
            arrays[f"{build.__name__}_in{n}"] = value
        for n, value in enumerate(y if isinstance(y, list) else [y]):
            arrays[f"{build.__name__}_out{n}"] = value
        model.save(f"{folder}/{VERSION}_{build.__name__}.h5")
    np.savez_compressed(f"{folder}/{VERSION}.npz", **arrays)


main(sys.argv[1])

"""`keras.ops` calls and TensorFlow functions, from each Keras into the other and back."""

import keras
import pytest

import tfedge
from tests.bridge_checks import outputs, relative
from tests.bridge_ops import OPS, TF_OPS, build_ops
from tfedge._keras import keras as tf_keras
from tfedge._keras import tf
from tfedge.bridge import to_keras3, to_tf_keras
from tfedge.errors import ModelError


def check(cases, lib, o, path):
    """Crosses one model of all cases, and back, from memory and from a file."""
    there, back = (to_tf_keras, to_keras3) if lib is keras else (to_keras3, to_tf_keras)
    model, x, names = build_ops(lib, o, cases)
    want = outputs(model, x)
    crossed = there(model)
    crossed.save(path)
    again = tfedge.load_model(path)
    for found in (crossed, back(crossed), again, back(again)):
        got = outputs(found, x)
        wrong = {
            name: (relative(a, b), a.dtype, b.dtype)
            for name, a, b in zip(names, got, want, strict=True)
            if relative(a, b) > 1e-5 or a.dtype != b.dtype
        }
        assert wrong == {}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("group", OPS)
def test_keras_ops(group, suffix, tmp_path):
    check(OPS[group], keras, keras.ops, tmp_path / f"m{suffix}")


@pytest.mark.parametrize("group", TF_OPS)
def test_tensorflow_functions(group, tmp_path):
    check(TF_OPS[group], tf_keras, tf, tmp_path / "m.keras")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.nn.dropout(x, 0.5),
        lambda x: tf.image.resize(x, (3, 3), preserve_aspect_ratio=True),
        lambda x: tf.boolean_mask(x, x > 0),
        lambda x: tf.nn.local_response_normalization(x),
        lambda x: tf.reshape(x, [tf.shape(x)[0] * 4, 48]),
        lambda x: tf.nn.conv2d(x, tf.ones((2, 2, 8, 1)), 1, [[0, 0], [1, 0], [0, 0], [0, 0]]),
        lambda x: x[1:],
    ],
)
def test_a_function_without_counterpart_is_named(function):
    i = tf_keras.Input((4, 6, 8))
    with pytest.raises(ModelError, match="layer 'tf.*custom_objects"):
        to_keras3(tf_keras.Model(i, function(i)))


def test_an_operation_on_functions_is_named():
    i = keras.Input((4, 8))
    x = keras.ops.vectorized_map(lambda row: row * 2.0, i)
    with pytest.raises(ModelError, match="'vectorized_map.*custom_objects"):
        to_tf_keras(keras.Model(i, x))


class Twice(keras.Operation):
    def call(self, x):
        return x * 2.0

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_users_operation_is_named():
    i = keras.Input((4,))
    with pytest.raises(ModelError, match="'my_op'.*Twice.*custom_objects"):
        to_tf_keras(keras.Model(i, Twice(name="my_op")(i)))


def test_common_operations_become_layers_that_pruning_and_qat_know():
    """No Keras 3 code where TensorFlow has the same function."""
    i = keras.Input((4, 6, 8))
    x = keras.ops.relu(i * 2.0 + 1.0)
    x = keras.ops.concatenate([x[..., :2], keras.ops.mean(x, axis=-1, keepdims=True)], axis=-1)
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 2, 1, 3)), (-1, 24, 3))
    kinds = {type(x).__name__ for x in to_tf_keras(keras.Model(i, x)).layers}
    assert kinds <= {"InputLayer", "TFOpLambda", "SlicingOpLambda", "Add", "Multiply"}

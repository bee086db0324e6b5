"""Tiny .tflite files for the tests of what runs them, converted once per session."""

from functools import cache

import numpy as np

from tfedge._keras import keras, tf
from tfedge.capture import captured
from tfedge.tflite import flatbuffer

OPS = tf.lite.OpsSet
INTEGER = {
    "int8": (OPS.TFLITE_BUILTINS_INT8, tf.int8),
    "int16": (OPS.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, tf.int16),
}


def _image():
    """Residual, depthwise, slash in a name, two outputs, one of them softmax."""
    layers = keras.layers
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv/a")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(y))
    z = layers.DepthwiseConv2D(3, padding="same", name="dw")(y)
    z = layers.BatchNormalization(name="bn_dw")(z)
    y = layers.Add(name="add")([y, z])
    y = layers.GlobalAveragePooling2D(name="gap")(y)
    p = layers.Dense(3, activation="softmax", name="p")(y)
    return keras.Model(x, [p, layers.Dense(2, name="q")(y)], name="net")


def _two():
    """1-D and 2-D inputs whose order is not alphabetical, a layer called twice."""
    layers = keras.layers
    b, a = keras.Input((10, 4), name="wave/b"), keras.Input((6,), name="a")
    shared = layers.Dense(6, activation="relu", name="shared")
    y = layers.GlobalAveragePooling1D(name="pool")(layers.Conv1D(6, 3, name="conv1d")(b))
    y = layers.Concatenate(name="join")([shared(y), shared(a)])
    return keras.Model([b, a], layers.Dense(1, name="score")(y), name="two")


def _elu():
    """Has no integer kernel: a full-integer conversion leaves ELU in float."""
    x = keras.Input((5,), name="x")
    y = keras.layers.ELU(name="elu")(keras.layers.Dense(4, name="d")(x))
    return keras.Model(x, keras.layers.Dense(2, name="out")(y), name="m")


def _large():
    """About a millisecond of arithmetic."""
    x = keras.Input((48, 48, 8), name="x")
    y = keras.layers.Conv2D(64, 3, padding="same", name="c")(x)
    return keras.Model(x, keras.layers.Conv2D(32, 3, name="d")(y), name="large")


BUILDERS = {"image": _image, "two": _two, "elu": _elu, "large": _large}


@cache
def model(name):
    """The Keras model, with weights and batch statistics that are not the defaults."""
    keras.utils.set_random_seed(1)
    net = BUILDERS[name]()
    rng = np.random.default_rng(2)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.3, shape)]
                + [rng.normal(0, 0.2, shape), rng.uniform(0.5, 1.5, shape)]
            )
    return net


def samples(name, count, seed=0):
    """Real inputs by name, uniform in [0, 1)."""
    rng = np.random.default_rng(seed)
    shapes = {t.name: (count, *t.shape[1:]) for t in model(name).inputs}
    return {n: rng.random(s).astype("f") for n, s in shapes.items()}


def layer_names(name):
    """Keras layer names in topological order."""
    return [layer.name for layer in model(name).layers]


def outputs(name, inputs):
    """The Keras model's outputs by name."""
    net = model(name)
    found = net([inputs[t.name] for t in net.inputs], training=False)
    found = found if isinstance(found, list) else [found]
    return {n: v.numpy() for n, v in zip(net.output_names, found, strict=True)}


def activations(name, inputs):
    """Every layer's output (of its first call) by layer name."""
    net = model(name)
    probe = keras.Model(net.inputs, [layer.get_output_at(0) for layer in net.layers])
    found = probe([inputs[t.name] for t in net.inputs], training=False)
    return {k: v.numpy() for k, v in zip(layer_names(name), found, strict=True)}


@cache
def file(name, kind="float", batch=1, io="int"):
    """A file: kind float, float16, int8 or int16; batch None leaves the batch free."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    net = model(name)
    names = [t.name for t in net.inputs]
    specs = [tf.TensorSpec((batch, *t.shape[1:]), name=f"in{i}") for i, t in enumerate(net.inputs)]
    function = tf.function(lambda *x: net(list(x), training=False)).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in INTEGER:
        ops, dtype = INTEGER[kind]
        data = samples(name, 40, seed=3)
        step = batch or 1
        converter.representative_dataset = lambda: (
            [data[n][i : i + step] for n in names] for i in range(0, 40, step)
        )
        converter.target_spec.supported_ops = [ops]
        if name == "elu":
            converter.target_spec.supported_ops = [ops, OPS.TFLITE_BUILTINS]
        if io == "int":
            converter.inference_input_type = converter.inference_output_type = dtype
    with captured():
        data = converter.convert()
    return _bind(bytes(data), net)


def _bind(data, net):
    """Names the file's ends after the Keras model's, in its order."""
    main = flatbuffer.read(data).subgraphs[0]
    by_name = {flatbuffer.tensor_name(main.tensors[i]): int(i) for i in main.inputs}
    inputs = {t.name: by_name[f"in{i}"] for i, t in enumerate(net.inputs)}
    outputs = dict(zip(net.output_names, (int(i) for i in main.outputs), strict=True))
    return flatbuffer.set_signature(data, inputs, outputs)

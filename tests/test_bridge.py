"""Whole models from Keras 3 into tf_keras and back: structures, names, the user's own classes."""

import keras
import numpy as np
import pytest

import tfedge
from tests.bridge_checks import layers_by_name, outputs, worst
from tests.zoo import ZOO, build
from tests.zoo import inputs_for as inputs2
from tests.zoo3 import ZOO3, build3, inputs3
from tfedge._keras import flavour, tf
from tfedge._keras import keras as tf_keras
from tfedge.bridge import to_keras3, to_tf_keras
from tfedge.errors import ModelError
from tfedge.graph import replay, trace
from tfedge.graph.copying import copy_layer

L, L2 = keras.layers, tf_keras.layers
ONES = np.ones((2, 4), "float32")


def there_and_back(model, x, custom=None, again=None):
    """The crossed model, checked; and back again."""
    there, back = (
        (to_tf_keras, to_keras3) if flavour(model) == "keras3" else (to_keras3, to_tf_keras)
    )
    crossed = there(model, custom)
    assert flavour(crossed) != flavour(model)
    assert worst(outputs(crossed, x), outputs(model, x)) < 1e-5
    returned = back(crossed, again)
    assert worst(outputs(returned, x), outputs(model, x)) < 1e-5
    return crossed, returned


@pytest.mark.parametrize("name", ZOO3)
def test_zoo_into_tf_keras_and_back(name, tmp_path):
    model = build3(name)
    x = inputs3(model)
    crossed, back = there_and_back(model, x)
    crossed.save(tmp_path / "m.keras")
    assert worst(outputs(tfedge.load_model(tmp_path / "m.keras"), x), outputs(model, x)) < 1e-5
    if name != "nested":  # nested models are written out
        assert set(layers_by_name(model)) <= set(layers_by_name(back))


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_zoo_into_keras3_and_back(name):
    model = build(name)
    there_and_back(model, inputs2(model))


def test_a_model_of_the_wanted_flavour_is_returned_as_it_is():
    model = build3("residual")
    crossed = to_tf_keras(model)
    assert to_keras3(model) is model and to_tf_keras(crossed) is crossed
    with pytest.raises(ModelError, match="not a Keras model"):
        to_tf_keras(object())


def test_dicts_lists_and_unused_structure():
    a, b, c = (keras.Input((4,), name=n) for n in "abc")
    outs = [[L.Dense(1)(a)], {"q": L.Add()([b, c]), "p": L.Dense(2)(c)}]
    model = keras.Model({"a": a, "rest": [b, c]}, outs)
    x = {"a": ONES, "rest": [ONES * 2, ONES * 3]}
    crossed, back = there_and_back(model, x)
    for found in (crossed, back):
        shapes = tf.nest.map_structure(lambda t: tuple(t.shape), found(x))
        assert shapes == [[(2, 1)], {"q": (2, 4), "p": (2, 2)}]


def test_inputs_as_outputs_and_outputs_twice():
    i = keras.Input((4,), name="inn")
    d = L.Dense(2, name="fc")(i)
    model = keras.Model(i, [i, d, d])
    assert len(outputs(there_and_back(model, ONES)[0], ONES)) == 3


def test_names_are_kept():
    i = keras.Input((4,), name="feature")
    head = L.Dense(2, name="head.1")(L.Dense(3, name="fc-a")(i))
    model = keras.Model(i, {"klass": head, "size": i * 2}, name="My_Model")
    crossed, back = there_and_back(model, ONES)
    for found in (crossed, back):
        assert found.name == "My_Model"
        assert {"feature", "head.1", "fc-a"} <= {x.name for x in found.layers}
        assert found.output_names == model.output_names
        assert set(found(ONES)) == {"klass", "size"}


def test_forbidden_names_are_changed_and_stay_apart():
    i = tf_keras.Input((4,), name="in/put")
    model = tf_keras.Model(i, L2.Dense(2, name="a_b")(L2.Dense(3, name="a/b")(i)))
    crossed, _ = there_and_back(model, ONES)
    assert [x.name for x in crossed.layers] == ["in_put", "a_b", "a_b_1"]
    i = keras.Input((4,), name="_in")
    model = keras.Model(i, L.Dense(2, name="_fc")(i), name="_m")
    crossed, _ = there_and_back(model, ONES)
    assert [x.name for x in crossed.layers] == ["layer_in", "layer_fc"]


def test_names_of_operations_and_masks_do_not_clash_with_layers():
    keras.backend.clear_session()  # Keras 3 numbers its operations from the start
    i = tf_keras.Input((5,), dtype="int32")
    a = L2.Embedding(7, 4, mask_zero=True, name="embedding")(i)
    b = L2.Embedding(7, 4, mask_zero=True, name="embedding_mask")(i)
    x = L2.LSTM(3, name="not_equal")(L2.Concatenate(name="concatenate")([a, b]))
    x = tf.math.squared_difference(L2.Dense(2, name="square")(x), 1.0)
    model = tf_keras.Model(i, L2.Dense(2, name="multiply")(x * 2.0 + x))
    crossed, _ = there_and_back(model, np.array([[1, 2, 3, 0, 0]], "int32"))
    assert set(layers_by_name(model)) == set(layers_by_name(crossed))


@pytest.mark.parametrize("lib", [keras, tf_keras])
def test_sequential_comes_as_functional(lib):
    layers = lib.layers
    model = lib.Sequential([lib.Input((4,)), layers.Dense(3), layers.Dense(2)], name="s")
    crossed, _ = there_and_back(model, ONES)
    assert (
        crossed.name == "s"
        and [x.name for x in model.layers] == [x.name for x in crossed.layers][1:]
    )


@pytest.mark.parametrize("lib", [keras, tf_keras])
def test_shared_layers_and_nested_models(lib):
    layers = lib.layers
    inner = lib.Sequential(
        [lib.Input((4,)), layers.Dense(3, name="fc"), layers.BatchNormalization(name="bn")],
        name="inner",
    )
    a, b = lib.Input((4,), name="a"), lib.Input((4,), name="b")
    x = layers.Subtract()([inner(a), inner(b)])
    model = lib.Model([a, b], layers.Dense(2, name="fc")(x))
    crossed, _ = there_and_back(model, [ONES, ONES * 3])
    assert {"fc", "bn"} <= {x.name for x in crossed.layers}
    assert len(crossed.weights) == len(model.weights)


def test_frozen_layers_stay_frozen():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization()])
    inner.trainable = False
    i = keras.Input((4,))
    model = keras.Model(i, L.Dense(2)(inner(i, training=False)))
    for found in there_and_back(model, ONES):
        assert len(found.trainable_weights) == len(model.trainable_weights) == 2
    i = keras.Input((5, 4))
    layer = L.TimeDistributed(L.Dense(3, trainable=False))
    model = keras.Model(i, layer(i))
    assert not to_tf_keras(model).trainable_weights


def test_a_nested_model_called_for_inference_keeps_its_statistics():
    inner = tf_keras.Sequential([tf_keras.Input((4,)), L2.BatchNormalization(name="bn")])
    i = tf_keras.Input((4,))
    model = tf_keras.Model(i, L2.Dense(2)(inner(i, training=False)))
    again = replay(trace(model), lambda name, layer: copy_layer(layer, name=name))
    again(np.random.default_rng(0).random((8, 4), np.float32), training=True)
    assert not np.asarray(again.get_layer("bn").moving_mean).any()


def test_training_mode_that_keras3_would_not_heed_is_refused():
    i = tf_keras.Input((4,))
    model = tf_keras.Model(i, L2.Dropout(0.5, name="mc")(i, training=True))
    with pytest.raises(ModelError, match="'mc'.*training=True"):
        to_keras3(model)


def test_batch_size_and_dtypes_of_inputs():
    i, t = keras.Input(batch_shape=(2, 4), dtype="float16"), keras.Input((3,), dtype="int64")
    model = keras.Model([i, t], [L.Dense(2)(i), L.Embedding(5, 2)(t)])
    crossed = to_tf_keras(model)
    for found in (crossed, to_keras3(crossed)):
        assert tuple(found.inputs[0].shape) == (2, 4)
        assert [tf.as_dtype(t.dtype).name for t in found.inputs] == ["float16", "int64"]


def test_a_global_policy_of_tf_keras_changes_nothing():
    i = keras.Input((4,))
    h = L.Dense(4)(i)
    model = keras.Model(i, keras.ops.hard_sigmoid(h + h) * keras.ops.sin(h))
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        assert worst(outputs(to_tf_keras(model), ONES), outputs(model, ONES)) < 1e-5
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def test_text_and_lookup_layers():
    vectorize = L.TextVectorization(output_sequence_length=4)
    vectorize.adapt(["hello world", "world of tea"])
    i, w = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="string")
    model = keras.Model([i, w], [vectorize(i), L.StringLookup(vocabulary=["a", "b"])(w)])
    x = [tf.constant([["hello tea"], ["z"]]), tf.constant([["b"], ["z"]])]
    there_and_back(model, x)


def test_variables_as_constants_are_kept_in_the_file(tmp_path):
    v = keras.Variable(np.full((4,), 3, "float32"))
    i = keras.Input((4,))
    model = keras.Model(i, i * v + tf.constant([1.0, 2, 3, 4]))
    to_tf_keras(model).save(tmp_path / "m.keras")
    again = tfedge.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(np.asarray(again(ONES))[0], [4, 5, 6, 7])


class Mine(L.Layer):
    """Doubles; the argument shows that configs are carried."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Theirs(L2.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_custom_layers_cross_by_name(tmp_path):
    i = keras.Input((4,))
    model = keras.Model(i, L.Dense(2)(Mine(3.0, name="mine", trainable=False)(i)))
    assert type(to_tf_keras(model).get_layer("mine").inner) is Mine  # carried unasked
    crossed, _ = there_and_back(model, ONES, {"Mine": Theirs}, {"Theirs": Mine})
    assert crossed.get_layer("mine").factor == 3.0 and not crossed.get_layer("mine").trainable
    with pytest.raises(ModelError, match="custom_objects.'Theirs'. is not a keras3 class"):
        to_keras3(crossed, {"Theirs": Theirs})
    # Its own class, named on purpose, is carried along.
    carried, back = there_and_back(model, ONES, {"Mine": Mine}, {"Mine": Mine})
    assert type(back.get_layer("mine")) is Mine
    carried.save(tmp_path / "m.keras")
    again = tfedge.load_model(tmp_path / "m.keras", {"Mine": Mine})
    assert worst(outputs(again, ONES), outputs(model, ONES)) < 1e-5


def test_classes_registered_in_both_kerases_cross_unasked():
    @keras.saving.register_keras_serializable("bridge_test")
    class Half(L.Layer):
        def call(self, x):
            return x / 2

    @tf_keras.saving.register_keras_serializable("bridge_test", name="Half")
    class Half2(L2.Layer):
        def call(self, x):
            return x / 2

    i = keras.Input((4,))
    crossed = to_tf_keras(keras.Model(i, Half(name="half")(i)))
    assert type(crossed.get_layer("half")) is Half2


def test_a_custom_layer_without_config_says_so():
    class Bare(L.Layer):
        def __init__(self, size, **kwargs):
            super().__init__(**kwargs)
            self.size = object()

        def call(self, x):
            return x

    i = keras.Input((4,))
    with pytest.raises(ModelError, match="'bare'"):
        to_tf_keras(keras.Model(i, Bare(3, name="bare")(i)), {"Bare": Theirs})


def test_custom_functions_cross_by_name():
    def shrink(x):
        return keras.ops.sign(x) * keras.ops.sqrt(keras.ops.abs(x))

    def shrink2(x):
        return tf.sign(x) * tf.sqrt(tf.abs(x))

    i = keras.Input((4,))
    model = keras.Model(i, L.Lambda(shrink)(L.Dense(3, activation=shrink, name="fc")(i)))
    crossed, _ = there_and_back(model, ONES, {"shrink": shrink2}, {"shrink2": shrink})
    assert crossed.get_layer("fc").activation is shrink2
    there_and_back(model, ONES)  # on TensorFlow the function itself works as well


def test_a_function_with_keras_name_is_not_taken_for_keras():
    def relu(x):
        return x * 5.0

    for lib in (keras, tf_keras):
        i = lib.Input((4,))
        model = lib.Model(i, lib.layers.Dense(2, activation=relu)(i))
        there_and_back(model, ONES)


def test_regularizers_that_do_not_cross_are_named():
    class Own(keras.regularizers.Regularizer):
        def __call__(self, x):
            return 0.0 * keras.ops.sum(x)

        def get_config(self):
            return {}

    i = keras.Input((4,))
    model = keras.Model(i, L.Dense(2, kernel_regularizer=Own(), name="fc")(i))
    crossed = to_tf_keras(model)
    assert crossed.get_layer("fc").kernel_regularizer is model.get_layer("fc").kernel_regularizer
    with pytest.raises(ModelError, match="'fc' uses a regularizer.*Own.*custom_objects"):
        to_keras3(crossed)
    crossed = to_tf_keras(model, {"Own": tf_keras.regularizers.L2})
    assert isinstance(crossed.get_layer("fc").kernel_regularizer, tf_keras.regularizers.L2)


def test_subclassed_models_are_named():
    class Sub(keras.Model):
        def __init__(self):
            super().__init__(name="sub")
            self.fc = L.Dense(2)

        def call(self, x):
            return self.fc(x)

    i = keras.Input((4,))
    with pytest.raises(ModelError, match="'sub'.*custom_objects"):
        to_tf_keras(keras.Model(i, Sub()(i)))
    sub = Sub()
    sub(ONES)
    with pytest.raises(ModelError, match="'sub' is a subclassed model"):
        to_tf_keras(sub)


# Model classes with their own training step, of equal meaning in both Kerases.
class Counting(keras.Model):
    steps = 0

    def __init__(self, *args, weight=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight

    def train_step(self, data):
        type(self).steps += 1
        return super().train_step(data)

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


class Counting2(tf_keras.Model):
    steps = 0

    def __init__(self, *args, weight=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight

    def train_step(self, data):
        type(self).steps += 1
        return super().train_step(data)

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


def counting(kind):
    lib = keras if kind is Counting else tf_keras
    layers = lib.layers
    i = lib.Input((6, 6, 3), name="image")
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(i)
    x = layers.Dense(2, name="fc")(layers.GlobalAveragePooling2D()(x))
    return kind(inputs=i, outputs=x, name="counting", weight=2.5)


def trains(model, kind):
    """Whether the class's own train_step ran."""
    kind.steps = 0
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(np.ones((4, 6, 6, 3), "float32"), np.ones((4, 2), "float32"), verbose=0)
    return type(model) is kind and kind.steps == 1 and model.weight == 2.5


@pytest.mark.parametrize("kind", [Counting, Counting2])
def test_a_model_class_is_kept_by_pruning_and_replay(kind):
    model = counting(kind)
    small = tfedge.prune.shrink(model, 0.5).model
    assert trains(small, kind) and small.get_layer("conv").filters == 8
    assert trains(replay(trace(model), lambda n, layer: copy_layer(layer, name=n)), kind)


def test_a_model_class_crosses_by_name(tmp_path):
    model = counting(Counting)
    x = np.ones((2, 6, 6, 3), "float32")
    with pytest.raises(ModelError, match="Counting has its own.*train_step.*custom_objects"):
        to_tf_keras(model)
    crossed, back = there_and_back(model, x, {"Counting": Counting2}, {"Counting2": Counting})
    assert trains(crossed, Counting2) and trains(back, Counting)
    plain = to_tf_keras(model, keep_class=False)
    assert type(plain).__name__ == "Functional"
    assert len(tfedge.convert(model, "float32").data) > 0  # inference needs no train_step
    model.save(tmp_path / "m.keras")
    assert type(tfedge.load_model(tmp_path / "m.keras", {"Counting": Counting})) is Counting


def test_a_model_class_that_cannot_be_rebuilt_says_what_it_needs():
    class Fixed(keras.Model):
        def __init__(self, units):
            i = keras.Input((4,))
            super().__init__(inputs=i, outputs=L.Dense(units)(L.Dense(16, name="a")(i)))

        def train_step(self, data):
            return super().train_step(data)

    with pytest.raises(ModelError, match="Fixed cannot be built.*inputs, outputs"):
        tfedge.prune.shrink(Fixed(2), 0.5)

    class Needy(keras.Model):
        def __init__(self, inputs, outputs, alpha, **kwargs):
            super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        def train_step(self, data):
            return super().train_step(data)

    i = keras.Input((4,))
    model = Needy(i, L.Dense(2)(L.Dense(16)(i)), 0.3)
    with pytest.raises(ModelError, match="'alpha' of the model class Needy.*get_config"):
        tfedge.prune.shrink(model, 0.5)


def test_a_class_that_changes_the_output_is_never_dropped():
    class Shifted(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask) + 1.0

    i = keras.Input((4,))
    with pytest.raises(ModelError, match="Shifted has its own call"):
        to_tf_keras(Shifted(inputs=i, outputs=L.Dense(2)(i)), keep_class=False)


def test_a_file_crosses_as_its_model_does(tmp_path):
    model = build3("residual")
    model.save(tmp_path / "m.keras")
    crossed = tfedge.bridge.to_tf_keras(tmp_path / "m.keras")
    x = inputs3(model)
    assert worst(outputs(crossed, x), outputs(model, x)) < 1e-5
    crossed.save(tmp_path / "m.h5")
    assert worst(outputs(tfedge.bridge.to_keras3(tmp_path / "m.h5"), x), outputs(model, x)) < 1e-5

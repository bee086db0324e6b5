"""Corners: legal models that are seldom written."""

from __future__ import annotations


def dict_inputs(k):
    a = {"x": k.Input((4,), name="x"), "y": k.Input((4,), name="y")}
    h = k.L.Dense(6)(k.L.Dense(5)(a["x"])) + k.L.Dense(6)(a["y"])
    return k.Model(a, {"o": k.L.Dense(2, name="o")(h), "p": k.L.Dense(1, name="p")(h)})


def inputs_and_inner_outputs(k):
    i = k.Input((4,))
    h = k.L.Dense(6)(k.L.Dense(5)(i))
    out = k.L.Dense(2)(h)
    return k.Model(i, [i, h, out, out])


def block_without_a_rule(k):
    class Block(k.L.Layer):
        def build(self, shape):
            self.inner = k.L.Dense(8)
            self.inner.build(shape)
            super().build(shape)

        def call(self, x):
            return self.inner(x)

    i = k.Input((4,))
    x = Block(name="block")(k.L.Dense(5, name="before")(i))
    return k.Model(i, k.L.Dense(2)(k.L.Dense(6)(x)))


def steps_of_steps(k):
    model = [k.Input((3,)), k.L.Dense(6, "relu"), k.L.Dense(4)]
    i = k.Input((2, 3, 3))
    x = k.L.TimeDistributed(k.L.TimeDistributed(k.Sequential(model)))(i)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def steps_of_recurrent(k):
    i = k.Input((2, 4, 3))
    x = k.L.TimeDistributed(k.L.Bidirectional(k.L.LSTM(4)))(i)
    x = k.L.TimeDistributed(k.L.LayerNormalization())(k.L.TimeDistributed(k.L.Dense(5))(x))
    return k.Model(i, k.L.Dense(2)(k.L.GRU(4)(x)))


def steps_of_branches(k):
    a = k.Input((6, 6, 4))
    h = k.L.BatchNormalization()(k.L.Conv2D(6, 3, padding="same")(a))
    h = k.L.Reshape((36, 6))(k.L.Add()([h, k.L.Conv2D(6, 1)(a)]))
    inner = k.Model(a, k.L.Dense(4)(k.L.GlobalAveragePooling1D()(h)))
    i = k.Input((3, 6, 6, 2))
    x = k.L.TimeDistributed(inner)(k.L.TimeDistributed(k.L.Conv2D(4, 1))(i))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def shared_encoder_with_steps(k):
    a = k.Input((3, 4))
    model = k.Sequential([k.Input((4,)), k.L.Dense(5), k.L.ReLU()])
    encoder = k.Model(a, k.L.LSTM(4)(k.L.TimeDistributed(model)(a)), name="encoder")
    i, j = k.Input((3, 4)), k.Input((3, 4), name="other")
    return k.Model([i, j], k.L.Dense(2)(encoder(i) - encoder(j)))


def directions_of_two_widths(k):
    i = k.Input((4, 3))
    back = k.L.LSTM(4, go_backwards=True, return_sequences=True)
    x = k.L.Bidirectional(k.L.LSTM(4, return_sequences=True), backward_layer=back)(i)
    a, b = k.L.Bidirectional(k.L.GRU(3), merge_mode=None)(x)
    return k.Model(i, k.L.Dense(2)(a * b))


def convolutions_in_two_directions(k):
    i = k.Input((3, 5, 5, 2))
    x = k.L.Bidirectional(k.L.ConvLSTM2D(4, 3, padding="same"))(i)
    return k.Model(i, k.L.Conv2D(2, 1)(x))


def states_by_hand(k):
    i, j = k.Input((4, 3)), k.Input((3,), name="context")
    x, s = k.L.GRU(4, return_state=True, return_sequences=True)(i)
    y = k.L.GRU(4, reset_after=False)(x, initial_state=s)
    z = k.L.LSTM(6)(x, initial_state=[k.L.Dense(6)(j), k.L.Dense(6)(j)])
    y = k.L.Add()([y, k.L.Dense(4)(s)])
    return k.Model([i, j], k.L.Dense(2)(k.L.Concatenate()([y, z])))


def masks(k):
    i = k.Input((5,), dtype="int32")
    x = k.L.Embedding(10, 8, mask_zero=True)(i)
    y = x + k.L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    z, scores = k.L.Attention(use_scale=True, score_mode="concat")(
        [y, y, y], return_attention_scores=True
    )
    z = k.L.GlobalAveragePooling1D()(k.L.AdditiveAttention()([x, z]))
    z = k.L.Concatenate()([z, k.L.LSTM(4)(y)])
    return k.Model(i, [k.L.Dense(2)(z), k.L.Flatten()(scores)])


def three_inputs_of_attention(k):
    i = k.Input((5, 3))
    q, key, v = k.L.Dense(6)(i), k.L.Dense(7)(i), k.L.Dense(5)(i)
    y = k.L.MultiHeadAttention(2, 4, output_shape=6)(q, v, key=key)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(y + q)))


def attention_of_many_features(k):
    i = k.Input((5, 3))
    q = k.L.Dense(6)(i)
    y = k.L.MultiHeadAttention(2, 4, output_shape=(2, 3))(q, q)
    return k.Model(i, k.L.Dense(2)(k.L.Dense(4)(k.L.Flatten()(y))))


def own_activations(k):
    def mixing(x):
        return x / (1.0 + k.ops.sum(k.ops.abs(x), -1, True))

    def plain(x):
        return k.ops.tanh(x) * 0.5

    i = k.Input((5,))
    x = k.L.Dense(7, activation=plain)(k.L.Dense(6, activation=mixing)(i))
    x = k.L.Dense(5, activation=k.L.LeakyReLU())(x)
    return k.Model(i, k.L.Dense(2)(k.L.Activation(mixing)(k.L.Dense(4)(x))))


def recurrent_softmax(k):
    i = k.Input((4, 3))
    x = k.L.SimpleRNN(5, "relu", return_sequences=True)(i)
    return k.Model(i, k.L.Dense(2)(k.L.LSTM(4, activation="softmax")(x)))


def bags_of_words(k):
    i = k.Input((3, 4), dtype="int32")
    x = k.ops.sum(k.L.Embedding(10, 6)(i), 2)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.Conv1D(4, 2)(x))))


def pointwise_on_two_axes(k):
    """1x1 convolutions of every kind, beside an axis of hidden tokens."""
    i = k.Input((4, 6))
    x = k.L.Permute((2, 1))(k.L.Dense(5, "relu")(k.L.Permute((2, 1))(i)))
    x = k.L.Conv1D(8, 1, groups=2)(k.L.Conv1D(6, 1)(x))
    x = k.L.SeparableConv1D(6, 1)(k.L.Conv1D(8, 1, groups=8)(x))
    x = k.L.Permute((2, 1))(k.L.DepthwiseConv1D(1)(x))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.Dense(3)(x))))


def five_axes(k):
    i = k.Input((2, 2, 2, 3))
    x = k.L.Conv3D(5, 1)(k.L.Dense(6)(i))
    x = k.L.LayerNormalization(axis=(1, 4))(x)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def two_signs_of_axes(k):
    i = k.Input((2, 2, 3))
    x = k.L.LayerNormalization(axis=(1, -1))(k.L.Conv2D(5, 1, name="first")(i))
    return k.Model(i, k.L.Dense(2)(k.L.Dense(4)(k.L.Flatten()(x))))


def heads_by_einsum(k):
    i = k.Input((4, 6))
    x = k.L.EinsumDense("abc,cde->abde", (4, 2, 5), activation="softmax", bias_axes="de")(i)
    x = k.L.EinsumDense("abde,def->abf", output_shape=(4, 4), bias_axes="f")(x)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def outer_product(k):
    i = k.Input((4,))
    a, b = k.L.Dense(5)(i), k.L.Dense(6)(i)
    x = k.ops.expand_dims(a, 2) * k.ops.expand_dims(b, 1)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(x)))


def outer_product_as_image(k):
    i = k.Input((4,))
    a, b = k.L.Dense(5, name="rows")(i), k.L.Dense(6, name="columns")(i)
    x = k.ops.expand_dims(k.ops.expand_dims(a, 2) * k.ops.expand_dims(b, 1), -1)
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.Conv2D(3, 3)(x))))


def feature_crosses(k):
    """The crosses of xDeepFM and the sum of squares of a factorization machine."""
    i = k.Input((3,), dtype="int32")
    e = k.L.Embedding(10, 6)(i)
    p = k.ops.reshape(k.ops.einsum("bhd,bmd->bhmd", e, e), (-1, 9, 6))
    p = k.L.Conv1D(5, 1)(k.ops.transpose(p, (0, 2, 1)))
    fm = k.ops.sum(k.ops.sum(e, 1) ** 2 - k.ops.sum(e * e, 1), -1, True)
    return k.Model(i, k.L.Dense(2)(k.L.Concatenate()([k.ops.sum(p, 1), fm])))


def reshape_after_reshape(k):
    i = k.Input((6,))
    x = k.L.Reshape((2, 12))(k.L.Dense(24)(i))
    x = k.L.ReLU()(k.L.Reshape((3, 8))(x))
    x = k.L.Reshape((-1,))(k.L.Reshape((4, -1))(x))
    return k.Model(i, k.L.Dense(2)(x))


def reshape_read_both_ways(k):
    i = k.Input((6,))
    x = k.L.Reshape((4, 6))(k.L.Dense(24, name="both")(i))
    a, b = k.L.Dense(3)(x), k.L.Dense(3)(k.L.Permute((2, 1))(x))
    return k.Model(i, [k.L.Dense(2)(k.L.Flatten()(t)) for t in (a, b)])


def one_reshape_twice(k):
    fold = k.L.Reshape((2, 4))
    i = k.Input((6,))
    a, b = fold(k.L.Dense(8)(i)), fold(k.L.Dense(8)(i))
    return k.Model(i, [k.L.Dense(2)(k.L.Flatten()(a)), k.L.Dense(3)(k.L.Flatten()(b))])


def operations_used_twice(k):
    a = k.Input((8,))
    x, y = k.ops.split(a, 2, axis=-1)
    model = k.Model(a, k.ops.concatenate([x * y, a[:, 1:3]], -1))
    i = k.Input((6,))
    return k.Model(i, [k.L.Dense(2)(model(k.L.Dense(8)(i))), k.L.Dense(2)(model(k.L.Dense(8)(i)))])


def fixed_batch(k):
    i = k.Input((4, 4, 3), batch_size=3)
    x = k.ops.reshape(k.ops.reshape(k.L.Conv2D(8, 1)(i), (3, 16, 8)), (48, 8))
    x = k.ops.reshape(k.L.Dense(6)(x), (3, 96))
    return k.Model(i, k.L.Dense(2)(x))


def parts_mixed_again(k):
    i = k.Input((6, 6, 3))
    x = k.L.Conv2D(12, 1)(i)
    a, b, c = k.ops.split(x, 3, axis=-1)
    y = k.L.Conv2D(4, 1)(k.ops.concatenate([b, c], -1)) + b
    y = k.ops.concatenate([a, y, c], -1)
    return k.Model(i, k.L.Dense(2)(k.L.GlobalAveragePooling2D()(y * x)))


def channels_by_number(k):
    i = k.Input((5,))
    x = k.L.Dense(6)(i)
    pair = k.ops.expand_dims(x[:, 0] * x[:, 3], -1)
    return k.Model(i, [k.L.Dense(1)(pair), k.L.Dense(2)(x)])


def mixed_precision(k):
    i = k.Input((6, 6, 3))
    x = k.L.BatchNormalization(dtype="float64")(k.L.Conv2D(8, 3)(i))
    return k.Model(i, k.L.Dense(2)(k.L.Flatten()(k.L.Dense(6, dtype="float64")(x))))

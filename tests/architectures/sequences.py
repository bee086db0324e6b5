"""Sequence models."""

from __future__ import annotations

from tests.architectures.blocks import cbr, mlp
from tfedge._keras import tf


def wavenet(k):
    i = k.Input((16, 2))
    x = k.L.Conv1D(8, 2, padding="causal")(i)
    skips = []
    for d in (1, 2, 4):
        t = k.L.Conv1D(8, 2, padding="causal", dilation_rate=d, activation="tanh")(x)
        g = k.L.Conv1D(8, 2, padding="causal", dilation_rate=d, activation="sigmoid")(x)
        y = k.L.Multiply()([t, g])
        skips.append(k.L.Conv1D(6, 1)(y))
        x = k.L.Add()([x, k.L.Conv1D(8, 1)(y)])
    x = k.L.ReLU()(k.L.Add()(skips))
    return k.Model(i, k.L.Conv1D(4, 1, activation="softmax")(x))


def tcn(k):
    i = k.Input((16, 2))
    x = i
    for n in (6, 8):
        y = k.L.Conv1D(n, 3, padding="causal", activation="relu")(x)
        y = k.L.SpatialDropout1D(0.1)(k.L.LayerNormalization()(y))
        y = k.L.Conv1D(n, 3, padding="causal", activation="relu")(y)
        x = k.L.Activation("relu")(k.L.Add()([k.L.Conv1D(n, 1)(x), y]))
    return k.Model(i, k.L.Dense(2)(x[:, -1, :]))


def crnn(k):
    i = k.Input((8, 16, 1))
    x = k.L.MaxPooling2D()(cbr(k, i, 6))
    x = k.L.MaxPooling2D((2, 1))(cbr(k, x, 8))
    x = k.L.Permute((2, 1, 3))(x)
    x = k.L.Reshape((8, 2 * 8))(x)
    x = k.L.Dense(10, "relu")(x)
    x = k.L.Bidirectional(k.L.LSTM(6, return_sequences=True))(x)
    x = k.L.Bidirectional(k.L.GRU(5, return_sequences=True), merge_mode="ave")(x)
    return k.Model(i, k.L.Dense(4, "softmax")(x))


def text_cnn(k):
    i = k.Input((12,), dtype="int32")
    x = k.L.Embedding(10, 8)(i)
    x = k.L.Concatenate()(
        [k.L.GlobalMaxPooling1D()(k.L.Conv1D(6, n, activation="relu")(x)) for n in (2, 3, 4)]
    )
    return k.Model(i, k.L.Dense(2)(k.L.Dropout(0.5)(x)))


def encoder_decoder(k):
    a, b = k.Input((6,), dtype="int32", name="source"), k.Input((5,), dtype="int32", name="target")
    y, h, c = k.L.LSTM(8, return_sequences=True, return_state=True)(k.L.Embedding(10, 6)(a))
    x = k.L.LSTM(8, return_sequences=True)(k.L.Embedding(10, 6)(b), initial_state=[h, c])
    x = k.L.Concatenate()([x, k.L.Attention()([x, y])])
    return k.Model([a, b], k.L.TimeDistributed(k.L.Dense(4, "softmax"))(x))


def bidirectional_states(k):
    a, b = k.Input((6, 3), name="source"), k.Input((5, 3), name="target")
    _, fh, fc, bh, bc = k.L.Bidirectional(k.L.LSTM(4, return_state=True))(a)
    h, c = k.L.Concatenate()([fh, bh]), k.L.Concatenate()([fc, bc])
    x = k.L.LSTM(8, return_sequences=True)(b, initial_state=[h, c])
    x = k.L.Bidirectional(k.L.GRU(5))(x)
    return k.Model([a, b], k.L.Dense(2)(x))


def attention_pooling(k):
    i = k.Input((6,), dtype="int32")
    x = k.L.Bidirectional(k.L.LSTM(5, return_sequences=True))(k.L.Embedding(10, 8)(i))
    s = k.L.Dense(1)(k.L.Dense(6, "tanh")(x))
    s = k.L.Softmax(axis=1)(s)
    return k.Model(i, k.L.Dense(2)(k.ops.sum(x * s, 1)))


def attention_repeat(k):
    """Scores flattened, softmax, repeated over the features: Flatten, RepeatVector, Permute."""
    i = k.Input((6, 4))
    x = k.L.LSTM(5, return_sequences=True)(i)
    s = k.L.Activation("softmax")(k.L.Flatten()(k.L.Dense(1, "tanh")(x)))
    s = k.L.Permute((2, 1))(k.L.RepeatVector(5)(s))
    return k.Model(i, k.L.Dense(2)(k.ops.sum(k.L.Multiply()([x, s]), 1)))


def transformer(k):
    a, b = k.Input((6,), dtype="int32", name="source"), k.Input((5,), dtype="int32", name="target")
    m = k.Input((5, 6), name="mask")
    table = k.L.Embedding(10, 12)
    x, y = table(a), table(b)
    z = k.L.MultiHeadAttention(2, 6)(x, x)
    x = k.L.LayerNormalization()(x + z)
    x = k.L.LayerNormalization()(x + mlp(k, x, 16, 12))
    z = k.L.MultiHeadAttention(3, 4, value_dim=5)(y, y, use_causal_mask=True)
    y = k.L.LayerNormalization()(y + z)
    z, scores = k.L.MultiHeadAttention(2, 4, use_bias=False)(
        y, x, attention_mask=k.ops.cast(m, "bool"), return_attention_scores=True
    )
    y = k.L.LayerNormalization()(y + z)
    y = y + mlp(k, y, 16, 12)
    return k.Model([a, b, m], [k.L.Dense(4)(y), k.ops.mean(scores, 1)])


def masked_gru(k):
    i = k.Input((6,), dtype="int32")
    j = k.Input((6, 3), name="features")
    x = k.L.Embedding(10, 8, mask_zero=True)(i)
    x = k.L.GRU(6, return_sequences=True)(x)
    y = k.L.LSTM(5)(k.L.Masking()(j))
    x = k.L.Bidirectional(k.L.GRU(4))(x)
    return k.Model([i, j], k.L.Dense(2)(k.L.Concatenate()([x, y])))


def conv_lstm(k):
    i = k.Input((3, 6, 6, 2))
    x = k.L.ConvLSTM2D(6, 3, padding="same", return_sequences=True)(i)
    x = k.L.BatchNormalization()(x)
    x = k.L.ConvLSTM2D(4, 3, padding="same")(x)
    return k.Model(i, k.L.Conv2D(2, 1)(x))


def time_distributed(k):
    cnn = k.Sequential(
        [k.Input((6, 6, 2)), k.L.Conv2D(6, 3, activation="relu"), k.L.BatchNormalization(),
         k.L.GlobalAveragePooling2D(), k.L.Dense(5, "relu")], name="cnn")  # fmt: skip
    i = k.Input((3, 6, 6, 2))
    x = k.L.TimeDistributed(cnn)(i)
    return k.Model(i, k.L.Dense(2)(k.L.LSTM(6)(x)))


def time_distributed_layers(k):
    i = k.Input((3, 8, 8, 2))
    x = k.L.TimeDistributed(k.L.Conv2D(6, 3, activation="relu"))(i)
    x = k.L.TimeDistributed(k.L.BatchNormalization())(x)
    x = k.L.TimeDistributed(k.L.MaxPooling2D())(x)
    x = k.L.TimeDistributed(k.L.Flatten())(x)
    return k.Model(i, k.L.Dense(2)(k.L.GRU(5)(x)))


def own_attention(k):
    """Multi-head attention written out, as a Swin block or a GPT does it."""
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    qkv = k.ops.reshape(k.L.Dense(36)(x), (-1, 6, 3, 3, 4))
    qkv = k.ops.transpose(qkv, (2, 0, 3, 1, 4))
    q, key, v = qkv[0], qkv[1], qkv[2]
    s = k.ops.softmax(k.ops.matmul(q * 0.5, k.ops.transpose(key, (0, 1, 3, 2))), -1)
    y = k.ops.reshape(k.ops.transpose(k.ops.matmul(s, v), (0, 2, 1, 3)), (-1, 6, 12))
    return k.Model(i, k.L.Dense(3)(x + k.L.Dense(12)(y)))


def own_attention_einsum(k):
    """Query, key and value apart, products as einsum."""
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    q, key, v = (k.L.Reshape((6, 3, 4))(k.L.Dense(12)(x)) for _ in range(3))
    s = k.ops.softmax(k.ops.einsum("bqhd,bkhd->bhqk", q, key), -1)
    y = k.ops.einsum("bhqk,bkhd->bqhd", s, v)
    y = k.L.Dense(12)(k.L.Reshape((6, 12))(y))
    return k.Model(i, k.L.Dense(3)(k.L.Flatten()(x + y)))


def gmlp(k):
    i = k.Input((6, 8))
    x = i
    for _ in range(2):
        y = k.L.Dense(16, "gelu")(k.L.LayerNormalization()(x))
        u, v = k.ops.split(y, 2, axis=-1)
        v = k.L.Permute((2, 1))(k.L.LayerNormalization()(v))
        v = k.L.Permute((2, 1))(k.L.Dense(6)(v))
        x = k.L.Dense(8)(u * v)
    return k.Model(i, k.L.Dense(3)(k.L.GlobalAveragePooling1D()(x)))


def efficient_attention(k):
    """Linear attention: softmax over the features, then key times value."""
    i = k.Input((6, 4))
    q, key, v = k.L.Dense(6)(i), k.L.Dense(6)(i), k.L.Dense(8)(i)
    context = k.ops.matmul(k.ops.transpose(k.ops.softmax(key, 1), (0, 2, 1)), v)
    return k.Model(i, k.L.Dense(2)(k.ops.matmul(k.ops.softmax(q, -1), context)))


def stacked_cells(k):
    i = k.Input((5, 3))
    x = k.L.RNN(k.L.LSTMCell(6), return_sequences=True)(i)
    x = k.L.RNN([k.L.GRUCell(5), k.L.SimpleRNNCell(4)])(x)
    return k.Model(i, k.L.Dense(2)(x))


def rnn_on_conv3d(k):
    i = k.Input((4, 6, 6, 1))
    x = k.L.Conv3D(6, 3, padding="same", activation="relu")(i)
    x = k.L.MaxPooling3D((1, 2, 2))(k.L.ZeroPadding3D((0, 1, 1))(x))
    x = k.L.Conv3DTranspose(4, 3, padding="same")(x)
    x = k.L.Reshape((4, -1))(x)
    return k.Model(i, k.L.Dense(2)(k.L.SimpleRNN(5)(x)))


def depthwise_1d(k):
    i = k.Input((12, 3))
    x = k.L.Conv1D(6, 3, padding="same", activation="relu")(i)
    x = k.L.DepthwiseConv1D(3, padding="same", depth_multiplier=2)(x)
    x = k.L.SeparableConv1D(8, 3, padding="same", depth_multiplier=2)(x)
    x = k.L.Conv1DTranspose(6, 3, strides=2)(x)
    x = k.L.Cropping1D(2)(k.L.UpSampling1D(2)(k.L.ZeroPadding1D(1)(x)))
    return k.Model(i, k.L.Dense(2)(k.L.AveragePooling1D(2)(x)))


def free_sizes(k):
    """Free height, width and length."""
    i, j = k.Input((None, None, 3)), k.Input((None, 4), name="steps")
    x = cbr(k, i, 8)
    x = k.ops.mean(k.ops.reshape(x, (-1, 64, 8)), 1) if k.flavour == "tf_keras" else _gap(k, x)
    y = k.L.GRU(5, return_sequences=True)(j)
    y = k.L.MultiHeadAttention(2, 4)(y, y)
    y = k.L.GlobalMaxPooling1D()(k.L.Conv1D(6, 3, padding="same")(y))
    return k.Model([i, j], k.L.Dense(2)(k.L.Concatenate()([x, y])))


def _gap(k, x):
    return k.L.GlobalAveragePooling2D()(x)


def grouped_query(k):
    i = k.Input((6, 8))
    x = k.L.Dense(12)(i)
    y = k.L.GroupQueryAttention(4, 4, 2)(k.L.RMSNormalization()(x), x)
    return k.Model(i, k.L.Dense(2)(x + y))


def llama_like(k):
    i = k.Input((6,), dtype="int32")
    table = k.L.ReversibleEmbedding(10, 12)
    x = table(i)
    y = k.L.RMSNormalization()(x)
    q, key, v = (k.ops.reshape(k.L.Dense(12, use_bias=False)(y), (-1, 6, 3, 4)) for _ in range(3))
    y = k.ops.dot_product_attention(q, key, v, is_causal=True)
    x = x + k.L.Dense(12, use_bias=False)(k.ops.reshape(y, (-1, 6, 12)))
    y = k.L.RMSNormalization()(x)
    x = x + k.L.Dense(12)(k.ops.silu(k.L.Dense(16)(y)) * k.L.Dense(16)(y))
    return k.Model(i, table(k.L.LayerNormalization()(x), reverse=True))


def dynamic_shapes(k):
    """Reshapes by tf.shape, as code for free batch and length does it."""
    i = k.Input((None, 8))
    x = k.L.Dense(12)(i)
    n, t = tf.shape(x)[0], tf.shape(x)[1]
    q = tf.transpose(tf.reshape(x, (n, t, 3, 4)), (0, 2, 1, 3))
    s = tf.nn.softmax(tf.matmul(q, q, transpose_b=True))
    x = tf.reshape(tf.transpose(tf.matmul(s, q), (0, 2, 1, 3)), (n, t, 12))
    return k.Model(i, k.L.Dense(2)(x))

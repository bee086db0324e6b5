"""Convolutional networks."""

from __future__ import annotations

import numpy as np

from tests.architectures.blocks import cbr, head


def unet(k):
    i = k.Input((8, 8, 3))
    a = cbr(k, i, 6)
    b = cbr(k, k.L.MaxPooling2D()(a), 8)
    c = cbr(k, k.L.MaxPooling2D()(b), 10)
    x = k.L.Conv2DTranspose(8, 2, 2)(c)
    x = cbr(k, k.L.Concatenate()([b, x]), 8)
    x = k.L.UpSampling2D(interpolation="bilinear")(x)
    x = cbr(k, k.L.Concatenate()([x, a]), 6)
    return k.Model(i, k.L.Conv2D(2, 1, activation="softmax")(x))


def unet_valid(k):
    """The first U-Net: unpadded convolutions, the skip cropped."""
    i = k.Input((16, 16, 1))
    a = k.L.Conv2D(6, 3, activation="relu")(i)
    x = k.L.Conv2D(8, 3, activation="relu")(k.L.MaxPooling2D()(a))
    x = k.L.Conv2DTranspose(6, 2, 2)(x)
    x = k.L.Concatenate()([k.L.Cropping2D(2)(a), x])
    return k.Model(i, k.L.Conv2D(2, 3)(x))


def fpn(k):
    i = k.Input((16, 16, 3))
    c1 = cbr(k, i, 6, strides=2)
    c2 = cbr(k, c1, 8, strides=2)
    c3 = cbr(k, c2, 10, strides=2)
    p3 = k.L.Conv2D(6, 1)(c3)
    p2 = k.L.Add()([k.L.Conv2D(6, 1)(c2), k.L.UpSampling2D()(p3)])
    p1 = k.L.Add()([k.L.Conv2D(6, 1)(c1), k.L.UpSampling2D()(p2)])
    head = k.L.Conv2D(4, 3, padding="same", name="shared_head")
    return k.Model(i, [head(p) for p in (p1, p2, p3)])


def yolo(k):
    """Focus by strided slices, CSP split by slices, SPPF, PANet, three-axis head."""
    i = k.Input((16, 16, 3))
    x = k.ops.concatenate(
        [i[:, ::2, ::2, :], i[:, 1::2, ::2, :], i[:, ::2, 1::2, :], i[:, 1::2, 1::2, :]], -1
    )
    x = cbr(k, x, 8, act="swish")
    a, b = x[..., :4], x[..., 4:]
    y = b + cbr(k, cbr(k, b, 4, 1), 4, act="swish")
    x = s = cbr(k, k.L.Concatenate()([a, y, b]), 8, 1)
    x = cbr(k, x, 8, strides=2)
    p = cbr(k, x, 4, 1)
    pools = [p]
    for _ in range(3):
        pools.append(k.L.MaxPooling2D(5, 1, "same")(pools[-1]))
    x = cbr(k, k.L.Concatenate()(pools), 8, 1)
    up = k.L.Concatenate()([k.L.UpSampling2D()(x), s])
    up = cbr(k, up, 6)
    down = k.L.Concatenate()([cbr(k, up, 6, strides=2), x])
    outs = [k.L.Conv2D(2 * 7, 1)(t) for t in (up, down)]
    outs = [k.L.Reshape((n * n, 2, 7))(o) for o, n in zip(outs, (8, 4), strict=True)]
    return k.Model(i, k.L.Concatenate(axis=1)(outs))


def _shuffle(k, x, groups):
    h, w, c = x.shape[1:]
    x = k.ops.reshape(x, (-1, h, w, groups, c // groups))
    x = k.ops.transpose(x, (0, 1, 2, 4, 3))
    return k.ops.reshape(x, (-1, h, w, c))


def shufflenet_v2(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 12)
    for _ in range(2):
        a, b = k.ops.split(x, 2, axis=-1)
        b = cbr(k, b, 6, 1)
        b = k.L.DepthwiseConv2D(3, padding="same", use_bias=False)(b)
        b = cbr(k, k.L.BatchNormalization()(b), 6, 1)
        x = _shuffle(k, k.ops.concatenate([a, b], -1), 2)
    return k.Model(i, head(k, cbr(k, x, 8, 1)))


def _shufflenet_v1(k, groups):
    i = k.Input((8, 8, 3))
    x = a = cbr(k, i, 12)
    x = cbr(k, x, 12, 1, groups=groups)
    x = k.L.Reshape((8, 8, groups, 12 // groups))(x)
    x = k.L.Permute((1, 2, 4, 3))(x)
    x = k.L.Reshape((8, 8, 12))(x)
    x = k.L.DepthwiseConv2D(3, padding="same")(x)
    x = k.L.Conv2D(12, 1, groups=groups)(x)
    return k.Model(i, head(k, k.L.ReLU()(k.L.Add()([x, a]))))


def shufflenet_v1(k):
    """Grouped 1x1 convolutions, shuffle by layers."""
    return _shufflenet_v1(k, 2)


def shufflenet_odd(k):
    """Three groups of four: shuffled, no two positions agree on what may go."""
    return _shufflenet_v1(k, 3)


def ghostnet(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    for n in (6, 8):
        p = cbr(k, x, n, 1)
        g = k.L.ReLU()(k.L.DepthwiseConv2D(3, padding="same")(p))
        x = k.L.Concatenate()([p, g])
    return k.Model(i, head(k, x))


def squeeze_excite(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    s = k.L.GlobalAveragePooling2D()(x)
    s = k.L.Dense(4, "relu")(s)
    s = k.L.Reshape((1, 1, 8))(k.L.Dense(8, "sigmoid")(s))
    x = x * s
    s = k.ops.mean(x, (1, 2), True)
    s = k.L.Conv2D(3, 1, activation="swish")(s)
    x = k.ops.multiply(k.L.Conv2D(8, 1, activation="hard_sigmoid")(s), x)
    return k.Model(i, head(k, x))


def eca(k):
    """A convolution over the channels: their order matters, so they stay."""
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    s = k.L.Reshape((8, 1))(k.L.GlobalAveragePooling2D()(x))
    s = k.L.Conv1D(1, 3, padding="same", use_bias=False)(s)
    s = k.L.Reshape((1, 1, 8))(k.L.Activation("sigmoid")(s))
    x = cbr(k, k.L.Multiply()([x, s]), 6)
    return k.Model(i, head(k, x))


def cbam(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    squeeze, excite = k.L.Dense(4, "relu"), k.L.Dense(8)
    pools = [k.L.GlobalAveragePooling2D()(x), k.L.GlobalMaxPooling2D()(x)]
    s = k.L.Add()([excite(squeeze(p)) for p in pools])
    x = k.L.Multiply()([x, k.L.Reshape((1, 1, 8))(k.L.Activation("sigmoid")(s))])
    m = [k.ops.mean(x, -1, True), k.ops.max(x, -1, True)]
    m = k.L.Conv2D(1, 7, padding="same", activation="sigmoid")(k.ops.concatenate(m, -1))
    return k.Model(i, head(k, cbr(k, x * m, 6)))


def coordinate_attention(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    h = k.ops.mean(x, 2, True)
    w = k.ops.transpose(k.ops.mean(x, 1, True), (0, 2, 1, 3))
    y = cbr(k, k.ops.concatenate([h, w], 1), 6, 1)
    h, w = k.ops.split(y, 2, axis=1)
    h = k.L.Conv2D(8, 1, activation="sigmoid")(h)
    w = k.L.Conv2D(8, 1, activation="sigmoid")(k.ops.transpose(w, (0, 2, 1, 3)))
    return k.Model(i, head(k, x * h * w))


def convnext(k):
    i = k.Input((8, 8, 3))
    x = k.L.LayerNormalization(epsilon=1e-6)(k.L.Conv2D(8, 2, 2)(i))
    for _ in range(2):
        y = k.L.DepthwiseConv2D(3, padding="same")(x)
        y = k.L.LayerNormalization(epsilon=1e-6)(y)
        x = x + k.L.Dense(8)(k.L.Dense(20, "gelu")(y)) * np.full(8, 0.3, "float32")
    return k.Model(i, k.L.Dense(3)(k.L.LayerNormalization()(k.L.GlobalAveragePooling2D()(x))))


def repvgg(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    for _ in range(2):
        branches = [
            cbr(k, x, 8, act=None),
            cbr(k, x, 8, 1, act=None),
            k.L.BatchNormalization()(x),
        ]
        x = k.L.ReLU()(k.L.Add()(branches))
    return k.Model(i, head(k, x))


def res2net(k):
    i = k.Input((8, 8, 3))
    x = a = cbr(k, i, 12)
    parts = k.ops.split(x, 4, axis=-1)
    done = [parts[0]]
    for p in parts[1:]:
        done.append(cbr(k, p + done[-1] if len(done) > 1 else p, 3))
    x = k.L.Conv2D(12, 1)(k.ops.concatenate(done, -1))
    return k.Model(i, head(k, k.ops.relu(x + a)))


def resnext(k):
    i = k.Input((8, 8, 3))
    x = a = cbr(k, i, 8)
    x = cbr(k, cbr(k, x, 12, 1), 12, groups=3)
    x = k.L.ReLU()(k.L.Add()([cbr(k, x, 8, 1, act=None), a]))
    return k.Model(i, head(k, x))


def densenet(k):
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(8, 3, padding="same")(i)
    for _ in range(3):
        y = k.L.ReLU()(k.L.BatchNormalization()(x))
        x = k.L.Concatenate()([x, k.L.Conv2D(4, 3, padding="same")(y)])
    x = k.L.Conv2D(10, 1)(k.L.ReLU()(k.L.BatchNormalization()(x)))
    return k.Model(i, head(k, k.L.AveragePooling2D(2)(x)))


def inception(k):
    i = k.Input((8, 8, 3))
    x = cbr(k, i, 8)
    a = cbr(k, x, 4, 1)
    b = cbr(k, cbr(k, x, 4, 1), 6, (1, 3))
    c = cbr(k, k.L.AveragePooling2D(3, 1, "same")(x), 4, 1)
    return k.Model(
        i, head(k, cbr(k, k.L.Concatenate()([a, b, c, k.L.MaxPooling2D(3, 1, "same")(x)]), 6))
    )


def hrnet(k):
    i = k.Input((8, 8, 3))
    a = cbr(k, i, 6)
    b = cbr(k, a, 8, strides=2)
    for _ in range(2):
        up = k.L.UpSampling2D()(cbr(k, b, 6, 1, act=None))
        down = cbr(k, a, 8, strides=2, act=None)
        a, b = k.L.ReLU()(k.L.Add()([a, up])), k.L.ReLU()(k.L.Add()([b, down]))
    x = k.L.Concatenate()([a, k.ops.resize(b, (8, 8))])
    return k.Model(i, k.L.Conv2D(2, 1)(x))


def deeplab(k):
    i = k.Input((8, 8, 3))
    low = x = cbr(k, i, 8)
    x = cbr(k, x, 8, strides=2)
    pool = k.L.GlobalAveragePooling2D(keepdims=True)(x)
    pool = k.ops.resize(k.L.Conv2D(4, 1, activation="relu")(pool), (4, 4))
    branches = [k.L.Conv2D(4, 3, padding="same", dilation_rate=d)(x) for d in (1, 2)]
    sep = k.L.SeparableConv2D(4, 3, padding="same")(x)
    x = cbr(k, k.L.Concatenate()([*branches, pool, sep]), 6, 1)
    x = k.L.UpSampling2D(interpolation="bilinear")(x)
    x = k.L.Concatenate()([x, cbr(k, low, 4, 1)])
    return k.Model(i, k.L.Conv2D(2, 3, padding="same")(x))


def ds_cnn(k):
    i = k.Input((12, 10, 1))
    x = cbr(k, i, 8, (4, 3), strides=2)
    for _ in range(2):
        x = k.L.ReLU()(k.L.BatchNormalization()(k.L.DepthwiseConv2D(3, padding="same")(x)))
        x = cbr(k, x, 8, 1)
    x = k.L.Dropout(0.2)(x)
    x = k.L.AveragePooling2D((6, 5))(x)
    return k.Model(i, k.L.Dense(3, "softmax")(k.L.Flatten()(x)))


def squeezenet(k):
    i = k.Input((8, 8, 3))
    x = k.L.Conv2D(8, 3, activation="relu")(i)
    for n in (3, 4):
        s = k.L.Conv2D(n, 1, activation="relu")(x)
        x = k.L.Concatenate()([k.L.Conv2D(6, 1, activation="relu")(s),
                               k.L.Conv2D(6, 3, padding="same", activation="relu")(s)])  # fmt: skip
    x = k.L.Conv2D(4, 1)(x)
    return k.Model(i, k.L.Activation("softmax")(k.L.GlobalAveragePooling2D()(x)))


def network_in_network(k):
    i = k.Input((8, 8, 3))
    x = i
    for n in (8, 6):
        for size in (3, 1):
            x = k.L.Conv2D(n, size, padding="same", activation="relu")(x)
    return k.Model(i, k.L.GlobalAveragePooling2D()(k.L.Conv2D(3, 1)(x)))


def resnet_option_a(k):
    """A shortcut without weights: strided slice and zero channels."""
    i = k.Input((8, 8, 3))
    a = cbr(k, i, 6)
    x = cbr(k, cbr(k, a, 10, strides=2), 10, act=None)
    a = k.ops.pad(a[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]])
    return k.Model(i, head(k, k.L.ReLU()(x + a)))


def deep_supervision(k):
    """UNet++ like nesting with an average of the heads."""
    i = k.Input((8, 8, 3))
    a = cbr(k, i, 6)
    b = cbr(k, k.L.MaxPooling2D()(a), 6)
    c = cbr(k, k.L.Concatenate()([a, k.L.UpSampling2D()(b)]), 6)
    d = cbr(k, k.L.Concatenate()([a, c, k.L.UpSampling2D()(b)]), 6)
    outs = [k.L.Conv2D(2, 1)(t) for t in (a, c, d)]
    return k.Model(i, k.L.Average()(outs))

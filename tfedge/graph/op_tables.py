"""The tables of operation rules: Keras 3 operations by class, TensorFlow functions by name."""

from __future__ import annotations

from tfedge.graph import rules_ops as r

_UNARY = (
    "Absolute Abs Negative Relu Relu6 Sigmoid Silu Swish Softplus Softsign LogSigmoid LeakyRelu "
    "HardSigmoid HardSilu HardSwish Elu Selu Gelu Celu Tanh HardTanh Exp Expm1 Log Log1p Log2 "
    "Log10 Sqrt Rsqrt Square Reciprocal Sign Round Floor Ceil Clip Cast Cos Sin Erf StopGradient "
    "Identity Copy ConvertToTensor OnesLike ZerosLike Isfinite LogicalNot Threshold HardShrink "
    "SoftShrink TanhShrink Squareplus SparsePlus"
).split()
_BINARY = (
    "Add Subtract Multiply Divide TrueDivide DivideNoNan FloorDivide Maximum Minimum Power Mod "
    "Where Greater GreaterEqual Less LessEqual Equal NotEqual LogicalAnd LogicalOr Arctan2 Hypot "
    "SquaredDifference"
).split()
_REDUCE = "Mean Sum Max Min Amax Amin Prod Var Std Logsumexp All Any".split()

KERAS_OPS = {
    **dict.fromkeys(_UNARY, r.unary),
    **dict.fromkeys(_BINARY, r.broadcasting),
    **dict.fromkeys(_REDUCE, r.reduce_op),
    "Reshape": r.reshape_op,
    "Transpose": r.transpose_op,
    "Swapaxes": r.swapaxes,
    "Moveaxis": r.moveaxis,
    "ExpandDims": r.expand_dims,
    "Squeeze": r.squeeze,
    "Concatenate": r.concat_op,
    "Stack": r.stack_op,
    "Unstack": r.unstack_op,
    "Split": r.split_op,
    "GetItem": r.getitem,
    "Softmax": r.softmax_op,
    "LogSoftmax": r.softmax_op,
    "Normalize": r.softmax_op,
    "Pad": r.pad_op,
    "DepthToSpace": r.depth_to_space,
    "Matmul": r.matmul,
}

TF_OPS = {
    **dict.fromkeys(
        "math.abs math.negative nn.relu nn.relu6 nn.sigmoid math.sigmoid nn.silu nn.swish "
        "math.softplus nn.softsign nn.leaky_relu nn.elu nn.selu nn.gelu nn.tanh math.tanh math.exp "
        "math.log math.log1p math.sqrt math.rsqrt math.square math.reciprocal math.sign math.round "
        "math.floor math.ceil clip_by_value cast math.cos math.sin math.erf stop_gradient identity "
        "__operators__.neg __operators__.abs image.resize compat.v1.image.resize nn.dropout "
        "math.reciprocal_no_nan ones_like zeros_like".split(),
        r.unary,
    ),
    **dict.fromkeys(
        "math.add math.subtract math.multiply math.divide math.truediv math.divide_no_nan "
        "math.floordiv math.maximum math.minimum math.pow where math.greater math.greater_equal "
        "math.less math.less_equal math.equal math.not_equal math.logical_and math.logical_or "
        "math.squared_difference __operators__.add __operators__.sub __operators__.mul "
        "__operators__.truediv __operators__.pow __operators__.radd __operators__.rsub "
        "__operators__.rmul __operators__.rtruediv __operators__.floordiv nn.bias_add "
        "math.add_n".split(),
        r.broadcasting,
    ),
    **dict.fromkeys(
        "math.reduce_mean math.reduce_sum math.reduce_max math.reduce_min math.reduce_prod "
        "math.reduce_variance math.reduce_std math.reduce_logsumexp math.reduce_any "
        "math.reduce_all".split(),
        r.reduce_op,
    ),
    "reshape": r.reshape_op,
    "transpose": r.transpose_op,
    "expand_dims": r.expand_dims,
    "squeeze": r.squeeze,
    "compat.v1.squeeze": r.squeeze,
    "concat": r.concat_op,
    "stack": r.stack_op,
    "unstack": r.unstack_op,
    "split": r.split_op,
    "__operators__.getitem": r.getitem,
    "nn.softmax": r.softmax_op,
    "nn.log_softmax": r.softmax_op,
    "math.l2_normalize": r.softmax_op,
    "pad": r.pad_op,
    "nn.depth_to_space": r.depth_to_space,
    "linalg.matmul": r.matmul,
    "__operators__.matmul": r.matmul,
}

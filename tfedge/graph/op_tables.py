"""The tables of operation rules: Keras 3 operations by class, TensorFlow functions by name."""

from __future__ import annotations

from tfedge.graph import rules_einsum as e
from tfedge.graph import rules_image as i
from tfedge.graph import rules_index as x
from tfedge.graph import rules_ops as r
from tfedge.graph.rules_attention import dot_product_attention
from tfedge.graph.rules_einops import rearrange

_UNARY = (
    "Absolute Abs Fabs Negative Relu Relu6 ReLU Sigmoid Silu Swish Softplus Softsign LogSigmoid "
    "LeakyRelu HardSigmoid HardSilu HardSwish Elu Selu Gelu Celu Mish Tanh HardTanh Exp Exp2 Expm1 "
    "Log Log1p Log2 Log10 Sqrt Cbrt Rsqrt Square Reciprocal Sign Signbit Round Trunc Floor Ceil "
    "Cast SaturateCast Cos Cosh Sin Sinh Sinc Tan Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Erf "
    "Erfc Erfinv StopGradient Identity Copy ConvertToTensor OnesLike ZerosLike FullLike Isfinite "
    "Isinf Isnan Isneginf Isposinf LogicalNot BitwiseNot BitwiseInvert NanToNum Threshold "
    "HardShrink SoftShrink TanhShrink Squareplus SparsePlus SparseSigmoid Real Imag Conj Conjugate "
    "Angle Deg2rad Rad2deg I0"
).split()
_BINARY = (
    "Add Subtract Multiply Divide TrueDivide DivideNoNan FloorDivide Maximum Minimum Fmax Fmin "
    "Fmod Power Mod Where Greater GreaterEqual Less LessEqual Equal NotEqual Isclose LogicalAnd "
    "LogicalOr LogicalXor Arctan2 Hypot Logaddexp Logaddexp2 SquaredDifference BitwiseAnd "
    "BitwiseOr BitwiseXor Heaviside"
).split()
_REDUCE = (
    "Mean Sum Max Min Amax Amin Prod Var Std Logsumexp All Any Median Norm Moments Ptp Nanmean "
    "Nansum Nanmax Nanmin Nanvar Nanstd Nanprod CountNonzero"
).split()
_POSITIONS = "Argmax Argmin Argsort Argpartition Sort Roll Nanargmax Nanargmin".split()

KERAS_OPS = {
    **dict.fromkeys(_UNARY, r.unary),
    **dict.fromkeys(_BINARY, r.broadcasting),
    **dict.fromkeys(_REDUCE, r.reduce_op),
    **dict.fromkeys(_POSITIONS, r.positions_op),
    "TopK": r.last_axis_positions,
    "Average": r.mean_op,
    "Clip": r.clip,
    "Reshape": r.reshape_op,
    "Transpose": r.transpose_op,
    "Swapaxes": r.swapaxes,
    "Moveaxis": r.moveaxis,
    "ExpandDims": r.expand_dims,
    "Squeeze": r.squeeze,
    "Ravel": r.ravel,
    "Concatenate": r.concat_op,
    "Append": r.append_op,
    "Hstack": r.stacked_along(1),
    "Dstack": r.stacked_along(2),
    "Stack": r.stack_op,
    "Unstack": r.unstack_op,
    "Split": r.split_op,
    "ArraySplit": r.array_split,
    "GetItem": x.getitem,
    "Slice": x.slice_op,
    "Take": x.take,
    "Repeat": x.repeat,
    "Tile": x.tile,
    "Flip": x.flip,
    "BroadcastTo": x.broadcast_to,
    "Tril": x.matrix_op,
    "Triu": x.matrix_op,
    "Softmax": r.softmax_op,
    "LogSoftmax": r.softmax_op,
    "Sparsemax": r.softmax_op,
    "Normalize": r.softmax_op,
    "LayerNorm": r.norm_op,
    "RMSNorm": r.norm_op,
    "Glu": r.glu_op,
    "Cumsum": r.cumulative,
    "Cumprod": r.cumulative,
    "Pad": r.pad_op,
    "DepthToSpace": i.depth_to_space,
    "SpaceToDepth": i.space_to_depth,
    "ExtractPatches": i.extract_patches,
    **dict.fromkeys(
        "Resize CropImages PadImages GaussianBlur AffineTransform PerspectiveTransform".split(),
        i.image_op,
    ),
    **dict.fromkeys(
        "AveragePool MaxPool AdaptiveAveragePool AdaptiveMaxPool".split(), i.pooling_op
    ),
    "Matmul": e.matmul,
    "Rearrange": rearrange,
    "Einsum": e.einsum_op,
    "Tensordot": e.tensordot,
    "DotProductAttention": dot_product_attention,
}

TF_OPS = {
    **dict.fromkeys(
        "math.abs math.negative nn.relu nn.relu6 nn.sigmoid math.sigmoid nn.silu nn.swish "
        "math.softplus nn.softsign nn.leaky_relu nn.elu nn.selu nn.gelu nn.tanh math.tanh math.exp "
        "math.expm1 math.log math.log1p math.log_sigmoid math.sqrt math.rsqrt math.square "
        "math.reciprocal math.sign math.round math.floor math.ceil cast math.cos math.sin math.tan "
        "math.acos math.asin math.atan math.cosh math.sinh math.erf math.erfc stop_gradient "
        "identity __operators__.neg __operators__.abs nn.dropout math.reciprocal_no_nan ones_like "
        "zeros_like compat.v1.ones_like compat.v1.zeros_like math.is_finite math.is_nan "
        "math.is_inf math.logical_not saturate_cast keras.backend.softsign "
        "debugging.check_numerics".split(),
        r.unary,
    ),
    **dict.fromkeys(
        "math.add math.subtract math.multiply math.divide math.truediv math.divide_no_nan "
        "math.multiply_no_nan math.floordiv math.floormod compat.v1.floor_div math.mod "
        "math.maximum math.minimum "
        "math.pow where math.greater math.greater_equal math.less math.less_equal math.equal "
        "math.not_equal math.logical_and math.logical_or math.logical_xor math.atan2 math.xlogy "
        "math.squared_difference math.add_n __operators__.add __operators__.sub __operators__.mul "
        "__operators__.truediv __operators__.pow __operators__.radd __operators__.rsub "
        "__operators__.rmul __operators__.rtruediv __operators__.floordiv __operators__.eq "
        "__operators__.ne".split(),
        r.broadcasting,
    ),
    "nn.bias_add": i.bias_add,
    **dict.fromkeys(
        "math.reduce_mean math.reduce_sum math.reduce_max math.reduce_min math.reduce_prod "
        "math.reduce_variance math.reduce_std math.reduce_logsumexp math.reduce_any "
        "math.reduce_all math.reduce_euclidean_norm compat.v1.norm math.count_nonzero "
        "nn.moments".split(),
        r.reduce_op,
    ),
    **dict.fromkeys("math.argmax math.argmin sort argsort roll".split(), r.positions_op),
    "math.top_k": r.last_axis_positions,
    "math.in_top_k": r.last_axis_positions,
    "clip_by_value": r.clip,
    "reshape": r.reshape_op,
    "transpose": r.transpose_op,
    "compat.v1.transpose": r.transpose_op,
    "linalg.matrix_transpose": r.matrix_transpose,
    "expand_dims": r.expand_dims,
    "squeeze": r.squeeze,
    "compat.v1.squeeze": r.squeeze,
    "concat": r.concat_op,
    "stack": r.stack_op,
    "unstack": r.unstack_op,
    "split": r.split_op,
    "__operators__.getitem": x.getitem,
    "slice": x.slice_op,
    "gather": x.take,
    "compat.v1.gather": x.take,
    "repeat": x.repeat,
    "tile": x.tile,
    "reverse": x.flip,
    "broadcast_to": x.broadcast_to,
    "shape": x.shape_op,
    "compat.v1.shape": x.shape_op,
    "linalg.band_part": x.matrix_op,
    "nn.softmax": r.softmax_op,
    "nn.log_softmax": r.softmax_op,
    "math.l2_normalize": r.softmax_op,
    "math.cumsum": r.cumulative,
    "math.cumprod": r.cumulative,
    "pad": r.pad_op,
    "compat.v1.pad": r.pad_op,
    "nn.depth_to_space": i.depth_to_space,
    "nn.space_to_depth": i.space_to_depth,
    "image.extract_patches": i.extract_patches,
    **dict.fromkeys(
        "image.resize compat.v1.image.resize image.resize_with_pad image.central_crop "
        "image.flip_left_right image.flip_up_down image.rot90 image.resize_with_crop_or_pad "
        "image.crop_to_bounding_box image.pad_to_bounding_box".split(),
        i.image_op,
    ),
    **dict.fromkeys(
        "nn.avg_pool nn.avg_pool1d nn.avg_pool2d nn.avg_pool3d nn.max_pool nn.max_pool1d "
        "nn.max_pool2d nn.max_pool3d compat.v1.nn.avg_pool compat.v1.nn.max_pool".split(),
        i.pooling_op,
    ),
    "linalg.matmul": e.matmul,
    "__operators__.matmul": e.matmul,
    "einsum": e.einsum_op,
    "linalg.einsum": e.einsum_op,
    "tensordot": e.tensordot,
    "nn.depthwise_conv2d": i.constant_depthwise,
    "compat.v1.nn.depthwise_conv2d": i.constant_depthwise,
}

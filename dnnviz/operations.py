"""What operations do, by the names under which a trace sees them."""

from __future__ import annotations

# fmt: off
NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"}
ACTIVATIONS = {
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid",
    "tanh", "hardtanh", "softplus", "softsign", "logsigmoid", "threshold", "hardshrink", "softshrink", "tanhshrink", "clamp", "clamp_min", "erf",
}
# With an activation among them, these make an activation function written out by hand (x * sigmoid(x)).
POINTWISE = ACTIVATIONS | {
    "add", "sub", "mul", "div", "truediv", "radd", "rsub", "rmul", "rdiv", "rtruediv", "iadd", "isub", "imul", "itruediv", "neg", "exp", "log",
    "log1p", "expm1", "pow", "rpow", "sqrt", "square", "abs", "maximum", "minimum", "clamp_max", "where", "to", "type_as", "float",
}
# These leave every number as it is; in eval mode dropout does too.
LAYOUTS = {
    "permute", "transpose", "swapaxes", "swapdims", "contiguous", "clone", "dropout", "dropout1d", "dropout2d", "alpha_dropout",
    "feature_alpha_dropout",
}
MOVES = LAYOUTS | {
    "getitem", "chunk", "split", "narrow", "pad", "view", "reshape", "flatten", "unsqueeze", "squeeze", "select", "unbind", "roll",
}
WEIGHTED = {"linear", "matmul", "rmatmul", "mm", "addmm", "bmm", "einsum", "bilinear", "multi_head_attention_forward"}
ATTENTIONS = {"softmax", "scaled_dot_product_attention", "multi_head_attention_forward"}
ADDITIONS = {"add", "iadd", "radd"}
CONCATENATIONS = {"cat", "concat", "concatenate", "stack"}
GATES = {"mul", "imul", "rmul"}
# fmt: on


def is_convolution(name: str) -> bool:
    """Whether an operation is a convolution (of any number of dimensions, transposed or not)."""
    return name.startswith("conv")

"""The problems that `run_memory.py --target cpu` times: a table, and the text of its files.

A row is a name, the model (an expression over the inputs x and y, or a module that takes x) and the
inputs. Sizes are such that eager takes between one and a hundred milliseconds on two cores.
"""

ROWS = "torch.randn(4096, 4096)"
HALF = "torch.randn(4096, 4096, dtype=torch.bfloat16)"
MIDDLE = "torch.randn(16, 512, 1023)"
SCAN = "torch.randn(1024, 4096)"
IMAGES = "torch.randn(8, 64, 64, 64)"
PAIR = "torch.randn(1024, 4096), torch.randn(1024, 4096)"
SQUARE = "torch.randn(768, 768)"
CHANNELS = "torch.randn(4, 64, 56, 56)"
CLASSES = "torch.randn(200000, 17)"
TANH = "0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))"

CPU_PROBLEMS = (
    ("gelu_tanh", TANH, ROWS),
    ("gelu_tanh_bf16", TANH, HALF),
    ("mish", "F.mish(x)", ROWS),
    ("mish_bf16", "F.mish(x)", HALF),
    ("selu", "F.selu(x)", ROWS),
    ("softplus", "F.softplus(x)", ROWS),
    ("hardswish", "F.hardswish(x)", ROWS),
    ("hardswish_bf16", "F.hardswish(x)", HALF),
    ("bias_relu_scale", "torch.relu(x + y) * 2.0 - 1.0", f"{ROWS}, torch.randn(4096)"),
    ("transposed_add", "(x.t() + y).sigmoid()", f"{ROWS}, {ROWS}"),
    ("sum_rows", "x.sum(1)", ROWS),
    ("sum_rows_bf16", "x.sum(1)", HALF),
    ("sum_columns", "x.sum(0)", ROWS),
    ("mean_middle", "x.mean(1)", MIDDLE),
    ("max_middle", "x.amax(1)", MIDDLE),
    ("min_middle_with_indices", "torch.min(x, 1)", MIDDLE),
    ("prod_middle", "(1 + 0.01 * x).prod(1)", MIDDLE),
    ("argmax_middle", "x.argmax(1)", MIDDLE),
    ("argmax_rows", "x.argmax(1)", ROWS),
    ("max_short_rows", "x.amax(1)", "torch.randn(100000, 33)"),
    ("norm_all", "x.norm()", ROWS),
    ("variance_rows", "x.var(1)", ROWS),
    ("softmax", "F.softmax(x, 1)", ROWS),
    ("softmax_bf16", "F.softmax(x, 1)", HALF),
    ("softmax_100", "F.softmax(x, 1)", "torch.randn(40000, 100)"),
    ("softmax_columns", "F.softmax(x, 1)", MIDDLE),
    ("softmax_17", "F.softmax(x, 1)", CLASSES),
    ("log_softmax_17", "F.log_softmax(x, 1)", CLASSES),
    ("logsumexp_17", "torch.logsumexp(x, 1)", CLASSES),
    ("log_softmax_pixels", "F.log_softmax(x, 1)", "torch.randn(4, 21, 128, 128)"),
    (
        "attention_softmax",
        "F.softmax(x / 8 + y, -1)",
        "torch.randn(2, 8, 256, 256), torch.randn(256, 256)",
    ),
    ("argmax_10", "x.argmax(1)", "torch.randn(200000, 10)"),
    ("log_softmax_100", "F.log_softmax(x, 1)", "torch.randn(40000, 100)"),
    ("log_softmax_1000", "F.log_softmax(x, 1)", "torch.randn(4096, 1000)"),
    ("logsumexp", "torch.logsumexp(x, 1)", ROWS),
    ("layer_norm_768", "nn.LayerNorm(768)", "torch.randn(8192, 768)"),
    ("layer_norm_100", "nn.LayerNorm(100)", "torch.randn(40000, 100)"),
    ("rms_norm", "nn.RMSNorm(4096)", ROWS),
    ("residual_rms_norm", "F.rms_norm(x + y, (4096,))", PAIR),
    ("rms_norm_channels", "x / (x.square().mean(1, True) + 1e-5).sqrt()", IMAGES),
    ("l1_norm_odd_rows", "x / x.abs().sum(1, True)", "torch.randn(128, 65535)"),
    ("instance_norm", "nn.InstanceNorm2d(64)", IMAGES),
    ("group_norm", "nn.GroupNorm(8, 64)", IMAGES),
    ("group_norm_silu", "nn.Sequential(nn.GroupNorm(8, 64), nn.SiLU())", IMAGES),
    ("batch_norm_training", "nn.BatchNorm2d(64)", IMAGES),
    ("cumsum", "x.cumsum(1)", SCAN),
    ("cumsum_middle", "x.cumsum(1)", "torch.randn(16, 256, 512)"),
    ("cumsum_columns", "x.cumsum(0)", SCAN),
    ("reverse_cumsum", "x.flip(1).cumsum(1).flip(1)", SCAN),
    ("cumprod", "x.cumprod(1)", SCAN),
    ("cummax", "torch.cummax(x, 1)", SCAN),
    ("max_pool_1d", "nn.MaxPool1d(8, 1, 4, 3)", "torch.randn(8, 64, 8192)"),
    ("max_pool_2d", "nn.MaxPool2d(3, 2, 1)", "torch.randn(8, 64, 128, 128)"),
    ("max_pool_3d", "nn.MaxPool3d(3, 2, 1)", "torch.randn(2, 32, 32, 64, 64)"),
    ("avg_pool_1d", "nn.AvgPool1d(8, 2)", "torch.randn(8, 64, 8192)"),
    ("avg_pool_2d", "nn.AvgPool2d(3, 2, 1)", "torch.randn(8, 64, 128, 128)"),
    ("avg_pool_3d", "nn.AvgPool3d(2)", "torch.randn(2, 32, 32, 64, 64)"),
    ("mse_loss", "F.mse_loss(x, y)", PAIR),
    ("huber_loss", "F.smooth_l1_loss(x, y)", PAIR),
    ("kl_loss", "F.kl_div(x.log_softmax(1), y.softmax(1), reduction='batchmean')", PAIR),
    ("cosine_loss", "(1 - F.cosine_similarity(x, y, dim=1)).mean()", PAIR),
    ("cross_entropy", "F.cross_entropy(x, y)", f"{SCAN}, torch.randint(0, 4096, (1024,))"),
    (
        "embedding_mean",
        "F.embedding(y, x).mean(1)",
        "torch.randn(10000, 128), torch.randint(0, 10000, (4096, 20))",
    ),
    (
        "cross_entropy_pixels",
        "F.cross_entropy(x, y)",
        "torch.randn(4, 21, 128, 128), torch.randint(0, 21, (4, 128, 128))",
    ),
    ("linear_gelu", "nn.Sequential(nn.Linear(1024, 1024), nn.GELU())", "torch.randn(1024, 1024)"),
    (
        "mlp_block",
        "nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))",
        "torch.randn(1024, 256)",
    ),
    ("product_sigmoid_residual", "torch.sigmoid(x @ y + x) * 0.5", f"{SQUARE}, {SQUARE}"),
    (
        "linear_softmax",
        "nn.Sequential(nn.Linear(512, 1000), nn.Softmax(-1))",
        "torch.randn(999, 512)",
    ),
    ("linear_relu", "nn.Sequential(nn.Linear(256, 4096), nn.ReLU())", "torch.randn(2048, 256)"),
    ("conv3x3_relu", "nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())", CHANNELS),
    (
        "conv_bn_relu_pool",
        "nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))",
        CHANNELS,
    ),
    (
        "conv_gn_swish",
        "nn.Sequential(nn.Conv2d(64, 64, 3), nn.GroupNorm(8, 64), nn.SiLU())",
        CHANNELS,
    ),
    ("conv1x1_gelu", "nn.Sequential(nn.Conv2d(64, 128, 1), nn.GELU())", CHANNELS),
    ("conv1d_tanh", "nn.Sequential(nn.Conv1d(32, 64, 5), nn.Tanh())", "torch.randn(8, 32, 4096)"),
    (
        "conv_transpose_sigmoid",
        "nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.Sigmoid())",
        CHANNELS,
    ),
)

MODULE = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = {model}

    def forward(self, x):
        return self.part(x)
"""

EXPRESSION = """
class Model(nn.Module):
    def forward(self, {names}):
        return {model}
"""

FILE = """import torch
import torch.nn.functional as F
from torch import nn

{model}

def get_inputs():
    return [{inputs}]


def get_init_inputs():
    return []
"""


def problem_text(name: str) -> str:
    """The problem file of a row. Raises KeyError for an unknown name."""
    model, inputs = {n: (m, i) for n, m, i in CPU_PROBLEMS}[name]
    names = ", ".join("xy"[: inputs.count("torch.rand")])
    template = MODULE if model.startswith("nn.") else EXPRESSION
    return FILE.format(model=template.format(model=model, names=names), inputs=inputs)

"""Hand-built graphs for scheduler tests: small tensor functions out of IR constructors."""

import random

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import FLOAT32


def tensor(name, *shape, role="input"):
    return g.input_(name, shape, FLOAT32, role)


def graph_of(*outputs, strides=None):
    """A Graph returning `outputs`, its inputs found by reachability."""
    inputs = [n for n in g.topological(outputs) if isinstance(n, g.Input)]
    specs = tuple(g.InputSpec(n, (k,), offsets.row_major(n.shape)) for k, n in enumerate(inputs))
    strides = strides or tuple(offsets.row_major(o.shape) for o in outputs)
    leaves = tuple(g.Leaf(k) for k in range(len(outputs)))
    return g.Graph(specs, tuple(outputs), strides, g.Tree("tuple", ("",) * len(outputs), leaves))


def scalar(value, shape):
    return g.const(value, FLOAT32, shape)


def softmax(x):
    axis = len(x.shape) - 1
    top = g.insert_expanded(g.reduce("max", x, (axis,)), (axis,), x.shape)
    e = g.unary("exp", g.binary("sub", x, top))
    return g.binary("div", e, g.insert_expanded(g.reduce("sum", e, (axis,)), (axis,), x.shape))


def mean(x, axes):
    total = g.reduce("sum", x, axes)
    return g.binary("div", total, scalar(x.size // max(total.size, 1), total.shape))


def normalised(x, axes):
    """(x - mean) * rsqrt(var + 1e-5) over `axes`."""
    centred = g.binary("sub", x, g.insert_expanded(mean(x, axes), axes, x.shape))
    var = mean(g.binary("mul", centred, centred), axes)
    scale = g.unary("rsqrt", g.binary("add", var, scalar(1e-5, var.shape)))
    return g.binary("mul", centred, g.insert_expanded(scale, axes, x.shape))


def matmul(a, b):
    shape, reduced = (a.shape[0], b.shape[1]), (a.shape[1],)
    i, (r,) = ix.axes(shape), g.reduced_axes(reduced)
    return g.contract(a, b, shape, reduced, (i[0], r), (r, i[1]))


def linear(x, w, bias):
    product = matmul(x, g.permute(w, (1, 0)))
    return g.binary("add", product, g.expand(bias, product.shape))


def random_graph(seed):
    """A random program of pointwise ops, views, reductions and products over small tensors."""
    rng = random.Random(seed)
    shapes = [(6, 8), (4, 6), (8,), (3, 4, 5), (6, 1), (2, 3, 4)]
    values = [tensor(f"x{k}", *rng.choice(shapes)) for k in range(rng.randint(1, 3))]
    for _ in range(rng.randint(3, 14)):
        values.append(_random_step(rng, values))
    outputs = [v for v in values[-3:] if not isinstance(v, g.Input)]
    return graph_of(*dict.fromkeys(outputs))


def _random_step(rng, values):
    x = rng.choice(values)
    kinds = ["unary", "binary", "binary", "reduce", "view", "norm", "concat", "matmul", "scan"]
    kind = rng.choice(kinds)
    if kind == "scan" and x.shape:
        ways = {"reverse": rng.random() < 0.5, "exclusive": rng.random() < 0.5}
        out = g.scan(rng.choice(["sum", "max"]), x, rng.randrange(len(x.shape)), **ways)
        # The extreme of nothing is infinite: keep it out of products.
        return g.unary("tanh", out)
    if kind == "binary":
        return _random_binary(rng, x, values)
    if kind == "reduce" and x.shape:
        axes = rng.sample(range(len(x.shape)), rng.randint(1, len(x.shape)))
        out = g.reduce(rng.choice(["sum", "max", "min"]), x, axes)
        return g.insert_expanded(out, sorted(axes), x.shape) if rng.random() < 0.5 else out
    if kind == "view" and x.shape:
        return _random_view(rng, x)
    if kind == "norm" and x.shape:
        return normalised(x, (rng.randrange(len(x.shape)),))
    if kind == "concat" and x.shape and x.size < 500:
        return g.concat((x, g.unary("neg", x)), rng.randrange(len(x.shape)))
    if kind == "matmul" and len(x.shape) == 2:
        return matmul(x, g.permute(x, (1, 0)))
    return g.unary(rng.choice(["tanh", "sigmoid", "neg", "abs"]), x)


def _random_binary(rng, x, values):
    same = [v for v in values if v.shape == x.shape]
    wider = [v for v in values if v.shape[-len(x.shape) or len(v.shape) :] == x.shape]
    y = rng.choice(same + wider)
    return g.binary(rng.choice(["add", "mul", "sub", "maximum"]), g.expand(x, y.shape), y)


def _random_view(rng, x):
    choice = rng.randrange(4)
    if choice == 0:
        order = list(range(len(x.shape)))
        rng.shuffle(order)
        return g.permute(x, order)
    if choice == 1:
        return g.reshape(x, (x.size,))
    if choice == 2 and x.shape[0] % 2 == 0:
        return g.reshape(x, (2, x.shape[0] // 2, *x.shape[1:]))
    axes = x.axes
    flipped = (ix.as_index(x.shape[0] - 1) - axes[0], *axes[1:])
    return g.view(x, x.shape, flipped)

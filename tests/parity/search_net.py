"""The search network of GDAS on the NATS-Bench topology space in PyTorch, in the published layout (facts: Dong & Yang 2019,
2020): every operation a module of its own with its own ReLU, the chosen one multiplied by its hard weight, the weights of
the others added as scalars. Parameter names are those of our checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import nn

EDGES = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, side, stride=1, kept=False, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=bias)
        self.norm = nn.BatchNorm2d(outputs, affine=kept, track_running_stats=kept)

    def forward(self, x):
        return self.norm(self.conv(F.relu(x)))


class Zero(nn.Module):
    def forward(self, x):
        return x.mul(0.0)


class Cell(nn.Module):
    def __init__(self, channels):
        super().__init__()
        for to, source in EDGES:
            self.add_module(
                f"{to}<-{source}",
                nn.ModuleDict(
                    {
                        "none": Zero(),
                        "skip_connect": nn.Identity(),
                        "nor_conv_1x1": ConvNorm(channels, channels, 1),
                        "nor_conv_3x3": ConvNorm(channels, channels, 3),
                        "avg_pool_3x3": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
                    }
                ),
            )

    def forward(self, x, weights, chosen, activation):
        nodes = [x]
        for node in range(1, 4):
            terms = []
            for e, (to, source) in enumerate(EDGES):
                if to != node:
                    continue
                ops = getattr(self, f"{to}<-{source}").values()
                w = weights[e]
                if activation == "full":
                    terms.append(sum(w[k] * op(nodes[source]) for k, op in enumerate(ops)))
                else:
                    terms.append(sum(w[k] * op(nodes[source]) if k == chosen[e] else w[k] for k, op in enumerate(ops)))
            nodes.append(sum(terms))
        return nodes[3]


class Reduction(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.a = ConvNorm(inputs, 2 * inputs, 3, 2, kept=True, bias=False)
        self.b = ConvNorm(2 * inputs, 2 * inputs, 3, kept=True, bias=False)
        self.down = nn.Conv2d(inputs, 2 * inputs, 1, bias=False)

    def forward(self, x):
        return self.down(F.avg_pool2d(x, 2)) + self.b(self.a(x))


class SearchNet(nn.Module):
    def __init__(self, channels, cells, classes=10):
        super().__init__()
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(3, channels, 3, padding=1, bias=False), "norm": nn.BatchNorm2d(channels)})
        layers = []
        for stage in range(3):
            width = channels << stage
            layers += [Reduction(width // 2)] if stage else []
            layers += [Cell(width) for _ in range(cells)]
        self.cells = nn.ModuleList(layers)
        self.last = nn.BatchNorm2d(4 * channels, affine=False, track_running_stats=False)
        self.classifier = nn.Linear(4 * channels, classes)

    def forward(self, x, weights, activation="published"):
        """`weights` one-hot [6, 5]."""
        chosen = weights.argmax(-1).tolist()
        x = self.stem["norm"](self.stem["conv"](x))
        for layer in self.cells:
            x = layer(x, weights, chosen, activation) if isinstance(layer, Cell) else layer(x)
        return self.classifier(F.adaptive_avg_pool2d(F.relu(self.last(x)), 1).flatten(1))

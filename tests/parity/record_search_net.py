"""Writes tests/fixtures/search_net.json: GDAS's search network in PyTorch (search_net.py) at given parameters.

    OMP_NUM_THREADS=1 python tests/parity/record_search_net.py

Format `search-net-1`. Channels 2, one cell a stage; images `[3, 3, 8, 8]` and parameters by formula, in float64, then rounded to
float32: entry i of images is `sin(0.37 i)`; entry i of the k-th parameter in the order of `parameters`, which lists names and
shapes, is `0.4 sin(1.3 i + 0.9 k)`, plus 1 for the scales of batch norm. Everything is then computed in float64.

    cases[i].cell        operation of each edge (1,0) (2,0) (2,1) (3,0) (3,1) (3,2), 0 none .. 4 mean
    cases[i].activation  full or published
    cases[i].scores      [3, 10], batch statistics
    cases[i].choice      [6, 5], gradient of the mean cross entropy with classes 0, 1, 2 in the one-hot weights
    cases[i].stem, last  the same in the first convolution, and in the 3x3 convolution of the last cell's edge (3, 1); null if none
"""

import json

import torch
import torch.nn.functional as F

import reference
from search_net import SearchNet

# every operation but none; a blocked way; skips and means alone; all 3x3
CELLS = [[3, 1, 2, 4, 3, 1], [2, 0, 3, 1, 3, 0], [1, 4, 1, 4, 1, 4], [3, 3, 3, 3, 3, 3]]
LAST = "cells.4.3<-1.nor_conv_3x3.conv.weight"


def wave(shape, rate, phase):
    n = torch.Size(shape).numel()
    return torch.sin(rate * torch.arange(n, dtype=torch.float64) + phase).reshape(shape)


def main():
    reference.one_thread()
    net = SearchNet(2, 1).double()
    listed = []
    for k, (name, p) in enumerate(sorted(net.named_parameters())):
        base = 1.0 if name.endswith("norm.weight") else 0.0
        p.data = (base + 0.4 * wave(p.shape, 1.3, 0.9 * k)).float().double()
        listed.append([name, list(p.shape)])
    images = wave([3, 3, 8, 8], 0.37, 0.0).float().double()
    named = dict(net.named_parameters())
    cases = []
    for cell in CELLS:
        for activation in ["full", "published"]:
            net.zero_grad()
            weights = F.one_hot(torch.tensor(cell), 5).double().requires_grad_()
            scores = net(images, weights, activation)
            F.cross_entropy(scores, torch.arange(3)).backward()
            grad = lambda name: None if named[name].grad is None else named[name].grad.flatten().tolist()
            case = {"cell": cell, "activation": activation, "scores": scores.tolist(), "choice": weights.grad.tolist()}
            cases.append(case | {"stem": grad("stem.conv.weight"), "last": grad(LAST)})
    out = {"format": "search-net-1", "made_by": "tests/parity/record_search_net.py"} | reference.versions()
    path = reference.ROOT / "tests/fixtures/search_net.json"
    path.write_text(json.dumps(out | {"parameters": listed, "cases": cases}) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

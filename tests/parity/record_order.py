"""Writes tests/fixtures/data_order.json: same seed, same order of the data as a shuffling DataLoader.

    OMP_NUM_THREADS=1 python tests/parity/record_order.py

Format `data-order-1`, a case a (seed, n, batch_size): `torch.manual_seed(seed)`, then three epochs over
`DataLoader(range(n), batch_size, shuffle=True)` (no workers) with a `torch.rand(2)` between them, as training draws too.

    cases[i].epochs[j].first   the first indices of the epoch, at most 12
    cases[i].epochs[j].sha256  of all of them, as little-endian int64
    cases[i].epochs[j].rand    the two numbers drawn after it, float32 printed exactly
"""

import hashlib
import json

import numpy as np
import torch

import reference

# seed, n, batch size: an even split, a short last batch, one item, the 60,000 images of MNIST
CASES = [(0, 10, 5), (1, 7, 3), (-2, 1, 1), (12345, 1000, 100), (2**40 + 7, 60000, 100)]


def epoch(loader):
    order = torch.cat(list(loader)).numpy().astype("<i8")
    rand = torch.rand(2).tolist()
    return {"first": order[:12].tolist(), "sha256": hashlib.sha256(order.tobytes()).hexdigest(), "rand": rand}


def main():
    reference.one_thread()
    cases = []
    for seed, n, batch_size in CASES:
        torch.manual_seed(seed)
        loader = torch.utils.data.DataLoader(np.arange(n), batch_size=batch_size, shuffle=True)
        cases.append({"seed": seed, "n": n, "epochs": [epoch(loader) for _ in range(3)]})
    out = {"format": "data-order-1", "made_by": "tests/parity/record_order.py"} | reference.versions()
    path = reference.ROOT / "tests/fixtures/data_order.json"
    path.write_text(json.dumps(out | {"cases": cases}, indent=1) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

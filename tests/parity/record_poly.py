"""Writes tests/fixtures/poly_curve.json: the first 100 steps of polynomial programming in PyTorch, same seed.

    OMP_NUM_THREADS=1 python tests/parity/record_poly.py

`torch.manual_seed(seed)`; logits [L, 2] uniform on (-0.01, 0.01); a step draws from them expanded to [B, L, 2]; class 0
stands for 1; the loss is the batch mean of sum_l |z_l - 0.45|^p / L; Adam, one thread. Format `poly-curve-1`:

    latents, batch_size, optimizer, lr, seed, steps    the same for every curve
    curves    a list of {estimator, tau, samples, power, losses}: a loss a step, before the update
"""

import json

import torch

import reference

LATENTS, BATCH, LR, SEED, STEPS = 128, 64, 1e-3, 0, 100
# estimator, tau, samples, power
CURVES = [
    ("st", 1.0, None, 3.0),
    ("stgs", 0.5, None, 2.0),
    ("gumbel-softmax", 1.0, None, 2.0),
    ("gumbel-rao", 0.5, 5, 2.0),
    ("gst", 1.0, None, 2.0),
    ("gst-p", 0.7, None, 2.0),
    ("reinmax", 1.0, None, 1.5),
    ("reinmax", 1.3, None, 2.0),
]


def curve(estimator, tau, samples, power):
    torch.manual_seed(SEED)
    theta = torch.nn.Parameter(torch.empty(LATENTS, 2).uniform_(-0.01, 0.01))
    target = torch.full((LATENTS,), 0.45)
    optimizer = torch.optim.Adam([theta], lr=LR)
    for _ in range(STEPS):
        logits = theta.unsqueeze(0).expand(BATCH, -1, -1).contiguous()
        sample, _ = reference.draw(estimator, logits, tau, samples)
        z = sample.reshape(BATCH, LATENTS, 2)[:, :, 0]
        loss = ((z - target).abs().pow(power).sum(dim=-1) / LATENTS).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def main():
    reference.one_thread()
    out = {"format": "poly-curve-1", "made_by": "tests/parity/record_poly.py"} | reference.versions()
    out |= {"latents": LATENTS, "batch_size": BATCH, "optimizer": "adam", "lr": LR, "seed": SEED, "steps": STEPS}
    out["curves"] = [
        {"estimator": e, "tau": tau, "samples": samples, "power": power, "losses": list(curve(e, tau, samples, power))}
        for e, tau, samples, power in CURVES
    ]
    path = reference.ROOT / "tests/fixtures/poly_curve.json"
    path.write_text(json.dumps(out) + "\n")
    print(f"{path.name}: {len(CURVES)} curves of {STEPS} steps, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

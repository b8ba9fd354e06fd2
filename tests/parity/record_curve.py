"""Writes tests/fixtures/curve_{8x4,10x30}_{reinmax,st,stgs}.json: the first 100 steps of training, same seed.

    OMP_NUM_THREADS=1 THRUWAY_DATA=... python tests/parity/record_curve.py

`torch.manual_seed(seed)`; the model (encoder fc1 fc2 fc3, decoder fc1 fc2 fc3); `DataLoader(train, batch_size=100,
shuffle=True)` on the 60,000 images; Adam, lr 5e-4, one thread. Format `training-curve-1`:

    estimator, tau, classes, latents, optimizer, lr, batch_size, seed, steps    the run
    parameters     name -> {shape, sum (added in float64), first (three values)}: the weights before step 1
    first_batch    the 100 image numbers of step 1, in order
    losses, bces   a number a step, of that step's batch before the update; -ELBO = bce + kl, nats a image
    draws          8x4 only: what every draw was decided by, arrays as base64 of little-endian numbers in C order
      index        u8  [steps, 100, L]     the class drawn
      runner_up    u8  [steps, 100, L]     the class that came second
      scores       f32 [steps, 100, L, 2]  of the two: p / q, q exponential (reinmax, st); logit + gumbel (stgs)
      logits       f32 [steps, 100, L, 2]  of the two
    smallest_gap_ulp  8x4 only: a number a step, by how many float32 numbers the closest race of the step was won

Every race is scale- or shift-free, so log(scores[0] / scores[1]) (stgs: scores[0] - scores[1]) is the margin in nats by
which a draw was won: the logits of the two classes must move by as much against each other before it can turn.
"""

import base64
import json
import sys
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import reference

STEPS, SEED, LR, BATCH = 100, 0, 5e-4, 100


def pack(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def model_and_batches(images, preset, seed, batch=BATCH):
    """The state of everything after `torch.manual_seed(seed)`: a model and an iterator over (images, numbers)."""
    torch.manual_seed(seed)
    model = reference.Vae(*reference.PRESETS[preset])
    loader = DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=batch, shuffle=True)
    return model, iter(loader)


def curve(images, preset, estimator, seed=SEED, steps=STEPS, races=None):
    """Yields what identifies the weights, then (loss, bce, image numbers, scores, logits) of each step; scores with `races`."""
    model, batches = model_and_batches(images, preset, seed)
    yield {
        name: {"shape": list(p.shape), "sum": p.double().sum().item(), "first": p.flatten()[:3].tolist()}
        for name, p in model.named_parameters()
    }
    tau = reference.CURVE_TAU[estimator]
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    seen = {}

    def sampler(logits):
        seen["logits"] = logits.detach()
        return reference.draw(estimator, logits, tau)

    for _ in range(steps):
        x, numbers = next(batches)
        bce, kl = model(x, sampler)
        loss = bce + kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scores = races.scores.pop() if races else None
        yield loss.item(), bce.item(), numbers, scores, seen["logits"]


def record(images, preset, estimator):
    classes, latents = reference.PRESETS[preset]
    keep = preset == "8x4"
    losses, bces, first_batch, kept = [], [], None, {"index": [], "runner_up": [], "scores": [], "logits": []}
    start = time.perf_counter()
    with reference.Races() as races:
        run = curve(images, preset, estimator, races=races)
        parameters = next(run)
        for loss, bce, numbers, scores, logits in run:
            losses.append(loss)
            bces.append(bce)
            first_batch = first_batch or numbers.tolist()
            best = scores.topk(2, dim=-1)
            kept["index"].append(best.indices[:, 0])
            kept["runner_up"].append(best.indices[:, 1])
            kept["scores"].append(best.values)
            kept["logits"].append(logits.reshape(-1, classes).gather(-1, best.indices))
    seconds = time.perf_counter() - start
    out = {"format": "training-curve-1", "made_by": "tests/parity/record_curve.py"} | reference.versions()
    out |= {"estimator": estimator, "tau": reference.CURVE_TAU[estimator], "preset": preset, "classes": classes}
    out |= {"latents": latents, "optimizer": "adam", "lr": LR, "batch_size": BATCH, "seed": SEED, "steps": STEPS}
    out |= {"parameters": parameters, "first_batch": first_batch, "losses": losses, "bces": bces}
    scores = torch.stack(kept["scores"]).numpy()  # [steps, B L, 2]
    gaps = reference.ulp_distance(scores[..., 0], scores[..., 1]).min(axis=-1)
    if keep:
        types = {"index": "u1", "runner_up": "u1", "scores": "<f4", "logits": "<f4"}
        out["draws"] = {name: pack(torch.stack(kept[name]).numpy(), types[name]) for name in types}
        out["smallest_gap_ulp"] = gaps.tolist()
    path = reference.ROOT / f"tests/fixtures/curve_{preset}_{estimator}.json"
    path.write_text(json.dumps(out) + "\n")
    print(
        f"{path.name}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, closest race {gaps.min()} ulp at step {gaps.argmin() + 1}, "
        f"{path.stat().st_size / 1e6:.2f} MB, {seconds:.1f} s",
        file=sys.stderr,
    )


def main():
    reference.one_thread()
    images = reference.mnist_train()
    for preset in ("8x4", "10x30"):
        for estimator in ("reinmax", "st", "stgs"):
            record(images, preset, estimator)


if __name__ == "__main__":
    main()

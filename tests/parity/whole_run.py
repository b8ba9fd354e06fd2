"""Trains the MNIST VAE in PyTorch for all epochs of a published setting and sets it beside the same run of ours.

    OMP_NUM_THREADS=1 THRUWAY_DATA=... $python tests/parity/whole_run.py runs/table2/8x4/estimator-st/2

The argument is a finished run of `vae` on MNIST with Adam and one of `reference.CURVE_TAU`'s estimators; its config.json says
what to train. Both start from the same seed, so on one CPU every epoch's mean loss should be the same number (tests/parity/
README.md says why not on another). Test -ELBO: one sample an image, every tenth epoch, from a stream of its own, so that ours and
PyTorch's differ there by the noise of the sample only. Writes <out>/<preset>-<estimator>-<seed>.json (default
experiments/vae/results/pytorch); about 25 minutes for 160 epochs of 8x4.
"""

import argparse
import json
import pathlib
import sys
import time

import torch

import record_curve
import reference


def test_neg_elbo(model, images, sampler, seed):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        total = sum(sum(t.item() for t in model(x, sampler)) * len(x) for x in images.split(100))
    return total / len(images)


def main():
    parser = argparse.ArgumentParser(description="a whole training run in PyTorch beside ours")
    parser.add_argument("run", type=pathlib.Path, help="run directory of vae")
    parser.add_argument("--epochs", type=int, help="stop earlier")
    parser.add_argument("--out", type=pathlib.Path, default=reference.ROOT / "experiments/vae/results/pytorch")
    args = parser.parse_args()
    reference.one_thread()
    about = json.loads((args.run / "config.json").read_text())
    config, seed = about["config"], about["seed"]
    if config["dataset"] != "mnist" or config["optimizer"] != "adam" or config["estimator"] not in reference.CURVE_TAU:
        raise SystemExit(f"{args.run}: needs MNIST, Adam and one of {' '.join(reference.CURVE_TAU)}")
    estimator, tau, epochs = config["estimator"], float(config["tau"]), args.epochs or config["epochs"]
    ours = {}
    for line in (args.run / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        ours.setdefault(point["epoch"], {}).update((k, point[k]) for k in ("train_neg_elbo", "test_neg_elbo") if k in point)
    images = reference.mnist_train()
    held_out = reference.mnist_test()

    torch.manual_seed(seed)
    model = reference.Vae(*reference.PRESETS[config["preset"]])
    loader = torch.utils.data.DataLoader(torch.arange(len(images)), batch_size=record_curve.BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])

    def sampler(logits):
        return reference.draw(estimator, logits, tau)

    points, start = [], time.perf_counter()
    for epoch in range(1, epochs + 1):
        total = steps = 0
        for numbers in loader:
            bce, kl = model(images[numbers], sampler)
            loss = bce + kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        point = {"epoch": epoch, "train_neg_elbo": total / steps, "ours_train": ours.get(epoch, {}).get("train_neg_elbo")}
        if epoch % 10 == 0 or epoch == epochs:
            test = test_neg_elbo(model, held_out, sampler, seed + 1)
            point |= {"test_neg_elbo": test, "ours_test": ours.get(epoch, {}).get("test_neg_elbo")}
        points.append(point)
        print(json.dumps(point), file=sys.stderr, flush=True)
    off = [abs(p["train_neg_elbo"] / p["ours_train"] - 1) for p in points if p["ours_train"]]
    out = {"made_by": "tests/parity/whole_run.py"} | reference.versions()
    out |= {"preset": config["preset"], "estimator": estimator, "tau": tau, "lr": config["lr"]}
    out |= {"seed": seed, "epochs": epochs, "wall_s": time.perf_counter() - start}
    out |= {"largest_relative_difference_train": max(off), "epochs_compared": len(off), "points": points}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{config['preset']}-{estimator}-{seed}.json").write_text(json.dumps(out, indent=1) + "\n")
    print(f"{len(off)} epochs: train -ELBO differs by {max(off):.1e} of itself at most")


if __name__ == "__main__":
    main()

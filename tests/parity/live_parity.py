"""Trains the MNIST VAE in PyTorch and with our `vae` binary from the same seeds and compares every loss (`make parity`).

    python=$(scripts/torch-env)
    OMP_NUM_THREADS=1 THRUWAY_DATA=... $python tests/parity/live_parity.py [--seeds 0 1 2] [--only 8x4/st ...]

One thread, one machine, 100 steps, 3 seeds, ReinMax, ST and STGS on 8x4 and 10x30. A loss may differ by 1e-4 of itself: the
two sides sum in other orders. Where a run departs, the table names the step and the difference of the step before: a jump
means that a draw came out differently (one of 400 on 8x4 is enough), a slow growth that the arithmetic differs. Exit status
1 if any run departs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import record_curve
import reference

TOLERANCE = 1e-4


def their_losses(images, preset, estimator, seed, steps):
    run = record_curve.curve(images, preset, estimator, seed=seed, steps=steps)
    next(run)  # the weights
    return [loss for loss, *_ in run]


def our_losses(binary, preset, estimator, seed, steps, out):
    classes, latents = reference.PRESETS[preset]
    flags = {
        "dataset": "mnist", "categorical-dim": classes, "latent-dim": latents, "estimator": estimator,
        "tau": reference.CURVE_TAU[estimator], "optimizer": "adam", "lr": record_curve.LR, "batch-size": record_curve.BATCH,
        "seed": seed, "steps": steps, "log-every": 1, "threads": 1, "device": "cpu", "out": out,
    }  # fmt: skip
    command = [str(binary)] + [word for key, value in flags.items() for word in (f"--{key}", str(value))] + ["--quiet"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed with status {done.returncode}:\n{done.stderr.strip()}")
    logged = {}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        if "loss" in point:
            logged[point["step"]] = point["loss"]
    missing = [step for step in range(1, steps + 1) if step not in logged]
    if missing:
        raise SystemExit(f"{out / 'metrics.jsonl'}: no loss at step {missing[0]} (of {steps}); is --log-every 1 honoured?")
    return [logged[step] for step in range(1, steps + 1)]


def main():
    parser = argparse.ArgumentParser(description="compare training losses with PyTorch, live")
    parser.add_argument("--binary", type=pathlib.Path, default=reference.ROOT / "target/release/vae")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=record_curve.STEPS)
    parser.add_argument("--only", nargs="+", metavar="PRESET/ESTIMATOR", help="for example 8x4/st")
    args = parser.parse_args()
    if not args.binary.exists():
        raise SystemExit(f"{args.binary}: not built; run `cargo build --release --bin vae`")
    reference.one_thread()
    images = reference.mnist_train()
    pairs = [f"{preset}/{estimator}" for preset in ("8x4", "10x30") for estimator in ("reinmax", "st", "stgs")]
    unknown = set(args.only or []) - set(pairs)
    if unknown:
        raise SystemExit(f"--only {' '.join(sorted(unknown))}: not among {' '.join(pairs)}")
    versions = reference.versions()
    print(f"{args.steps} steps, one thread, PyTorch {versions['torch']} ({versions['cpu_capability']}), tolerance {TOLERANCE:g}")
    print(f"{'preset':7}{'estimator':10}{'seed':>4}{'first loss':>12}{'last loss':>12}{'largest rel. diff':>19}{'at step':>9}  verdict")
    departed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for pair in args.only or pairs:
            preset, estimator = pair.split("/")
            for seed in args.seeds:
                theirs = their_losses(images, preset, estimator, seed, args.steps)
                out = pathlib.Path(scratch) / f"{preset}-{estimator}-{seed}"
                ours = our_losses(args.binary, preset, estimator, seed, args.steps, out)
                off = [abs(a - b) / abs(b) for a, b in zip(ours, theirs)]
                # `not <=` rather than `>`: a NaN counts as departed
                beyond = next((i for i, d in enumerate(off) if not d <= TOLERANCE), None)
                worst = max(range(len(off)), key=lambda i: off[i] if off[i] == off[i] else float("inf"))
                verdict = "agrees"
                if beyond is not None:
                    departed += 1
                    verdict = f"DEPARTS at step {beyond + 1}: {off[beyond]:.1e} after {off[beyond - 1] if beyond else 0:.1e}"
                print(
                    f"{preset:7}{estimator:10}{seed:4}{theirs[0]:12.4f}{theirs[-1]:12.4f}{off[worst]:19.2e}{worst + 1:9}  {verdict}",
                    flush=True,
                )
    runs = len(args.only or pairs) * len(args.seeds)
    print(f"{runs - departed} of {runs} runs agree over all {args.steps} steps")
    sys.exit(1 if departed else 0)


if __name__ == "__main__":
    main()

"""Trains the MNIST VAE in PyTorch and with our `vae` binary from the same seeds and compares every loss (`make parity`).

    python=$(scripts/torch-env)
    OMP_NUM_THREADS=1 THRUWAY_DATA=... $python tests/parity/live_parity.py [--seeds 0 1 2] [--only 8x4/st ...]

One thread, one machine, 100 steps, 3 seeds, ReinMax, ST and STGS on 8x4 and 10x30. A loss may differ by 1e-4 of itself.
Exit status 1 if any run departs from that.

Rounding grows along a trajectory: a draw won by 1e-6 turns, or a ReLU whose input is 1e-7 changes sides and Adam gives that unit
a whole step. The control shows by how much: the same PyTorch with the vector instructions of an older CPU against itself.
"off 1e-6" is the step at which a run first leaves the level of rounding.
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


def control_losses(pairs, seeds, steps):
    """pair -> seed -> losses of PyTorch in a process of its own that uses fewer vector instructions"""
    older = "default" if reference.versions()["cpu_capability"] == "AVX2" else "avx2"
    command = [sys.executable, __file__, "--print-losses", "--steps", str(steps), "--only", *pairs]
    command += ["--seeds", *(str(seed) for seed in seeds)]
    env = os.environ | {"ATEN_CPU_CAPABILITY": older}
    return older, json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)


def departure(losses, theirs):
    """(largest relative difference, first step beyond 1e-6, first step beyond the tolerance), steps from 1 or None"""
    off = [abs(a - b) / abs(b) for a, b in zip(losses, theirs)]

    def first(limit):  # `not <=` rather than `>`: a NaN counts
        return next((i + 1 for i, d in enumerate(off) if not d <= limit), None)

    return max(off, key=lambda d: d if d == d else float("inf")), first(1e-6), first(TOLERANCE)


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
    parser.add_argument("--print-losses", action="store_true", help="print PyTorch's losses as JSON and compare nothing")
    args = parser.parse_args()
    reference.one_thread()
    images = reference.mnist_train()
    known = [f"{preset}/{estimator}" for preset in ("8x4", "10x30") for estimator in ("reinmax", "st", "stgs")]
    pairs = args.only or known
    for pair in set(pairs) - set(known):
        raise SystemExit(f"--only {pair}: not among {' '.join(known)}")
    if args.print_losses:
        print(json.dumps({p: {s: their_losses(images, *p.split("/"), s, args.steps) for s in args.seeds} for p in pairs}))
        return
    if not args.binary.exists():
        raise SystemExit(f"{args.binary}: not built; run `cargo build --release --bin vae`")
    older, control = control_losses(pairs, args.seeds, args.steps)
    versions = reference.versions()
    print(f"{args.steps} steps, one thread, PyTorch {versions['torch']} ({versions['cpu_capability']}), tolerance {TOLERANCE:g}")
    print(f"control: the same PyTorch with ATEN_CPU_CAPABILITY={older}\n")
    print(f"{'':29}{'largest difference':^22}{'off 1e-6 at step':^20}{'off 1e-4 at step':^20}")
    head = f"{'preset':7}{'estimator':10}{'seed':>4}{'loss':>8}{'ours':>11}{'control':>11}"
    print(head + f"{'ours':>10}{'control':>10}" * 2)
    departed = control_departed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for pair in pairs:
            preset, estimator = pair.split("/")
            for seed in args.seeds:
                theirs = their_losses(images, preset, estimator, seed, args.steps)
                out = pathlib.Path(scratch) / f"{preset}-{estimator}-{seed}"
                ours = departure(our_losses(args.binary, preset, estimator, seed, args.steps, out), theirs)
                other = departure(control[pair][str(seed)], theirs)
                departed += ours[2] is not None
                control_departed += other[2] is not None
                row = f"{preset:7}{estimator:10}{seed:4}{theirs[-1]:8.2f}{ours[0]:11.1e}{other[0]:11.1e}"
                row += "".join(f"{a or '-':>10}{b or '-':>10}" for a, b in zip(ours[1:], other[1:]))
                print(row + ("  DEPARTS" if ours[2] else "  agrees"), flush=True)
    runs = len(pairs) * len(args.seeds)
    print(f"\n{runs - departed} of {runs} runs agree over all {args.steps} steps (control: {runs - control_departed} of {runs})")
    sys.exit(1 if departed else 0)


if __name__ == "__main__":
    main()

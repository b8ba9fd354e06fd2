"""Our speed beside PyTorch's, in one run on one machine (`make bench`).

    cargo build --release --example bench_server
    python=$(scripts/torch-env)
    $python benches/compare.py [--only steps|estimators|memory|listops|nas] [--blocks 5] [--device cpu] [--threads 1] [--markdown PAGE] [--tables]

Starts two servers, ours and tests/parity/bench_server.py (which documents the commands), with the same number of threads, and
lets them work in turns, never at once: a machine that slows down slows both. A block is 100 training steps, or as many draws
with backward as take about a second; its figure is the median of its steps. Quoted: the median over the blocks, and their range.

The targets (right-most column) are the project's own. PyTorch has no fused RAdam: RAdam steps are held against fused Adam,
which does less. Writes benches/results/<what>_<device>.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
TAU = {"st": 1.3, "stgs": 0.5, "reinmax": 1.3}
STEP_TARGET = {"cpu": {"8x4": 0.85, "10x30": 0.80}, "cuda": {"8x4": 0.70, "10x30": 0.70}}
FUSED_TARGET = 1.0
LISTOPS_TARGET = 0.6
ESTIMATOR_TARGET, RAO_1000_TARGET, RAO_MEMORY_TARGET = 0.5, 0.3, 32 * 2**20
SHAPE = [100, 30, 10]
# estimator and the knobs it takes
ESTIMATORS = [
    ("st", {"tau": 1.3}),
    ("stgs", {"tau": 0.5}),
    ("gumbel-softmax", {"tau": 0.5}),
    ("gst", {"tau": 1.0, "gap": 1.0}),
    ("gst-p", {"tau": 1.0}),
    ("reinmax", {"tau": 1.3}),
    ("reinmax-baseline", {"tau": 1.0}),
    ("gumbel-rao", {"tau": 0.5, "samples": 10}),
    ("gumbel-rao", {"tau": 0.5, "samples": 100}),
    ("gumbel-rao", {"tau": 0.5, "samples": 1000}),
]


class Side:
    """A server, asked one thing at a time."""

    def __init__(self, name, command, threads):
        self.name = name
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, cmd, **fields):
        fields = {"cmd": cmd} | fields
        try:
            self.process.stdin.write(json.dumps(fields) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name}: the server ended (status {self.process.wait()}) at {json.dumps(fields)}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Servers:
    """Starts both sides alike."""

    def __init__(self, args):
        flags = [] if args.device == "cpu" else ["--device", args.device]
        self.commands = {
            "ours": shlex.split(args.ours) + flags,
            "pytorch": [sys.executable, str(ROOT / "tests/parity/bench_server.py")] + flags,
        }
        self.threads = args.threads
        self.sides = {}

    def __getitem__(self, name):
        if name not in self.sides:
            self.sides[name] = self.start(name)
        return self.sides[name]

    def start(self, name):
        return Side(name, self.commands[name], self.threads)

    def close(self):
        for side in self.sides.values():
            side.close()


def alternate(contestants, blocks):
    """name -> function giving the times of one block; name -> block medians. Every other round runs in reverse order."""
    medians = {name: [] for name in contestants}
    for block in contestants.values():
        block()  # warm-up, not counted
    for turn in range(blocks):
        names = list(contestants)
        for name in names if turn % 2 == 0 else reversed(names):
            medians[name].append(statistics.median(contestants[name]()))
    return medians


def summary(medians):
    return {"median": statistics.median(medians), "min": min(medians), "max": max(medians), "blocks": medians}


def figure(s):
    median, low, high = (f"{x:.0f}" if x >= 1000 else f"{x:.4g}" for x in (s["median"], s["min"], s["max"]))
    return f"{median} ({low}..{high})"


def verdict(value, target):
    return f"<= {target:g} {'ok' if value <= target else 'MISSED'}"


def label(result):
    return result["estimator"] + (f", {result['samples']} samples" if "samples" in result else "")


def rows_of(what, results):
    """Title, head and rows of a table, from the results as they are written."""
    if what == "steps":
        head = ["preset", "optimizer", "estimator", "ours", "PyTorch", "PyTorch, fused Adam", "ratio", "target"]
        rows = [
            [r["preset"], r["optimizer"], r["estimator"]]
            + [figure(r[side]) for side in ("ours", "pytorch", "pytorch_fused_adam")]
            + [f"{r['ratio']:.3f}", verdict(r["ratio"], r["target"])]
            + [f"{r['ratio_fused']:.3f}", verdict(r["ratio_fused"], r["target_fused"])]
            for r in results
        ]
        return "VAE training step, batch 100, ms: median (range) of alternating blocks", head + ["ratio, fused", "target"], rows
    if what == "estimators":
        rows = [
            [label(r), figure(r["ours"]), figure(r["pytorch"]), f"{r['ratio']:.3f}", verdict(r["ratio"], r["target"])]
            for r in results
        ]
        return f"Draw and backward at {SHAPE}, us: median (range) of alternating blocks", ["estimator", "ours", "PyTorch", "ratio", "target"], rows
    if what == "listops":
        rows = [
            [r["units"], r["estimator"], figure(r["ours"]), figure(r["pytorch"])]
            + [f"{r['ratio']:.3f}", verdict(r["ratio"], r["target"])]
            for r in results
        ]
        title = "ListOps training step, batch 16, RAdam, the same batches, ms: median (range) of alternating blocks"
        return title, ["units", "estimator", "ours", "PyTorch, published layout", "ratio", "target"], rows
    if what == "nas":
        rows = [
            [r["estimator"], r["activation"], figure(r["ours"]), figure(r["pytorch"]), f"{r['ratio']:.3f}", f"{r['gradient_apart']:.1e}"]
            for r in results
        ]
        r = results[0]
        title = f"Architecture search, a step of the weights and one of the architecture, {r['channels']} channels, {r['cells']} cells a stage, batch {r['batch']}, ms: median (range) of alternating blocks"
        return title, ["estimator", "activation", "ours", "PyTorch, published layout", "ratio", "gradients apart, relative"], rows
    mib = 2**20
    rows = [
        [r["samples"], f"{r['ours'] / mib:.1f}", f"{r['pytorch'] / mib:.1f}", verdict(r["ours"] / mib, r["target"] / mib)]
        for r in results
    ]
    return f"Gumbel-Rao at {SHAPE}, peak extra memory, each in a fresh process, MiB", ["samples", "ours", "PyTorch", "target"], rows


def show(what, results):
    title, head, rows = rows_of(what, results)
    print(f"\n{title}")
    widths = [max(len(str(row[i])) for row in [head] + rows) for i in range(len(head))]
    for row in [head] + rows:
        print("  ".join(str(cell).ljust(w) for cell, w in zip(row, widths)).rstrip())
    sys.stdout.flush()


def write_markdown(page, results_dir):
    """Fills every `<!-- bench:NAME -->` of a page from results_dir/NAME.json, up to `<!-- /bench -->`."""

    def fill(match):
        run = json.loads((results_dir / f"{match[1]}.json").read_text())
        title, head, rows = rows_of(run["what"], run["results"])
        about = f"{run['cpu']}, {run['threads']} thread, PyTorch {run['pytorch']['torch']}, {run['blocks']} blocks, {run['date'][:10]}."
        lines = [f"{title}. {about}", ""]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head)] + rows]
        return "\n".join([f"<!-- bench:{match[1]} -->", *lines, "<!-- /bench -->"])

    page.write_text(re.sub(r"<!-- bench:(\w+) -->.*?<!-- /bench -->", fill, page.read_text(), flags=re.S))


def progress(text):
    print(f"  .. {text}", file=sys.stderr, flush=True)


def steps(servers, args):
    """The whole training step: ours, PyTorch as published, PyTorch with fused Adam."""
    results = []
    for preset in ("8x4", "10x30"):
        for optimizer in ("adam", "radam"):
            for estimator in ("st", "stgs", "reinmax"):
                progress(f"step {preset} {optimizer} {estimator}")
                run = {"preset": preset, "estimator": estimator, "tau": TAU[estimator], "steps": args.steps}

                def block(side, **more):
                    return lambda: servers[side].ask("vae_block", **run, **more)["ms_per_step"]

                medians = alternate(
                    {
                        "ours": block("ours", optimizer=optimizer, fused=False),
                        "pytorch": block("pytorch", optimizer=optimizer, fused=False),
                        "fused": block("pytorch", optimizer="adam", fused=True),
                    },
                    args.blocks,
                )
                ours, theirs, fused = (summary(medians[name]) for name in ("ours", "pytorch", "fused"))
                ratio, ratio_fused = ours["median"] / theirs["median"], ours["median"] / fused["median"]
                target = STEP_TARGET[args.device][preset]
                result = {"preset": preset, "optimizer": optimizer, "estimator": estimator, "unit": "ms a step"}
                result |= {"ours": ours, "pytorch": theirs, "pytorch_fused_adam": fused}
                result |= {"ratio": ratio, "target": target, "ratio_fused": ratio_fused, "target_fused": FUSED_TARGET}
                results.append(result)
    show("steps", results)
    for preset in ("8x4", "10x30"):
        worst = max((r for r in results if r["preset"] == preset), key=lambda r: r["ratio"])
        print(f"worst of {preset}: {worst['ratio']:.3f} ({worst['estimator']}, {worst['optimizer']})")
    return results


def estimators(servers, args):
    """Draw and backward of each estimator beside its PyTorch counterpart."""
    results = []
    for estimator, knobs in ESTIMATORS:
        run = {"estimator": estimator, "shape": SHAPE} | knobs
        progress(f"estimator {label(run)}")
        # about a second a block on the slower side, at least 3 draws
        us = statistics.median(servers["pytorch"].ask("estimator_block", iters=3, **run)["us"])
        iters = max(3, min(500, int(1e6 / us)))

        def block(side):
            return lambda: servers[side].ask("estimator_block", iters=iters, **run)["us"]

        medians = alternate({name: block(name) for name in ("ours", "pytorch")}, args.blocks)
        ours, theirs = summary(medians["ours"]), summary(medians["pytorch"])
        ratio = ours["median"] / theirs["median"]
        target = RAO_1000_TARGET if knobs.get("samples") == 1000 else ESTIMATOR_TARGET
        result = run | {"unit": "us a draw with backward", "iters": iters, "ours": ours, "pytorch": theirs}
        results.append(result | {"ratio": ratio, "target": target})
    show("estimators", results)
    return results


def memory(servers, args):
    """Peak resident memory of Gumbel-Rao, each in a fresh process."""
    results = []
    for samples in (10, 100, 1000):
        run = {"estimator": "gumbel-rao", "shape": SHAPE, "tau": 0.5}
        extra = {}
        for name in ("ours", "pytorch"):
            progress(f"memory S={samples} {name}")
            fresh = servers.start(name)
            fresh.ask("estimator_block", **run, samples=1, iters=1)  # loads the code
            extra[name] = fresh.ask("estimator_block", **run, samples=samples, iters=3)["extra_bytes"]
            fresh.close()
        results.append({"samples": samples, "unit": "bytes"} | extra | {"target": RAO_MEMORY_TARGET})
    show("memory", results)
    return results


def listops(servers, args):
    """The tree-LSTM's training step: ours, and PyTorch in the published layout, on the same batches in turn."""
    results = []
    for units in ("tokens", "chars"):
        for estimator, tau, lr in (("stgs", 0.1, 5e-4), ("reinmax", 1.1, 7e-4)):
            progress(f"listops {units} {estimator}")
            with tempfile.TemporaryDirectory() as folder:
                common = {"model": f"{folder}/model.safetensors", "estimator": estimator, "tau": tau, "lr": lr}
                ours = servers["ours"].ask("listops_data", units=units, batches=args.listops_batches, **common)
                theirs = servers["pytorch"].ask("listops_data", batches=ours["batches"], **common)
            apart = max(abs(a - b) for x, y in zip(ours["logits"], theirs["logits"]) for a, b in zip(x, y))
            if apart > 1e-4:
                raise SystemExit(f"listops {units}: the two models differ by {apart:.2g} with the same parameters")

            # a block goes once through the batches, so that every block has the same lengths
            def block(side):
                return lambda: [statistics.mean(servers[side].ask("listops_block", steps=args.listops_batches)["ms_per_step"])]

            medians = alternate({name: block(name) for name in ("ours", "pytorch")}, args.blocks)
            ours, theirs = summary(medians["ours"]), summary(medians["pytorch"])
            result = {"units": units, "estimator": estimator, "tau": tau, "unit": "ms a step, mean over a block's batches"}
            result |= {"ours": ours, "pytorch": theirs, "greedy_logits_apart": apart}
            results.append(result | {"ratio": ours["median"] / theirs["median"], "target": LISTOPS_TARGET})
    show("listops", results)
    return results


def nas(servers, args):
    """The search's step: ours, and PyTorch in the published layout, from the same parameters on the same images."""
    results = []
    sizes = {"channels": args.nas_channels, "cells": args.nas_cells, "batch": 64}
    for estimator, tau, activation in (("stgs", 1.0, "published"), ("reinmax", 1.0, "published"), ("reinmax", 1.0, "full")):
        progress(f"nas {estimator} {activation}")

        def start(cells):
            with tempfile.TemporaryDirectory() as folder:
                run = sizes | {"cells": cells, "model": f"{folder}/model.safetensors"}
                run |= {"estimator": estimator, "tau": tau, "activation": activation}
                return [servers[side].ask("nas_data", **run) for side in ("ours", "pytorch")]

        # Compared with one cell a stage. One pre-activation that rounding takes to the other side of a ReLU moves the gradient by
        # some 1e-3 of its size, and the published five cells a stage have many more of them, 1e-2 in all.
        ours, theirs = start(1)

        def apart(key):
            pairs = [(a, b) for x, y in zip(ours[key], theirs[key]) for a, b in zip(x, y)]
            return max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs)

        if apart("logits") > 1e-4 or apart("gradient") > 1e-2:
            raise SystemExit(f"nas: with the same parameters logits differ by {apart('logits'):.2g}, gradients by {apart('gradient'):.2g}")
        if args.nas_cells != 1:
            start(args.nas_cells)

        def block(side):
            # a step's cost depends on its cell, both sides have the same ones: the mean over a block, not its median
            return lambda: [statistics.mean(servers[side].ask("nas_block", steps=args.nas_steps)["ms_per_step"])]

        medians = alternate({name: block(name) for name in ("ours", "pytorch")}, args.blocks)
        result = {"estimator": estimator, "activation": activation} | sizes | {"unit": "ms a step, mean over a block"}
        result |= {"ours": summary(medians["ours"]), "pytorch": summary(medians["pytorch"])}
        result |= {"logits_apart": apart("logits"), "gradient_apart": apart("gradient")}
        results.append(result | {"ratio": result["ours"]["median"] / result["pytorch"]["median"]})
    show("nas", results)
    return results


def machine(servers, args):
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "git": git,
        "pytorch": servers["pytorch"].ask("hello"),
        "blocks": args.blocks,
        "threads": args.threads,
    }


def main():
    parts = {"steps": steps, "estimators": estimators, "memory": memory, "listops": listops, "nas": nas}
    parser = argparse.ArgumentParser(description="our speed beside PyTorch's")
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be repeated (default: all)")
    parser.add_argument("--blocks", type=int, default=5, help="alternating blocks of each side")
    parser.add_argument("--steps", type=int, default=100, help="training steps a block")
    parser.add_argument("--listops-batches", type=int, default=30, help="batches of ListOps, all of them in every block")
    parser.add_argument("--nas-steps", type=int, default=8, help="search steps a block")
    parser.add_argument("--nas-channels", type=int, default=16, help="channels of the searched network's first stage")
    parser.add_argument("--nas-cells", type=int, default=5, help="cells of each of its stages")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    ours = shlex.quote(str(ROOT / "target/release/examples/bench_server"))
    parser.add_argument("--ours", default=ours, help="command of our server")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
    parser.add_argument("--markdown", type=pathlib.Path, action="append", default=[], help="page whose tables to fill from --out")
    parser.add_argument("--tables", action="store_true", help="measure nothing, fill the pages only")
    args = parser.parse_args()
    if args.tables:
        for page in args.markdown:
            write_markdown(page, args.out)
        return
    if shutil.which(shlex.split(args.ours)[0]) is None:
        raise SystemExit(f"{args.ours}: not built; run `cargo build --release --example bench_server`")
    servers = Servers(args)
    about = machine(servers, args)
    print(f"{about['cpu']}, {about['cores']} cores, {args.threads} thread(s), load {about['load_at_start']:.1f}")
    print(f"PyTorch: {about['pytorch']}")
    if about["load_at_start"] > about["cores"] - args.threads + 0.5:
        print("the machine is busy: both sides suffer alike, but the ranges will be wide")
    chosen = args.only or (["steps", "estimators"] if args.device == "cuda" else list(parts))
    args.out.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        results = parts[part](servers, args)
        path = args.out / f"{part}_{args.device}.json"
        aside = path.with_suffix(".json.tmp")
        aside.write_text(json.dumps({"what": part} | about | {"results": results}, indent=1) + "\n")
        aside.replace(path)
    servers.close()
    for page in args.markdown:
        write_markdown(page, args.out)
    print(f"\nwritten: {', '.join(f'{part}_{args.device}.json' for part in chosen)} in {args.out}")


if __name__ == "__main__":
    main()

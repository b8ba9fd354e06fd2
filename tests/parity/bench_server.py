"""Times PyTorch on request, so that a driver can alternate its blocks with those of another side in one run.

    OMP_NUM_THREADS=1 python tests/parity/bench_server.py [--device cpu]

Reads one JSON object a line, answers each with one line; a command that cannot be done ends it with a message on stderr.
`benches/compare.py` drives it; the Rust side (examples/bench_server.rs) answers the same commands.

    {"cmd": "hello"}                                       (this side only)
      -> {"torch", "threads", "device"}
    {"cmd": "vae_block", "preset": "8x4", "estimator": "st", "tau": 1.3, "optimizer": "adam", "fused": false, "steps": 100}
      -> {"ms_per_step": [..]}    forward, backward, optimizer and `loss.item()`; model and optimizer live on between blocks.
                                  Optimizers as published, `optim.Adam(model.parameters(), lr)`, or with `fused=True`
    {"cmd": "listops_data", "model": PATH, "batches": [{"ids", "lengths", "labels"}, ..], "estimator", "tau", "lr"}   (this side)
      -> {"logits": [[..], ..]}   of the first batch, greedy, with the parameters of the safetensors file PATH
    {"cmd": "listops_data", "model": PATH, "units": "tokens", "batches": 40, "estimator", "tau", "lr"}               (our side)
      -> {"batches": [..], "logits"}  and writes its fresh parameters to PATH
    {"cmd": "listops_block", "steps": 20}
      -> {"ms_per_step": [..]}    forward, backward, clipping, RAdam and `loss.item()`, through the batches in turn
    {"cmd": "nas_data", "model": PATH, "channels": 16, "cells": 5, "batch": 64, "estimator", "tau", "activation": "published"}
      -> {"logits": [[..], ..], "gradient": [[..], ..]}   of one fixed batch, with the cell of code 9342, and the gradient of its
                                  cross-entropy in the one-hot weights. Our side writes its fresh parameters and the batch to
                                  PATH, this one reads them
    {"cmd": "nas_block", "steps": 5}
      -> {"ms_per_step": [..]}    a step of the weights and one of the architecture, each with its own draw, forward and
                                  backward, and both optimizers; the logits are set so that both sides draw the same cells
    {"cmd": "estimator_block", "estimator": "gst", "shape": [100, 30, 10], "tau": 1.0, "samples": null, "gap": 1.0, "iters": 50}
      -> {"us": [..],             draw and backward of a fixed upstream gradient, float32, down to the gradient of the logits
          "extra_bytes": n}       how far the resident memory rose above where it stood. An allocator keeps what it once
                                  had, so only the first large block of a process tells what it needs
"""

import argparse
import json
import os
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import reference
import search_net
import tree_lstm

BATCH, BATCHES, LR = 100, 20, 5e-4


class Server:
    def __init__(self, device):
        self.device = torch.device(device)
        self.trainings = {}
        self.inputs = {}
        generator = torch.Generator().manual_seed(0)
        grey = torch.rand(BATCHES, BATCH, 784, generator=generator)
        ink = torch.rand(BATCHES, BATCH, 784, generator=generator) < 0.19  # MNIST's share of pixels that are not black
        self.batches = (grey * ink).to(self.device)

    def finish(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def hello(self):
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": name}

    def training(self, preset, optimizer, fused, estimator, tau):
        """A function that does one step; the same one for the same arguments."""
        key = (preset, optimizer, fused, estimator, tau)
        if key not in self.trainings:
            torch.manual_seed(0)
            model = reference.Vae(*reference.PRESETS[preset]).to(self.device)
            kind = {"adam": torch.optim.Adam, "radam": torch.optim.RAdam}[optimizer]
            adjust = kind(model.parameters(), lr=LR, fused=True) if fused else kind(model.parameters(), lr=LR)
            count = 0

            def step():
                nonlocal count
                x = self.batches[count % BATCHES]
                count += 1
                bce, kl = model(x, lambda logits: reference.draw(estimator, logits, tau))
                loss = bce + kl
                adjust.zero_grad()
                loss.backward()
                adjust.step()
                return loss.item()

            self.trainings[key] = step
        return self.trainings[key]

    def vae_block(self, preset, estimator, tau, optimizer, steps, fused=False):
        step = self.training(preset, optimizer, fused, estimator, tau)
        return {"ms_per_step": [1e3 * t for t in self.clock(step, steps)]}

    def listops_data(self, model, batches, estimator, tau, lr):
        saved = load_file(model)
        self.tree = tree_lstm.TreeLstm(saved["word_embedding.weight"].shape[0])
        self.tree.load_state_dict(saved)
        self.sentences = [tuple(torch.tensor(b[key]) for key in ("ids", "lengths", "labels")) for b in batches]
        self.turn = 0
        adjust = torch.optim.RAdam(self.tree.parameters(), lr=lr)

        def step():
            ids, lengths, labels = self.sentences[self.turn % len(self.sentences)]
            self.turn += 1
            logits = self.tree(ids, lengths, lambda scores: reference.draw(estimator, scores, tau)[0])
            loss = F.cross_entropy(logits, labels)
            adjust.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.tree.parameters(), 5.0)
            adjust.step()
            return loss.item()

        self.tree_step = step
        self.tree.eval()
        with torch.no_grad():
            logits = self.tree(*self.sentences[0][:2])
        self.tree.train()
        return {"logits": logits.tolist()}

    def listops_block(self, steps):
        return {"ms_per_step": [1e3 * t for t in self.clock(self.tree_step, steps)]}

    def nas_data(self, model, channels, cells, batch, estimator, tau, activation):
        saved = load_file(model)
        images, labels = saved.pop("images").to(self.device), saved.pop("labels").to(self.device)
        alphas = saved.pop("alphas").to(self.device).requires_grad_()
        self.net = search_net.SearchNet(channels, cells).to(self.device)
        missing = self.net.load_state_dict(saved, strict=False)
        if missing.unexpected_keys or any("num_batches" not in key for key in missing.missing_keys):
            raise SystemExit(f"nas: the parameters differ: {missing}")
        net = self.net
        digits = [9342 // 5 ** (5 - e) % 5 for e in range(6)]
        w = F.one_hot(torch.tensor(digits, device=self.device), 5).float().requires_grad_()
        logits = net(images, w, activation)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), w)
        weights = torch.optim.SGD(net.parameters(), 0.025, momentum=0.9, nesterov=True, weight_decay=5e-4)
        architecture = torch.optim.Adam([alphas], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

        count = 0

        def half(adjust):
            nonlocal count
            code, count = (7919 * count + 4321) % 5**6, count + 1
            with torch.no_grad():  # logits so far apart that both sides draw this one cell
                alphas.copy_(50.0 * F.one_hot(torch.tensor([code // 5 ** (5 - e) % 5 for e in range(6)]), 5))
            loss = F.cross_entropy(net(images, reference.draw(estimator, alphas, tau)[0], activation), labels)
            adjust.zero_grad()
            loss.backward()
            adjust.step()
            return loss.item()

        self.nas_step = lambda: (half(weights), half(architecture))
        return {"logits": logits.tolist(), "gradient": gradient.tolist()}

    def nas_block(self, steps):
        return {"ms_per_step": [1e3 * t for t in self.clock(self.nas_step, steps)]}

    def estimator(self, estimator, shape, tau, samples=None, gap=None):
        """A function that does one draw and backward. Only what the published code computes, no `y_soft` beside it."""
        key = tuple(shape)
        if key not in self.inputs:
            generator = torch.Generator().manual_seed(0)
            self.inputs[key] = [torch.randn(*shape, generator=generator).to(self.device) for _ in range(2)]
        logits, upstream = self.inputs[key]
        logits = logits.clone().requires_grad_()
        draw = {
            "st": lambda: reference.straight_through(logits, tau)[0],
            "stgs": lambda: F.gumbel_softmax(logits, tau=tau, hard=True),
            "gumbel-softmax": lambda: F.gumbel_softmax(logits, tau=tau),
            "gumbel-rao": lambda: reference.gumbel_rao(logits, tau, samples)[0],
            "gst": lambda: reference.gapped_straight_through(logits, tau, gap),
            "gst-p": lambda: reference.gapped_straight_through(logits, tau, None),
            "reinmax": lambda: reference.reinmax(logits, tau)[0],
            "reinmax-baseline": lambda: reference.reinmax_baseline(logits),
        }[estimator]

        def once():
            draw().backward(upstream)
            logits.grad = None

        return once

    def estimator_block(self, iters, **which):
        once = self.estimator(**which)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before = resident("VmRSS")
        us = [1e6 * t for t in self.clock(once, iters)]
        return {"us": us, "extra_bytes": max(0, resident("VmHWM") - before)}

    def clock(self, work, times):
        seconds = []
        for _ in range(times):
            self.finish()
            start = time.perf_counter()
            work()
            self.finish()
            seconds.append(time.perf_counter() - start)
        return seconds

    def answer(self, command):
        all = (self.hello, self.vae_block, self.estimator_block, self.listops_data, self.listops_block, self.nas_data, self.nas_block)
        work = {f.__name__: f for f in all}
        return work[command.pop("cmd")](**command)


def resident(field):
    """A field of /proc/self/status in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main():
    parser = argparse.ArgumentParser(description="time PyTorch on request (JSON lines)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    server = Server(args.device)
    for line in sys.stdin:
        print(json.dumps(server.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

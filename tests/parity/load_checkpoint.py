"""Loads a checkpoint of `vae` into the PyTorch model of the same layout, key by key, and evaluates it there.

    target/release/vae --preset 8x4 --steps 50 --out runs/a
    $python tests/parity/load_checkpoint.py runs/a

Fails if a key is missing, left over or of another shape, or if encoder and decoder give other numbers than 1e-5 away from
those of the run's own evaluation (mean KL over the test set needs no draw, so it must agree).
"""

import json
import math
import pathlib
import sys

import torch
from reference import Vae, mnist_test
from safetensors.torch import load_file

run = pathlib.Path(sys.argv[1])
config = json.loads((run / "config.json").read_text())["config"]
state = json.loads((run / "checkpoint" / "state.json").read_text())
tensors = load_file(run / "checkpoint" / state["tensors"])
classes, latents = config["categorical_dim"], config["latent_dim"]
model = Vae(classes, latents)
weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
own = dict(model.named_parameters())
assert set(weights) == set(own), f"keys differ: {set(weights) ^ set(own)}"
for name, value in weights.items():
    assert value.shape == own[name].shape and value.dtype == own[name].dtype, name
model.load_state_dict(weights)
for name, parameter in own.items():
    moment = tensors[f"optimizer.{name}.exp_avg"]
    assert moment.shape == parameter.shape, name
images = mnist_test()
with torch.no_grad():
    q = model.logits(images).softmax(-1)
    kl = (q * torch.log(q + 1e-10)).sum().item() / len(images) + math.log(classes) * latents
ours = json.loads((run / "summary.json").read_text())["final"]["test_kl"]
assert abs(kl - ours) < 1e-5 * max(1, abs(ours)), (kl, ours)
print(f"{len(weights)} tensors loaded key by key; test KL {kl:.6f}, the run's own {ours:.6f}")

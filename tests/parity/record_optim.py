"""Writes tests/fixtures/optim_trajectories.json: PyTorch's Adam, RAdam and SGD over 200 steps of hard gradients.

    OMP_NUM_THREADS=1 python tests/parity/record_optim.py

Format `optim-trajectories-1`. Arrays are base64 of little-endian numbers; a row holds the tensors one after another, each
flattened in C order.

    tensors         [{name, shape, first_step}]: before first_step the tensor's gradient is None, not zero
    initial         f32 [N]
    gradients       f32 [steps, N]; zeros for a tensor before its first_step. The float64 runs use the same values
    saved_steps     the steps (from 1) after which the parameters are kept: 1 to 12, every tenth, the last
    trajectories    [{optimizer, lr, betas, eps, weight_decay, dtype, params}]; params: f32 or f64 [saved_steps, N]
    sgd             the same of SGD: [{lr, momentum, nesterov, weight_decay, dtype, params}]

The gradients: fixed scales from 1e-8 to 1e3 in one tensor, a new scale in that range at every step in another, coordinates
that are always zero, zero in most steps, zero for the first or the last hundred steps, and of alternating sign.
"""

import base64
import json

import numpy as np
import torch

import reference

STEPS = 200
TENSORS = [("scales", (3, 5), 1), ("jumps", (7,), 1), ("sparse", (2, 3, 2), 1), ("late", (6,), 51)]
SAVED = sorted(set(range(1, 13)) | set(range(10, STEPS + 1, 10)))
DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
SETTINGS = [
    {},
    {"lr": 5e-4},
    {"weight_decay": 1e-3},
    {"betas": (0.5, 0.999)},
    {"eps": 1e-4},
    {"lr": 3e-4, "betas": (0.5, 0.99), "eps": 1e-6, "weight_decay": 9e-2},
]
SGD_SETTINGS = [
    {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0},
    {"lr": 3e-4, "momentum": 0.5, "nesterov": True, "weight_decay": 9e-2},
    {"lr": 1e-1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-3},
    {"lr": 1e-3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
]


def gradients(rng):
    """[steps, N], float32."""
    t = np.arange(STEPS)[:, None]
    scales = 10.0 ** np.linspace(-8, 3, 15) * rng.standard_normal((STEPS, 15))
    jumps = 10.0 ** rng.uniform(-8, 3, (STEPS, 7)) * rng.choice([-1.0, 1.0], (STEPS, 7))
    sparse = rng.standard_normal((STEPS, 12))
    sparse[:, 0] = 0.0
    sparse[:, 1] *= rng.random(STEPS) < 0.05
    sparse[:, 2:4] *= t < 100
    sparse[:, 4:6] *= t >= 100
    sparse[:, 6] = 0.1 * (-1.0) ** t[:, 0]
    sparse[:, 7] = 1e-7 * (-1.0) ** t[:, 0]
    sparse[:, 8] = 1e-8
    sparse[:, 9] = 1e3 * (t[:, 0] == 3)
    late = rng.standard_normal((STEPS, 6)) * (t >= 50)
    return np.concatenate([scales, jumps, sparse, late], axis=1).astype(np.float32)


def pack(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def split(row):
    """[N] -> a tensor each"""
    sizes = [int(np.prod(shape)) for _, shape, _ in TENSORS]
    return [part.reshape(shape) for part, (_, shape, _) in zip(row.split(sizes), TENSORS)]


def trajectory(optimizer, settings, initial, grads, dtype):
    params = [p.to(dtype).clone().requires_grad_() for p in split(torch.from_numpy(initial))]
    steps = optimizer(params, **settings)
    saved = []
    for step in range(1, STEPS + 1):
        for p, g, (_, _, first) in zip(params, split(torch.from_numpy(grads[step - 1])), TENSORS):
            p.grad = g.to(dtype) if step >= first else None
        steps.step()
        if step in SAVED:
            saved.append(torch.cat([p.detach().flatten() for p in params]))
    return torch.stack(saved).numpy()


def main():
    reference.one_thread()
    rng = np.random.default_rng(20190808)
    grads = gradients(rng)
    initial = rng.standard_normal(grads.shape[1]).astype(np.float32)
    trajectories = []
    for optimizer in (torch.optim.Adam, torch.optim.RAdam):
        for settings in SETTINGS:
            settings = DEFAULTS | settings
            pair = {}
            for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
                pair[name] = trajectory(optimizer, settings, initial, grads, dtype)
                row = {"optimizer": optimizer.__name__.lower()} | settings | {"dtype": name}
                trajectories.append(row | {"params": pack(pair[name], "<f4" if name == "float32" else "<f8")})
            moved = np.abs(pair["float64"][-1] - initial)
            apart = np.abs(pair["float32"][-1] - pair["float64"][-1]).max()
            print(f"{optimizer.__name__:6} {settings}: moved by {moved.min():.1e} to {moved.max():.3f}, f32 off f64 by {apart:.1e}")
    sgd = []
    for settings in SGD_SETTINGS:
        for name, dtype, raw in (("float32", torch.float32, "<f4"), ("float64", torch.float64, "<f8")):
            params = trajectory(torch.optim.SGD, settings, initial, grads, dtype)
            sgd.append(settings | {"dtype": name, "params": pack(params, raw)})
    out = {"format": "optim-trajectories-1", "made_by": "tests/parity/record_optim.py"} | reference.versions()
    out |= {"tensors": [{"name": n, "shape": s, "first_step": f} for n, s, f in TENSORS], "steps": STEPS}
    out |= {"initial": pack(initial, "<f4"), "gradients": pack(grads, "<f4"), "saved_steps": SAVED}
    path = reference.ROOT / "tests/fixtures/optim_trajectories.json"
    path.write_text(json.dumps(out | {"trajectories": trajectories, "sgd": sgd}) + "\n")
    print(f"{path}: {len(trajectories) + len(sgd)} trajectories, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

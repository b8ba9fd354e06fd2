"""The published estimators and the categorical VAE in PyTorch: what the Rust side is held against.

`reinmax` is the pip package, `gumbel_softmax` is PyTorch's own; the others follow the published ReinMax and GST code op
for op, because the order of operations decides the last bit and the order of draws decides the seed's stream. One
exception: the published uniform-baseline ReinMax is wrong, so here it has the derived gradient (and the published draw).

Shapes: B batch, L latent variables, K classes, S conditional samples.
"""

import contextlib
import gzip
import math
import os
import pathlib
import struct

import numpy as np
import torch
import torch.nn.functional as F
from reinmax import reinmax
from torch import nn
from torch.distributions.one_hot_categorical import OneHotCategorical

ROOT = pathlib.Path(__file__).resolve().parents[2]

# name -> (classes K, latent variables L), as the paper's columns are called
PRESETS = {
    "8x4": (8, 4),
    "4x24": (4, 24),
    "8x16": (8, 16),
    "16x12": (16, 12),
    "64x8": (64, 8),
    "10x30": (10, 30),
}
# tau of the same-seed curves
CURVE_TAU = {"reinmax": 1.3, "st": 1.3, "stgs": 0.5}


def one_thread():
    """One intra-op and one inter-op thread, as every figure here is quoted."""
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):  # already set
        torch.set_num_interop_threads(1)


# --- estimators: each takes logits [.., K] and gives (sample, y_soft), both [.., K] ---


def one_hot(index, like):
    """[rows, 1] -> [rows, K]"""
    return torch.zeros_like(like).scatter_(-1, index, 1.0)


def straight_through(logits, tau):
    rows = logits.reshape(-1, logits.shape[-1]).float()
    y_soft = rows.softmax(dim=-1)
    hard = one_hot(torch.multinomial(y_soft, 1, replacement=True), y_soft)
    path = (rows / tau).softmax(dim=-1)
    return (hard - path.detach() + path).view(logits.shape), y_soft.view(logits.shape)


class UniformBaseline(torch.autograd.Function):
    """ReinMax with the baseline mean_i f(I_i): 1/2 [(g_D - mean g)(D - p) + J(p) g / (K p_D)]. logits [rows, K]."""

    @staticmethod
    def forward(ctx, logits):
        probs = logits.softmax(dim=-1)
        index = torch.multinomial(probs, 1, replacement=True)
        ctx.save_for_backward(probs, index)
        return one_hot(index, probs)

    @staticmethod
    def backward(ctx, g):
        probs, index = ctx.saved_tensors
        differences = (g.gather(-1, index) - g.mean(dim=-1, keepdim=True)) * (one_hot(index, probs) - probs)
        jacobian = probs * (g - (probs * g).sum(dim=-1, keepdim=True))
        return 0.5 * (differences + jacobian / (probs.shape[-1] * probs.gather(-1, index)))


def reinmax_baseline(logits):
    return UniformBaseline.apply(logits.reshape(-1, logits.shape[-1])).view(logits.shape)


def drawn(logits):
    """A one-hot draw the way `torch.distributions` makes it: the probabilities are normalised once more."""
    return OneHotCategorical(probs=logits.detach().softmax(dim=-1)).sample()


def gumbel_rao(logits, tau, samples):
    y_soft = logits.softmax(dim=-1)
    theta = logits.detach()
    hard = drawn(logits)
    chosen = hard.bool()
    e = torch.empty(logits.shape + (samples,), dtype=logits.dtype, device=logits.device).exponential_()  # [.., K, S]
    weight = theta.exp()
    e_chosen = e[chosen].view(logits.shape[:-1] + (samples,))
    base = (e_chosen / weight.sum(dim=-1, keepdim=True)).unsqueeze(-2)  # [.., 1, S]
    rest = e / weight.unsqueeze(-1)
    rest[chosen] = 0.0
    zeta = -(rest + base + 1e-20).log()
    shift = zeta - theta.unsqueeze(-1)
    path = ((logits.unsqueeze(-1) + shift) / tau).softmax(dim=-2).mean(dim=-1)
    return hard - path.detach() + path, y_soft


def gapped_straight_through(logits, tau, gap):
    """The sample alone. `gap` None is GST-p, whose gap follows from the drawn class's probability."""
    theta = logits.detach()
    probs = theta.softmax(dim=-1)
    hard = drawn(logits)
    chosen = hard.bool()
    top = theta.gather(-1, probs.argmax(dim=-1, keepdim=True))
    raise_chosen = (top - theta) * hard
    if gap is None:
        q = probs[chosen] * (1 - 1e-5)
        gap = (-(1 - q).log() / q).view(logits.shape[:-1] + (1,))
    lower_rest = (theta + (-top + gap)).clamp(min=0.0)
    lower_rest[chosen] = 0.0
    moved = logits + (raise_chosen - lower_rest)
    moved = moved - moved.mean(dim=-1, keepdim=True)
    path = (moved / tau).softmax(dim=-1)
    return hard - path.detach() + path


def draw(estimator, logits, tau, samples=100, gap=1.0):
    """One draw of the estimator of that name (the names of `vae --estimator`): (sample, y_soft)."""
    if estimator == "st":
        return straight_through(logits, tau)
    if estimator in ("stgs", "gumbel-softmax"):
        y_soft = logits.softmax(dim=-1)
        return F.gumbel_softmax(logits, tau=tau, hard=estimator == "stgs"), y_soft
    if estimator == "gumbel-rao":
        return gumbel_rao(logits, tau, samples)
    if estimator in ("gst", "gst-p"):
        sample = gapped_straight_through(logits, tau, gap if estimator == "gst" else None)
        return sample, logits.softmax(dim=-1)
    if estimator == "reinmax":
        return reinmax(logits, tau)
    if estimator == "reinmax-baseline":
        return reinmax_baseline(logits), logits.softmax(dim=-1)
    if estimator == "exact":
        return OneHotCategorical(logits=logits).sample(), logits.softmax(dim=-1)
    raise ValueError(f"unknown estimator {estimator!r}")


# --- what decided a draw ---


class Races:
    """While active, keeps the scores of every categorical draw: the class with the highest score wins.

    `torch.multinomial` with one sample takes the largest p / q with q exponential, `gumbel_softmax` the largest
    logit + gumbel. The scores are computed anew from a copy of the generator, so that recording draws nothing.
    """

    def __enter__(self):
        self.scores = []  # [rows, K] a draw, float32 or as drawn
        self._multinomial, self._gumbel_softmax = torch.multinomial, F.gumbel_softmax
        torch.multinomial, F.gumbel_softmax = self._watch_multinomial, self._watch_gumbel_softmax
        return self

    def __exit__(self, *_):
        torch.multinomial, F.gumbel_softmax = self._multinomial, self._gumbel_softmax

    def _exponential(self, like):
        copy = torch.Generator()
        copy.set_state(torch.get_rng_state())
        return torch.empty_like(like, memory_format=torch.contiguous_format).exponential_(generator=copy)

    def _watch_multinomial(self, probs, num_samples, replacement=False):
        assert num_samples == 1 and probs.dim() == 2
        with torch.no_grad():
            scores = probs / self._exponential(probs)
        index = self._multinomial(probs, num_samples, replacement)
        assert torch.equal(scores.argmax(dim=-1, keepdim=True), index)
        self.scores.append(scores)
        return index

    def _watch_gumbel_softmax(self, logits, tau=1, hard=False, **rest):
        with torch.no_grad():
            scores = logits - self._exponential(logits).log()
        sample = self._gumbel_softmax(logits, tau=tau, hard=hard, **rest)
        assert torch.equal(scores.argmax(dim=-1), sample.argmax(dim=-1))
        self.scores.append(scores.reshape(-1, logits.shape[-1]))
        return sample


def ulp_distance(a, b):
    """How many float32 numbers lie from b up to a, elementwise."""

    def ordered(x):
        bits = np.ascontiguousarray(x, dtype=np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    return ordered(a) - ordered(b)


# --- the model ---


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(784, 512)
        self.fc2 = nn.Linear(512, 256)
        self.fc3 = nn.Linear(256, width)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Decoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 256)
        self.fc2 = nn.Linear(256, 512)
        self.fc3 = nn.Linear(512, 784)

    def forward(self, z):
        return torch.sigmoid(self.fc3(F.relu(self.fc2(F.relu(self.fc1(z))))))


class Vae(nn.Module):
    """784-512-256-(L K) and its mirror. The loss is -ELBO in nats, averaged over the batch, one sample an image."""

    def __init__(self, classes, latents):
        super().__init__()
        self.classes, self.latents = classes, latents
        self.encoder = Encoder(latents * classes)
        self.decoder = Decoder(latents * classes)

    def logits(self, x):
        return self.encoder(x).view(-1, self.latents, self.classes)

    def forward(self, x, sampler):
        """x [B, 784] in [0, 1]; sampler: logits [B, L, K] -> (sample, y_soft). Gives (bce, kl)."""
        batch = x.shape[0]
        z, y_soft = sampler(self.logits(x))
        image = self.decoder(z.view(batch, -1))
        bce = F.binary_cross_entropy(image, x, reduction="none").sum() / batch
        q = y_soft.view(batch, -1)
        kl = (q * torch.log(q + 1e-10)).sum(dim=-1).mean() + math.log(self.classes) * self.latents
        return bce, kl


# --- data ---


def data_folder():
    return pathlib.Path(os.environ.get("THRUWAY_DATA") or ROOT / "data")


def read_idx(path):
    """An IDX file of bytes, plain or gzipped, as a uint8 array."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.exists():
            raw = candidate.read_bytes()
            break
    else:
        raise SystemExit(f"{path}[.gz]: not found; set THRUWAY_DATA to the folder that holds mnist/")
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    if zero != 0 or kind != 8:
        raise SystemExit(f"{path}: not an IDX file of bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist_train():
    """[60000, 784], float32 grey levels in [0, 1]."""
    return mnist("train-images-idx3-ubyte", 60000)


def mnist_test():
    """[10000, 784], float32 grey levels in [0, 1]."""
    return mnist("t10k-images-idx3-ubyte", 10000)


def mnist(name, number):
    images = read_idx(data_folder() / "mnist" / name)
    assert images.shape == (number, 28, 28), images.shape
    return torch.from_numpy(images.copy()).view(-1, 784).float().div(255)


# --- provenance ---


def versions():
    """What the numbers of a fixture depend on besides the script."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu_capability": capability, "threads": torch.get_num_threads()}

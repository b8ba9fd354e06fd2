"""Writes tests/fixtures/draws.json: same seed, same draw, for every estimator.

    OMP_NUM_THREADS=1 python tests/parity/record_draws.py

Format `same-seed-draws-1`, all numbers float32 printed exactly:

    arrays   name -> nested list; logits and upstream gradients, [7, 3, 5] (N(0, 1)) and [4, 2, 8] (N(0, 9))
    cases    one a (estimator, shape, seed): `torch.manual_seed(seed)`, then three calls without reseeding, then
             `after = torch.rand(4)`, which agrees only if the calls consumed exactly the reference's share of the stream
      estimator, tau, samples, gap    the knobs (null where the estimator takes none)
      logits, upstream                names in `arrays`
      calls[i].index                  drawn class, [..]
      calls[i].gap_ulp                [..], by how many float32 numbers the best score beats the second: a draw at most
                                      4 apart may differ on another CPU
      calls[i].value                  the sample itself where it is relaxed (gumbel-softmax), else null (one-hot of index)
      calls[i].grad                   d (sample * upstream).sum() / d logits, [.., K]; null where the published code gives
                                      no gradient to compare with (exact: by enumeration); reinmax-baseline: the derived
                                      form, the published code being wrong
"""

import json

import numpy as np
import torch

import reference

SEEDS = (0, 1, 12345)
# estimator, tau, samples, gap
SETTINGS = [
    ("st", 1.0, None, None),
    ("st", 1.3, None, None),
    ("stgs", 1.0, None, None),
    ("stgs", 0.5, None, None),
    ("gumbel-softmax", 0.7, None, None),
    ("gumbel-rao", 0.5, 1, None),
    ("gumbel-rao", 1.0, 10, None),
    ("gumbel-rao", 0.7, 100, None),
    ("gst", 1.0, None, 1.0),
    ("gst", 0.7, None, 2.5),
    ("gst-p", 1.0, None, None),
    ("gst-p", 0.5, None, None),
    ("reinmax", 1.0, None, None),
    ("reinmax", 1.3, None, None),
    ("reinmax-baseline", 1.0, None, None),
    ("exact", None, None, None),
]


def call(estimator, logits, upstream, tau, samples, gap):
    logits = logits.clone().requires_grad_()
    with reference.Races() as races:
        sample, _ = reference.draw(estimator, logits, tau, samples=samples, gap=gap)
    (scores,) = races.scores
    index = sample.detach().argmax(dim=-1)
    best, second = scores.topk(2, dim=-1).values.unbind(dim=-1)
    relaxed = estimator == "gumbel-softmax"
    if not relaxed:
        assert torch.equal(sample.detach(), torch.nn.functional.one_hot(index, logits.shape[-1]).float())
    grad = None
    if sample.requires_grad:
        (sample * upstream).sum().backward()
        grad = logits.grad.tolist()
    return {
        "index": index.tolist(),
        "gap_ulp": reference.ulp_distance(best.numpy(), second.numpy()).reshape(index.shape).tolist(),
        "value": sample.tolist() if relaxed else None,
        "grad": grad,
    }


def main():
    reference.one_thread()
    rng = np.random.default_rng(20230417)
    arrays = {}
    for tag, shape, scale in (("7x3x5", (7, 3, 5), 1.0), ("4x2x8", (4, 2, 8), 3.0)):
        arrays[f"logits_{tag}"] = torch.from_numpy((scale * rng.standard_normal(shape)).astype(np.float32))
        arrays[f"upstream_{tag}"] = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    cases = []
    for estimator, tau, samples, gap in SETTINGS:
        for tag in ("7x3x5", "4x2x8"):
            logits, upstream = arrays[f"logits_{tag}"], arrays[f"upstream_{tag}"]
            for seed in SEEDS:
                torch.manual_seed(seed)
                calls = [call(estimator, logits, upstream, tau, samples, gap) for _ in range(3)]
                case = {"name": f"{tag}/{estimator}/tau{tau}/seed{seed}", "estimator": estimator, "tau": tau}
                case |= {"samples": samples, "gap": gap, "seed": seed}
                case |= {"logits": f"logits_{tag}", "upstream": f"upstream_{tag}"}
                cases.append(case | {"calls": calls, "after": torch.rand(4).tolist()})
    out = {"format": "same-seed-draws-1", "dtype": "float32", "made_by": "tests/parity/record_draws.py"}
    out |= reference.versions() | {"arrays": {k: v.tolist() for k, v in arrays.items()}, "cases": cases}
    path = reference.ROOT / "tests/fixtures/draws.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n")
    gaps = np.concatenate([np.ravel(c["gap_ulp"]) for case in cases for c in case["calls"]])
    print(f"{path}: {len(cases)} cases, {gaps.size} draws, smallest gap {gaps.min()} ulp, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

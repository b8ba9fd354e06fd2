"""Writes tests/fixtures/bounded_search.json: the points that SciPy's bounded scalar minimisation asks for.

    python tests/parity/record_bounded.py        # needs SciPy

Format `bounded-search-1`: `searches` is a list of {function, bounds, maxiter, points, x, value}. The functions are named; the
test has the same ones. A `maxiter` of 10 is the setting of the paper's learning-rate search.
"""

import json
import math
from pathlib import Path

import scipy
from scipy.optimize import minimize_scalar

FUNCTIONS = {
    "parabola": lambda x: (x + 2) ** 2,
    "kink": lambda x: abs(x + 1.3),
    "edge": lambda x: x,
    # two minima, the left one lower
    "double": lambda x: (x + 1) ** 2 * (x + 5) ** 2 + x,
    # a loss against log10 of a learning rate: slow on the left, gone beyond a threshold
    "rate": lambda x: 2.3 - 1.5 * math.exp(-((x + 1.6) ** 2)) if x < -0.9 else math.inf,
    "flat": lambda x: 1.0,
}
searches = []
for name, f in FUNCTIONS.items():
    for maxiter in (10, 60):
        points = []

        def ask(x):
            points.append(float(x))
            return f(x)

        found = minimize_scalar(ask, method="bounded", bounds=(-6, 0), options={"maxiter": maxiter})
        searches.append({"function": name, "bounds": [-6, 0], "maxiter": maxiter, "points": points})
        searches[-1] |= {"x": float(found.x), "value": float(found.fun)}
        print(f"{name:9} {maxiter}: {len(points)} points, x = {found.x:.6f}")
path = Path(__file__).resolve().parents[1] / "fixtures/bounded_search.json"
made = {"format": "bounded-search-1", "made_by": "tests/parity/record_bounded.py", "scipy": scipy.__version__}
path.write_text(json.dumps(made | {"searches": searches}) + "\n")

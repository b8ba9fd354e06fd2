"""Writes tests/fixtures/jpeg.json: three small JPEGs and what libjpeg-turbo makes of them.

    python tests/parity/record_jpeg.py        # needs Pillow and NumPy

Format `jpeg-1`: `images` is a list of {jpeg, planes}, base64: a baseline JPEG of 32x32 in colour at quality 75 with chroma
halved both ways, as in the archive of CIFAR-10's JPEGs, and its 3072 decoded bytes, red, green and blue plane.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

y, x = np.mgrid[0:32, 0:32]
rng = np.random.default_rng(10)
smooth = np.stack([8 * x, 8 * y, 4 * (x + y)], axis=-1)
disc = np.where(((x - 14) ** 2 + (y - 17) ** 2 < 90)[..., None], [220, 60, 30], [40, 90, 160])
noisy = disc + rng.integers(-30, 31, (32, 32, 3))


def pair(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=75, subsampling="4:2:0")
    decoded = Image.open(io.BytesIO(out.getvalue())).convert("RGB")
    planes = b"".join(plane.tobytes() for plane in decoded.split())
    return {"jpeg": base64.b64encode(out.getvalue()).decode(), "planes": base64.b64encode(planes).decode()}


path = Path(__file__).resolve().parents[1] / "fixtures/jpeg.json"
made = {"format": "jpeg-1", "made_by": "tests/parity/record_jpeg.py", "pillow": PIL.__version__}
made |= {"libjpeg_turbo": features.version("libjpeg_turbo"), "images": [pair(p) for p in (smooth, disc, noisy)]}
path.write_text(json.dumps(made) + "\n")
print(f"{path}: {path.stat().st_size} bytes")

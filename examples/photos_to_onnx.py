"""From a folder of photos to an ONNX file that classifies a picture with plain onnxruntime.

Shows the main job on images of your own, by the commands of the command line: train, measure the latency table of this
machine, search inside a budget, export. What classifies at the end uses nothing of this package.
Needs: nothing; circles, squares and triangles are drawn, unless you name a folder that holds a folder of photos per
class. Takes: about two minutes on two cores; close what else runs. Writes: the drawings, and a run with the export.
Prints: what the commands say, the test accuracy of the exported file, and its answer to one picture.

    python examples/photos_to_onnx.py [FOLDER [PHOTOS]]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

SPACE = Path(__file__).with_name("small.toml")
SIDES = {"circle": 40, "square": 4, "triangle": 3}
DRAWINGS_PER_CLASS = 200


def draw(shape: str, file: Path, rng: np.random.Generator) -> None:
    """Draw a shape of some colour, size, place and angle on a noisy background."""
    picture = Image.fromarray(rng.integers(0, 96, (48, 48, 3), dtype=np.uint8))
    x, y, radius = rng.uniform(18, 30), rng.uniform(18, 30), rng.uniform(9, 17)
    red, green, blue = (int(value) for value in rng.integers(128, 256, 3))
    circle = (x, y, radius)
    ImageDraw.Draw(picture).regular_polygon(circle, SIDES[shape], rng.uniform(0, 360), fill=(red, green, blue))
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def nas(*words: object) -> str:
    """Run a command and return what it prints; stop here if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "nas", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def classify(model: Path, photo: Path) -> tuple[str, float]:
    """Return the most probable class of a photo and its probability, with onnxruntime, numpy and Pillow alone."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    steps, names = json.loads(about["paretonas.preprocessing"]), json.loads(about["paretonas.class_names"])
    with Image.open(photo) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB" if steps["colour"] == "RGB" else "L")
    height, width = steps["size"]
    square = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    logits = session.run(None, {"input": np.asarray(square).reshape(1, height, width, -1)})[0][0]
    weights = np.exp(logits - logits.max())
    return names[int(logits.argmax())], float(weights.max() / weights.sum())


def main() -> None:
    """Draw pictures if no photos are named, run the four commands, and classify one picture."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/photos_to_onnx")
    if len(sys.argv) > 2:
        photos = Path(sys.argv[2])
        photo = min(photos.glob("*/*.*"))
    else:
        photos, photo, rng = folder / "photos", folder / "new.png", np.random.default_rng(0)
        for shape in SIDES:
            for number in range(DRAWINGS_PER_CLASS):
                draw(shape, photos / shape / f"{number}.png", rng)
        draw("triangle", photo, rng)

    run = ("--run", folder / "run")
    print(nas("train", *run, "--space", SPACE, "--data", f"folder:{photos}", "--steps", 300))
    print(nas("build-lut", *run))
    print(nas("search", *run, "--budget-ms", "60%", "--evaluations", 36))
    exported = json.loads(nas("export", *run, "--pick", "knee", "--pixels", "--force", "--json"))
    print(f"{exported['path']}: {100 * exported['files'][0]['test_accuracy']:.0f} % of the test pictures right")
    name, probability = classify(Path(exported["path"]), photo)
    print(f"{photo}: {name}, {100 * probability:.0f} %")


if __name__ == "__main__":
    main()

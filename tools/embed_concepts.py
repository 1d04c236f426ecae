"""Learn the painted concepts that ship with the embedded generators, and distil them.

    python tools/embed_concepts.py

Rewrites ``data/models/<name>/concepts/painted.json`` with what is learned from its strokes, and the file
``distilled.safetensors`` beside it; run it again whenever strokes are changed, or learning is. It takes some minutes.
"""

from __future__ import annotations

from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.distilling import distil
from dissect.concepts.painted import train
from rewrite_core.generators import embedded_folder, embedded_names, open_generator


def main() -> None:
    """Both files of every embedded generator with painted concepts, and how well they do on what was held out."""
    for name in embedded_names():
        folder = embedded_folder(name) / "concepts"
        path = folder / "painted.json"
        if not path.exists():
            continue
        generator = open_generator(name)
        painted = train(generator, ConceptFile.load(path))
        painted.file.save(path)
        print(f"{name}: {painted.evaluation.sentence}\n{painted.evaluation.table().to_string(index=False)}")
        distilled = distil(generator, painted)
        distilled.save(folder / "distilled.safetensors")
        print(f"{name}: {distilled.held_out.sentence}\n{distilled.held_out.table().to_string(index=False)}")


if __name__ == "__main__":
    main()

"""The process that `tfedge.tflite.proof.prove` starts: `python -m` this, with a folder."""

from __future__ import annotations

from tfedge.tflite.proof import main

if __name__ == "__main__":
    main()

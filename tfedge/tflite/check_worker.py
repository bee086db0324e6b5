"""The process that `tfedge.tflite.check.check_runs` starts: `python -m` this, with a folder."""

from __future__ import annotations

from tfedge.tflite.check import main

if __name__ == "__main__":
    main()

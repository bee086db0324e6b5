"""The process that `tfedge.targets.tflm.target.TflmTarget` starts: the only user of tflite_micro.

The runtime tells of failures and of its memory on standard error, which the target reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.shell import Answer, serve


def answer(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> Answer:
    """Runs a file on pieces of input, each of the file's own batch.

    Args:
        values: "arena" bytes to offer, "inputs" and "outputs" in number, "pieces" to run.
        arrays: "file", uint8; "input0", ... [pieces, ...] in the file's order.

    Returns:
        "output0", ... [pieces, ...]; or "error" where the runtime refuses.
    """
    from tflite_micro import runtime

    try:
        file = runtime.Interpreter.from_bytes(
            arrays["file"].tobytes(), arena_size=int(values["arena"])
        )
        found: list[list[np.ndarray]] = [[] for _ in range(values["outputs"])]
        for piece in range(values["pieces"]):
            if piece:
                file.reset()
            for i in range(values["inputs"]):
                file.set_input(np.ascontiguousarray(arrays[f"input{i}"][piece]), i)
            file.invoke()
            for i, outputs in enumerate(found):
                outputs.append(np.array(file.get_output(i)))
        file.print_allocations()
    except (RuntimeError, ValueError) as error:
        return Answer({"error": str(error)})
    return Answer({}, {f"output{i}": np.stack(parts) for i, parts in enumerate(found)})


if __name__ == "__main__":
    serve(answer)

"""An Android device for tests: an `adb` that only pretends, over a folder of this machine.

Its shell is this machine's sh, /data/local/tmp is a folder, and benchmark_model is a program that
runs the file in LiteRT and prints in the tool's own format.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ADB = r"""
import os, pathlib, shutil, subprocess, sys, threading, time
root = {root!r}
serial, word, *rest = sys.argv[2:]
def there(text): return text.replace("/data/local/tmp", root + "/data")
def flag(name): return pathlib.Path(root, name).exists()
with open(root + "/log", "a") as log: print(word, *rest, file=log)
if serial != "PHONE" or flag("gone"):
    sys.exit(f"error: device '{{serial}}' not found")
if word == "get-state":
    if flag("unauthorized"): sys.exit("error: device unauthorized.")
    print("device")
elif word == "push":
    if flag("full"):
        sys.exit("adb: error: failed to copy: remote write failed: No space left on device")
    shutil.copyfile(rest[0], there(rest[1]))
elif word == "pull":
    if not os.path.exists(there(rest[0])): sys.exit("adb: error: failed to stat remote object")
    shutil.copyfile(there(rest[0]), rest[1])
elif word == "shell":
    env = dict(os.environ, PATH=root + "/bin:" + os.environ["PATH"])
    child = subprocess.Popen(["sh", "-c", there(rest[0])], stdin=subprocess.PIPE, env=env,
                             stdout=subprocess.PIPE, start_new_session=True)
    def feed():
        while data := os.read(0, 4096): os.write(child.stdin.fileno(), data)
        child.stdin.close()
    threading.Thread(target=feed, daemon=True).start()
    if flag("cut") and "num_runs" in rest[0]:
        time.sleep(1.0)
        os.write(2, b"error: closed\n")
        os._exit(1)
    out = child.stdout.read().replace((root + "/data").encode(), b"/data/local/tmp")
    code = child.wait()
    sys.stdout.buffer.write(out)
    sys.stdout.flush()
    os._exit(0 if flag("old") else code)
"""

TOOL = r"""
import sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
say = lambda text: print("INFO: " + text, flush=True)
say("STARTING!")
if {slow}: time.sleep(30)
import numpy as np
from tfedge.errors import TfedgeError
from tfedge.tflite.check import random_inputs
from tfedge.tflite.interpreter import Interpreter
def stats(us):
    us = [int(v * 1e6) + 1 for v in us]
    if not us: return "count=0"
    if len(us) == 1: return f"count=1 curr={{us[0]}} p5={{us[0]}} median={{us[0]}} p95={{us[0]}}"
    p5, p50, p95 = (int(v) for v in np.percentile(us, (5, 50, 95)))
    return (f"count={{len(us)}} first={{us[0]}} curr={{us[-1]}} min={{min(us)}} max={{max(us)}} "
            f"avg={{np.mean(us):g}} std={{int(np.std(us))}} p5={{p5}} median={{p50}} p95={{p95}}")
begin = time.perf_counter()
try:
    data = open(flags["graph"], "rb").read()
    file = Interpreter(data, threads=int(flags["num_threads"]))
    say("Loaded model " + flags["graph"])
    inputs = random_inputs(file.inputs)
    for item in filter(None, flags.get("input_layer_value_files", "").split(",")):
        key, path = item.split(":")
        spec = file.inputs[flags["input_layer"].split(",").index(key)]
        inputs[spec.name] = np.fromfile(path, spec.numpy_dtype).reshape(spec.shape)
    file.set_inputs(inputs)
    init = int((time.perf_counter() - begin) * 1e6)
    say("Explicitly applied XNNPACK delegate, and the model graph will be partially executed by "
        "the delegate w/ 1 delegate kernels.")
    times = []
    for key in ("warmup_runs", "num_runs"):
        one = []
        for _ in range(int(flags[key])):
            start = time.perf_counter(); file.invoke(); one.append(time.perf_counter() - start)
        say(stats(one) + "\n")
        times.append(one)
except TfedgeError as error:
    print(f"ERROR: {{error}}\nERROR: Benchmarking failed.", file=sys.stderr)
    sys.exit(1)
mean = [1e6 * float(np.mean(t)) if t else 0 for t in times]
first = int((times[0] or [0])[0] * 1e6)
say(f"Inference timings in us: Init: {{init}}, First inference: {{first}}, "
    f"Warmup (avg): {{mean[0]:g}}, Inference (avg): {{mean[1]:g}}")
say("Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5")
if flags.get("output_filepath") and not {old}:
    with open(flags["output_filepath"], "wb") as out:
        for spec in file.outputs: out.write(file.tensor(spec.index).tobytes())
if flags.get("enable_op_profiling") == "true":
    say("Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    titles = ["node type", "first", "avg ms", "%", "cdf%", "mem KB", "times called", "Name"]
    print("\t" + "\t".join(f"[{{t}}]" for t in titles))
    ops = file.ops()
    left = [(op.name, op.index) for op in ops if not op.delegated]
    parts = {{op.partition for op in ops if op.delegated}}
    for kind, number in [*left, *(("TfLiteXNNPackDelegate", len(ops) + i) for i in parts)]:
        print(f"\t{{kind}}\t0.002\t0.001\t1.0%\t1.0%\t0.000\t1\t[a b]:{{number}}")
    print()
"""

GETPROP = """
case "$1" in
  ro.product.cpu.abilist) echo arm64-v8a,armeabi-v7a ;;
  ro.product.manufacturer) echo Example ;;
  ro.product.model) echo Phone ;;
  ro.build.version.release) echo 14 ;;
esac
"""


@dataclass
class Phone:
    root: Path
    tool: Path

    def left(self):
        return sorted(p.name for p in (self.root / "data").iterdir())

    def has(self, flag):
        """From now on the device is "gone", "full", "unauthorized", "old" or "cut" off."""
        (self.root / flag).touch()

    def log(self):
        return (self.root / "log").read_text()

    def use(self, *, slow=False, old=False):
        """Makes the tool anew: one that hangs, or one that cannot write outputs."""
        program(self.tool, TOOL.format(slow=slow, old=old), sys.executable)


def program(path, text, interpreter):
    path.write_text(f"#!{interpreter}\n{text}")
    path.chmod(0o755)


def plug_in(root, monkeypatch):
    """A device "PHONE" whose adb stands first on PATH."""
    for name in ("bin", "data", "client"):
        (root / name).mkdir(parents=True)
    program(root / "client/adb", ADB.format(root=str(root)), f"{sys.executable} -IS")
    program(root / "bin/getprop", GETPROP, "/bin/sh")
    made = Phone(root, root / "benchmark_model")
    made.use()
    monkeypatch.setenv("PATH", f"{root}/client:{os.environ['PATH']}")
    monkeypatch.setenv("TFEDGE_BENCHMARK_MODEL", str(made.tool))
    return made

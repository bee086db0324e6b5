"""Records as a run of four stages would leave them, for the tests of the reports."""

from tfedge.record import CertificateRow, Drift, LayerDrift, Record, Timing

LAYERS = ("conv", "block1/conv", "block1/add", "pool", "logits <b>")


def timing(name, p50, ratio, *, ops=12, delegated=12, **other):
    values = {"target": "host", "source": "measured", "threads": 1, "runs": 50, **other}
    return Timing(
        model=name,
        min_ms=p50 * 0.95,
        p50_ms=p50,
        p90_ms=p50 * 1.2,
        ratio_p50=ratio,
        ratio_min=ratio,
        delegated_ops=delegated,
        total_ops=ops,
        isa="avx512_vnni",
        load=0.7,
        **values,
    )


def drift(base):
    rows = [LayerDrift(n, n, base - 2 * i, 1.0, 0.999) for i, n in enumerate(LAYERS)]
    return Drift(1.0, 0.99, base - 9, 0.9991, "", LAYERS[-1], 0.98, 64, tuple(rows))


def file_row(stage, label, scheme, accuracy, size, p50, macs, **other):
    delegated = scheme != "w8a16"
    reason = "" if delegated else "16-bit activations are never delegated"
    certificate = [
        CertificateRow(i, "CONV_2D", n, "int8,int8,int32->int8", delegated, reason)
        for i, n in enumerate(LAYERS)
    ]
    return Record(
        stage,
        label,
        scheme,
        f"04_convert/{stage}_{scheme}.tflite",
        {"accuracy": accuracy},
        size,
        size // 4,
        macs,
        [timing(label, p50, p50 / 0.2, delegated=12 if delegated else 0)],
        drift(45 if scheme == "w8a8" else 70) if scheme.startswith("w8a") else None,
        certificate,
        {n: size // (i + 4) for i, n in enumerate(LAYERS)},
        **other,
    )


def make():
    """Baseline, pruned, distilled and quantize-aware stages with their files."""
    return [
        Record("00_baseline", "baseline", metrics={"accuracy": 0.923}, seconds=180.0),
        file_row("00_baseline", "baseline", "float32", 0.923, 320_000, 0.2, 10_000_000),
        file_row("00_baseline", "baseline", "float16", 0.9229, 165_000, 0.21, 10_000_000),
        file_row("00_baseline", "baseline", "w8_dynamic", 0.922, 95_000, 0.12, 10_000_000),
        file_row("00_baseline", "baseline", "w8a8", 0.9205, 96_000, 0.065, 10_000_000),
        Record("01_prune", "pruned", metrics={"accuracy": 0.90}, seconds=40.0),
        file_row("01_prune", "pruned", "float32", 0.90, 90_000, 0.08, 2_600_000),
        Record("02_distill", "pruned + distilled", metrics={"accuracy": 0.921}, seconds=120.0),
        file_row("02_distill", "pruned + distilled", "float32", 0.921, 90_000, 0.08, 2_600_000),
        Record("03_qat", "pruned + distilled + QAT", metrics={"accuracy": 0.92}, seconds=66.0),
        file_row("03_qat", "pruned + distilled + QAT", "w8a8", 0.9195, 33_000, 0.03, 2_600_000),
        file_row(
            "03_qat",
            "pruned + distilled + QAT",
            "w8a16",
            0.9201,
            35_000,
            0.15,
            2_600_000,
            notes=["[warning] 1 op needs an int64 bias"],
        ),
    ]

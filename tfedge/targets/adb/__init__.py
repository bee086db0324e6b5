"""Android devices over adb: the official benchmark_model measures there."""

"""TensorFlow Lite for Microcontrollers: its kernels, run on this machine."""

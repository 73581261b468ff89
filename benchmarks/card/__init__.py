"""The parts of `benchmarks/gpu.py`: what is measured on a graphics card."""

"""Flags of XLA for tests: compiling is most of their time, so it is unoptimised and makes one module."""

from importlib.metadata import version

QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):  # later versions end the process at a flag that they do not know
    QUICK += " --xla_cpu_use_fusion_emitters=false"

"""The flags that choose trained networks of a run folder, of `predict` and `export`."""

from absl import flags

from experiments.cli.flags import group

group(
    "Model",
    flags.DEFINE_string(
        "setting", None, 'The setting of the network, as in "T=4 omit=3" (default: the only one of the run).'
    ),
    flags.DEFINE_integer("seed", None, "The seed of the network (default: the first).", lower_bound=0),
    flags.DEFINE_string(
        "correction",
        None,
        "A bias correction that the run recorded, or none (default: prior_matched, where it has it).",
    ),
)

NAMES = ("setting", "seed", "correction")

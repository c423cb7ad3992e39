"""The losses that flags allow, in words, for --help; flags.py says why they stand outside the library."""

LOSSES = {
    "soft": "T^2 KL to the teacher (Hinton et al. 2015), or another --divergence",
    "hard_label": "CE with the teacher's argmax",
    "labels": "CE with the labels, no teacher",
    "logits": "half the squared distance of logits (Ba & Caruana 2014)",
    "dkd": "decoupled (Zhao et al. 2022), beta 8",
    "dist": "correlations within examples and classes (Huang et al. 2022), beta 1",
    "nkd": "normalised (Yang et al. 2023), beta 1.5",
    "label_smoothing": "CE with smoothed labels, no teacher (Szegedy et al. 2016), beta 0.1",
}
"""Name -> what it is, its paper and the default of its --betas; in the order of losses.LOSSES, as below."""
DIVERGENCES = ("kl", "reverse_kl", "jensen_shannon")
FEATURE_LOSSES = {
    "fitnet": "Romero et al. 2015, weight 100",
    "at": "attention (Zagoruyko & Komodakis 2017), weight 1000",
    "sp": "similarities (Tung & Mori 2019), weight 3000",
    "rkd": "relations (Park et al. 2019), weight 1",
    "pkt": "probabilities (Passalis & Tefas 2018), weight 30000",
    "vid": "variational (Ahn et al. 2019), weight 1",
    "crd": "contrastive (Tian et al. 2020), weight 0.8",
    "review": "ReviewKD (Chen et al. 2021), weight 1",
}
"""Name -> its paper and the default of --feature_weight."""

"""Changes to the mathematics that alter no outcome, and why: what mutation.py leaves out.

A key is `mutation.described`: where it is, and the line as it would be.
"""
# ruff: noqa: E501

TEACHER_OFF = "where the teacher's probability is 0, no term reads it"
EITHER_FORM = "both forms of the term are right there"
NO_NUMBER = "the bits of a kept example reach neither number, but for one draw in 2^31"
ALWAYS_OPEN = "no b at all has gain 0 and is always possible, so any negative number loses against it"
LARGER = "any negative number is less than every width"
RANK_TWO = "the last axis of two is the second"

EQUIVALENT = {
    "losses/logits.cross_entropy: logits = logits - (jnp.max(logits, axis=-1, keepdims=True))": (
        "what flows back through the maximum is sum (q - 1 at the label) = 0"
    ),
    "losses/logits.kl_divergence: difference = jnp.where(p > 0, log_q - log_p, 1.0)": TEACHER_OFF,
    "losses/logits.kl_divergence: near = ((jnp.abs(difference) <= 1)) & (p > 0)": EITHER_FORM,
    "losses/logits.kl_divergence: near = ((difference) < 1) & (p > 0)": EITHER_FORM,
    "losses/logits.kl_divergence: small = jnp.where(near, difference, 1.0)": "where it is not near, no term reads it",
    "losses/logits.combine_teachers: return groups[0][1]": "it is a group of one, and JAX takes the last where there is no second",
    "train/sampling.epoch_order: bits = (jax.random.bits(key, mask.shape, jnp.uint32) << 1)": NO_NUMBER,
    "train/sampling.epoch_order: bits = jax.random.bits(key, mask.shape, jnp.uint32) >> 0": NO_NUMBER,
    "train/sampling.epoch_order: shuffled = jnp.argsort(jnp.where(mask, bits, jnp.uint32(4294967294)))": NO_NUMBER,
    "evaluate/bias_correction.min_error_bias: gains = jnp.where(widths > 0, gains, -logits.shape[1] - 1)": ALWAYS_OPEN,
    "evaluate/bias_correction.min_error_bias: gains = jnp.where(widths > 0, gains, -logits.shape[0] - 0)": ALWAYS_OPEN,
    "evaluate/bias_correction.min_error_bias: gains = jnp.where(widths > 0, gains, (-logits.shape[0] + 1))": ALWAYS_OPEN,
    "evaluate/bias_correction.min_error_bias: best = jnp.argmax(jnp.where(gains == jnp.max(gains), widths, -0.9))": LARGER,
    "evaluate/bias_correction.prior_matching_bias: turned = (share * logits.shape[0])": "the nearest count is the same; of a half either is",
    "evaluate/bias_correction.prior_matching_bias: off = jnp.abs((turned - jnp.arange(logits.shape[0] + 1, dtype=jnp.float32)))": (
        "the absolute value of it is taken"
    ),
    "evaluate/bias_correction.curve: of_class = jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.int32)": RANK_TWO,
    "evaluate/bias_correction.average_image_pairs: other = ((place - jax.random.randint(offset_key, (num,), 1, jnp.maximum(seen, 2), jnp.int32))) % seen": "as far back as forward, around the same circle",
    "evaluate/bias_correction.average_image_pairs: other = (place + jax.random.randint(offset_key, (num,), 1, (seen), jnp.int32)) % seen": (
        "of one kept example every offset is itself"
    ),
    "evaluate/bias_correction.average_image_pairs: other = (place + jax.random.randint(offset_key, (num,), 1, jnp.maximum(seen, 1), jnp.int32)) % seen": "of one kept example every offset is itself",
    "stats/intervals._student: return (0.0 if (abs(mean) < noise) else mean), math.nan, math.nan": (
        "a mean of 0 is 0 in both, and of one exactly as large as its rounding either is right"
    ),
    "stats/intervals._noise: return _ROUNDING * max((abs(float(value)) for value in values), default=1.0)": (
        "of no values nothing is said, whatever their rounding"
    ),
}

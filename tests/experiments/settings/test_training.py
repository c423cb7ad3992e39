"""What reads the last hidden layer is refused, before anything is trained, for a network that has none."""

import pytest

from experiments.settings.training import require_hidden_layer
from kd_jax import models
from kd_jax.errors import InputError


@pytest.mark.parametrize("what", ["--track", "runs/students"])
def test_a_network_without_a_hidden_layer_is_refused(what):
    with pytest.raises(InputError, match=rf"{what} needs a hidden layer: expected .*mlp-64; given mlp$"):
        require_hidden_layer(what, "mlp", models.build("mlp", 3), (4, 4, 1))
    require_hidden_layer(what, "mlp-8", models.build("mlp-8", 3), (4, 4, 1))

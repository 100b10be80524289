import logging

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.compile import compiled


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow warns")
@pytest.mark.parametrize("xla", [False, True])
def test_functions_of_many_models_are_not_taken_for_retracing(xla):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        for factor in range(8):
            run = compiled(keras.Sequential(), lambda x, factor=factor: factor * x, xla=xla)
            np.testing.assert_array_equal(run(ops.ones((2,))), factor * np.ones(2))
    finally:
        logger.removeHandler(handler)
    assert said == []

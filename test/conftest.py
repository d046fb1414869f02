"""For every test."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def same_random_numbers():
    """What a test draws from the global generators does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

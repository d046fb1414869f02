"""For every test."""

import os
import random

import numpy as np
import pytest
import torch

# Children inherit it. Where a GPU is seen it would be used, and its sums are not the references' to the last digits.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def same_random_numbers():
    """What a test draws from the global generators does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

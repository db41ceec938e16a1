import pytest


@pytest.fixture(scope="session")
def model(loaded_model):
    """The tiny model, loaded: tests of inference do not change its folder."""
    return loaded_model

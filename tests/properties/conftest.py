"""How long the property tests look for a counterexample."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "house", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

"""Passwords that cost little to hash, so that tests are fast; what is asserted does not depend on the cost."""

from argon2 import PasswordHasher

from plumbline.preferences.passwords import Passwords

PASSWORD = "seven blue kettles"


def cheap_passwords(time_cost: int = 1) -> Passwords:
    return Passwords(PasswordHasher(time_cost=time_cost, memory_cost=8, parallelism=1))

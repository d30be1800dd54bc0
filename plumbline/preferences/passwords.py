"""Passwords: what is accepted, how they are kept (argon2id), and one-time passwords."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from plumbline.errors import StoreError

SHORTEST, LONGEST = 10, 1024
"""Characters of a password; the upper bound, so that nobody lets us hash a book."""

FEWEST_DIFFERENT = 5
AT_ONCE = 2
"""Passwords hashed at the same time in one process: each takes 64 MiB and a core."""

ONE_TIME_SIGNS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is easily taken for another
_COMMONEST = """
0123456789 1234567890 12345678910 123456789a 1234567891 0987654321 9876543210 1q2w3e4r5t 1q2w3e4r5t6y q1w2e3r4t5
1qaz2wsx3edc qazwsxedcrfv zaq12wsxcde3 qwertyuiop qwertyuiop123 qwerty12345 qwerty123456 qwertz12345 qwertzuiop
qwerty1234 azertyuiop asdfghjkl1 asdfghjkl123 asdfghjkl; zxcvbnm123 abcdefghij abcdefghijk abc1234567 abcd123456
abcd1234567 a123456789 aa123456789 password12 password123 password1234 password12345 password123456 passwordpassword
mypassword mypassword1 thepassword newpassword passwort123 passwort1234 motdepasse contraseña passw0rd12 passw0rd123
p@ssw0rd12 p@ssw0rd123 p@ssword123 p@$$w0rd123 administrator administrator1 admin12345 admin123456 admin1234567
adminadmin rootroot123 letmein123 letmein1234 letmeinnow welcome123 welcome1234 welcome12345 changeme12 changeme123
changeme1234 default123 secret1234 secret12345 iloveyou12 iloveyou123 iloveyou1234 ilovemyself football12 football123
baseball12 baseball123 basketball superman12 superman123 batman12345 princess12 princess123 sunshine12 sunshine123
monkey1234 monkey12345 dragon1234 dragon12345 master1234 master12345 michael123 jennifer12 charlie123 computer12
computer123 internet12 internet123 whatever12 whatever123 trustno1234 starwars12 starwars123 pokemon1234 liverpool1
liverpool123 manchester chocolate1 chocolate123 correcthorsebatterystaple summer2024! summer2025! summer2026!
winter2024! winter2025! winter2026! plumbline1 plumbline12 plumbline123 annotator1 annotator12 annotator123
"""
COMMONEST = frozenset(_COMMONEST.split())
"""The commonest passwords that are long enough; they are refused."""


def normalised(password: str) -> str:
    """The password in Unicode's form NFKC: the same typed on different keyboards.

    Raises:
        StoreError: it has more than `LONGEST` characters, or no valid Unicode.
    """
    if len(password) > LONGEST:
        raise StoreError(f"a password has at most {LONGEST:,} characters: choose a shorter one.")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise StoreError("this password cannot be read as text: choose another one.") from None
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, name: str) -> None:
    """Refuse a password that is quickly guessed.

    Raises:
        StoreError: too short, too long, too few different characters, the name, or one of the commonest.
    """
    text = normalised(password).casefold()
    if len(text) < SHORTEST:
        raise StoreError(f"a password has at least {SHORTEST} characters: choose a longer one, such as four words.")
    if len(set(text)) < FEWEST_DIFFERENT:
        raise StoreError("this password repeats a few characters: choose one that is harder to guess.")
    if text in COMMONEST:
        raise StoreError("this is one of the commonest passwords, which are tried first: choose another one.")
    if _is_name(text, normalised(name).casefold()):
        raise StoreError("this password is the name: choose one that cannot be guessed from it.")


def one_time_password() -> str:
    """A random password of 79 bits, to be read out or typed once: `k7qd-x2mf-9tra-hv3e`."""
    return "-".join("".join(secrets.choice(ONE_TIME_SIGNS) for _ in range(4)) for _ in range(4))


class Passwords:
    """Hashes passwords with argon2id and compares them.

    Args:
        hasher: its cost; the default is RFC 9106's second choice (64 MiB, 3 passes). Tests take less.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())

    def hash(self, password: str) -> str:
        """What is kept of a password."""
        with self._slots:
            return self._hasher.hash(normalised(password))

    def match(self, stored: str | None, given: str) -> bool:
        """Whether the password is the one that is kept. Without one the same work is done, so that it takes as long."""
        kept = stored or self._nobodys
        try:
            with self._slots:
                found = self._hasher.verify(kept, normalised(given))
        except (VerificationError, InvalidHashError, StoreError):
            return False
        return found and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether it was hashed at another cost than is asked for today."""
        return self._hasher.check_needs_rehash(stored)


def _is_name(password: str, name: str) -> bool:
    """Whether the password is the name, also several times or with digits and signs around it."""
    letters, of_name = (("".join(filter(str.isalpha, text))) for text in (password, name))
    return password == name or (bool(letters and of_name) and not letters.replace(of_name, ""))

"""Claims made for the tests: a measured one whose value is above 1 or not, and one that cannot be tested."""

from firsthand.claims.all_claims import NamedClaim
from firsthand.claims.claim import Claim, Measurement, ruling


def claim_of(name, value=2.0, section="papers"):
    def judge(m):
        return ruling("holds here" if m.value > 1 else "does not hold here", f"it is {m.value:g}")

    about = Claim(f"Q {name}", "S", "sim", 3.0)
    return NamedClaim(name, section, about, lambda lab: Measurement(value + lab.seed), judge)


def closed(name):
    about = Claim(f"Q {name}", "S", "none", cannot="it is hosted")
    return NamedClaim(name, "safety", about, None, lambda m: ruling("cannot be tested here", f"hosted, {m.value:g}"))

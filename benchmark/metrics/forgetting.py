"""What tuning a model of text on one text costs it on the text that it had learnt before."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session
from benchmark.metrics.text import STREAM, TokenLogProbs, WholeStream, bits_per_byte
from benchmark.spec import Absence, Estimate, TokenLikelihood


@dataclass(frozen=True)
class Remembered:
    """The tokens of the earlier text under the tuned model, and the bits a byte that it took before."""

    now: TokenLogProbs
    before: float | None


class EarlierStream(Probe[Remembered]):
    """As `WholeStream`, over the same split of the text that the model had learnt before it was tuned."""

    key = "earlier_stream"
    says = ("split", "text", "how")
    promises = (TokenLikelihood,)

    def collect(self, session: Session) -> Found[Remembered] | Absence:
        earlier = session.experts.earlier
        if earlier is None:
            return Absence("does not apply", f"{session.name} started from no other model")
        there = Session(session.model, earlier.data, session.protocol, session.experts)[WholeStream]
        if isinstance(there, Absence):
            return there
        evidence = Remembered(there.evidence, earlier.bits_per_byte)
        return Found(evidence, {**there.protocol, "text": earlier.data.describe()["name"]})


@metric(EarlierStream, protocol=STREAM)
def bits_per_byte_before(evidence: Remembered) -> Estimate:
    """`bits_per_byte` of the earlier text, after tuning."""
    return bits_per_byte(evidence.now)


@metric(EarlierStream, protocol=STREAM)
def forgetting(evidence: Remembered) -> Estimate:
    """How many bits a byte more the earlier text takes after tuning. No error: both figures are of the same bytes, and
    of the first the sum alone is known."""
    if evidence.before is None:
        raise ValueError("before it was tuned, the model was scored on another split or with another context")
    now = bits_per_byte(evidence.now)
    return Estimate(now.value - evidence.before, None, now.n)

"""How well a masked model finds a token from all others: shown, and never ranked with likelihoods."""

from __future__ import annotations

from torch import Tensor

from benchmark.metrics.likelihood import LogProbs, mean_over_examples
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session, named_subset
from benchmark.metrics.units import exponential, scaled
from benchmark.spec import Estimate, PseudoLikelihood

WINDOWS, PLACES = 200, 16  # at most, and tokens of each that are asked for: each takes an evaluation of the network


class PseudoLogProb(Probe[LogProbs]):
    """Some tokens of some windows of the model's context, each given all others of its window."""

    key = "pseudo_log_prob"
    says = ("split", "context", "places")
    promises = (PseudoLikelihood,)

    def collect(self, session: Session) -> Found[LogProbs]:
        model, protocol = session.model, session.protocol
        (context,) = session.spec.shape
        x = session.split.examples(session.spec.shape)
        kept = session.subset(len(x), min(WINDOWS, protocol.examples or WINDOWS), self.key)
        places = session.subset(context, PLACES, "places")

        def nats_of(some: Tensor) -> Tensor:
            asked: Tensor = model.pseudo_log_probs(some, places).gather(2, some[:, places, None])  # [B, P, 1]
            return asked.sum((1, 2))

        nats = session.batched(nats_of, x[kept], self.key, draws=False)
        tokens = session.data.choice_of_tokens
        conditions = {"context": context} | named_subset(len(kept), len(x)) | ({"tokens": tokens} if tokens else {})
        asked = {"places": f"{len(places)} of {context}"}
        return Found(LogProbs(nats, len(places)), {"split": protocol.split} | conditions | asked)


@metric(PseudoLogProb)
def pseudo_perplexity(evidence: LogProbs) -> Estimate:
    """exp of the mean surprise of a token at one that knows all others."""
    return exponential(scaled(mean_over_examples(evidence.nats), -1 / evidence.dims))

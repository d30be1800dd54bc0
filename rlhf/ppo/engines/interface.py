"""What a rollout engine is, and what all of them do with what was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from plumbline.errors import UserError
from rlhf.ppo.generation import Response, Sampling


class Engine(Protocol):
    """Samples responses from the policy as it is now.

    Attributes:
        reads_policy: whether it runs the policy itself, whose weights must be whole for that; else it is called with
            them as they are split over the processes, and gathers what it fetches.
    """

    reads_policy: ClassVar[bool] = True

    def generate(self, prompts: Sequence[list[int]], noise: np.ndarray) -> list[Response]:
        """Sample a response to each prompt; every process calls it at the same time with prompts of its own, or none.

        Args:
            prompts: token ids.
            noise: `(prompts, max_new_tokens)`, float64, uniform in [0, 1): the random numbers of each response. An
                engine that draws its own takes its seed from them, so that a resumed run samples alike.

        Returns:
            Responses in the order of the prompts; each has at least one token.

        Raises:
            UserError: the engine failed.
        """
        ...

    def weights_changed(self) -> None:
        """Take notice that the policy's weights changed; an engine with weights of its own then fetches them."""
        return


def finished(tokens: Sequence[int], logprobs: Sequence[float | None], sampling: Sampling) -> Response:
    """What an engine sampled as a response: up to its first stop token, and no longer than the longest response.

    Raises:
        UserError: the engine gave no token.
    """
    tokens = list(tokens[: sampling.max_new_tokens])
    if not tokens:
        raise UserError("the rollout engine gave a response without a token: look at its own log.")
    stop = next((position for position, token in enumerate(tokens) if token in sampling.stop_tokens), None)
    length = len(tokens) if stop is None else stop + 1
    return Response(tokens[:length], stop is not None, list(logprobs[:length]))

"""A stand-in for vLLM on a CPU, at its outermost boundary: the package `vllm` that TRL imports, and `vllm serve`.

Behind both is a copy of the policy with weights of its own, which samples by them; so a test sees by the
log-probabilities whether the trainer's weights arrived. What goes over NCCL in reality is handed over in memory.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from rlhf.ppo.generation import Response, Sampling, generate

VERSION = "0.24.0"


class Copy:
    """A language model with weights of its own that samples, and what was asked of it."""

    def __init__(self, folder: str | Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        self.random = np.random.default_rng(0)
        self.asked: list[dict[str, Any]] = []
        self.synchronised = 0

    def load_weights(self, weights: Sequence[tuple[str, torch.Tensor]]) -> None:
        with torch.no_grad():
            for name, tensor in weights:
                self.model.get_parameter(name).copy_(tensor)

    def sample(self, prompts: Sequence[list[int]], **asked: Any) -> list[Response]:
        self.asked.append({"prompts": list(prompts), **asked})
        sampling = Sampling(asked["temperature"], asked["max_tokens"], frozenset(asked["stop_token_ids"]))
        return generate(self.model, prompts, self.random.random((len(prompts), asked["max_tokens"])), sampling)


class LLM(Copy):
    """`vllm.LLM` as TRL uses it."""

    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(model)
        self.options = options
        runner = SimpleNamespace(model=self)
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(model_executor=executor)
        self.made.append(self)

    def reset_prefix_cache(self) -> None:
        self.synchronised += 1

    def sleep(self, level: int) -> None:
        assert level == 2
        self.load_weights([(name, torch.zeros_like(tensor)) for name, tensor in self.model.named_parameters()])

    def wake_up(self, tags: list[str]) -> None: ...

    def generate(self, prompts: list[dict[str, Any]], sampling_params: SimpleNamespace, use_tqdm: bool) -> list[Any]:
        responses = self.sample([prompt["prompt_token_ids"] for prompt in prompts], **vars(sampling_params))
        return [
            SimpleNamespace(
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=[
                    SimpleNamespace(
                        token_ids=response.tokens,
                        logprobs=[
                            {token: SimpleNamespace(logprob=logprob, rank=1)}
                            for token, logprob in zip(response.tokens, response.logprobs, strict=True)
                        ],
                    )
                ],
            )
            for prompt, response in zip(prompts, responses, strict=True)
        ]


class Group:
    """The trainer's end of the weight transfer: tensors are handed to the server that joined the same port."""

    by_port: ClassVar[dict[int, Group]] = {}

    def __init__(self) -> None:
        self.tensors: queue.Queue[list[tuple[str, torch.Tensor]]] = queue.Queue()
        self.group = SimpleNamespace(store=None, socket=None)


class NCCLWeightTransferEngine:
    """vLLM's trainer side of the weight transfer, before 0.28."""

    @staticmethod
    def trainer_init(info: dict[str, Any]) -> Group:
        return Group.by_port.setdefault(info["master_port"], Group())

    @staticmethod
    def trainer_send_weights(iterator: Iterator[tuple[str, torch.Tensor]], trainer_args: SimpleNamespace) -> None:
        trainer_args.group.tensors.put([(name, tensor.detach().clone()) for name, tensor in iterator])


def modules() -> dict[str, ModuleType]:
    """The package `vllm`, as far as TRL imports it."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": LLM, "RequestOutput": object, "SamplingParams": SimpleNamespace, "__version__": VERSION},
        "vllm.sampling_params": {"StructuredOutputsParams": object},
        "vllm.utils": {},
        "vllm.utils.network_utils": {"get_ip": lambda: "127.0.0.1"},
        "vllm.distributed": {},
        "vllm.distributed.weight_transfer": {},
        "vllm.distributed.weight_transfer.nccl_engine": {
            "NCCLTrainerSendWeightsArgs": SimpleNamespace,
            "NCCLWeightTransferEngine": NCCLWeightTransferEngine,
        },
    }
    made = {}
    for name, attributes in contents.items():
        made[name] = ModuleType(name)
        made[name].__spec__ = ModuleSpec(name, None)
        vars(made[name]).update(attributes)
    return made


@contextmanager
def installed() -> Iterator[None]:
    """Let `import vllm` find the stand-in, and TRL's modules over it be imported anew.

    TRL's client takes a CPU for the GPU that NCCL needs.
    """

    def of_trl() -> list[str]:
        return [name for name in sys.modules if name.startswith("trl.generation")]

    before = {name: sys.modules.pop(name) for name in of_trl()}
    stand_in = modules()
    sys.modules.update(stand_in)
    LLM.made.clear()
    Group.by_port.clear()
    try:
        from trl.generation.vllm_client import VLLMClient

        init_communicator = VLLMClient.init_communicator
        VLLMClient.init_communicator = lambda self, device: init_communicator(self, "cuda")
        yield
    finally:
        for name in (*stand_in, *of_trl()):
            sys.modules.pop(name, None)
        sys.modules.update(before)


class Server(Copy):
    """`vllm serve` with `VLLM_SERVER_DEV_MODE=1`: the end points that TRL's client calls."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.logprobs_mode = "processed_logprobs"
        self.group: Group | None = None
        self.updating = False
        self.calls: list[str] = []

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What an end point answers."""
        self.calls.append(path)
        if path == "/v1/models":
            return {"data": [{"id": "policy"}]}
        if path == "/server_info":
            model_config = {"logprobs_mode": self.logprobs_mode}
            return {"vllm_config": {"weight_transfer_config": {"backend": "nccl"}, "model_config": model_config}}
        if path == "/get_world_size":
            return {"world_size": 1}
        if path == "/init_weight_transfer_engine":
            info = body["init_info"]
            assert (info["rank_offset"], info["world_size"]) == (1, 2)
            self.group = Group.by_port.setdefault(info["master_port"], Group())
        elif path in ("/start_weight_update", "/finish_weight_update"):
            assert self.updating == path.startswith("/finish")
            self.updating = not self.updating
        elif path == "/update_weights":
            self._receive(body["update_info"])
        elif path == "/reset_prefix_cache":
            self.synchronised += 1
        elif path == "/v1/completions":
            return {"choices": self._choices(body)}
        return {}

    def _receive(self, announced: dict[str, Any]) -> None:
        assert self.updating and self.group is not None
        weights = self.group.tensors.get(timeout=30)
        assert announced["names"] == [name for name, _ in weights]
        assert announced["shapes"] == [list(tensor.shape) for _, tensor in weights]
        self.load_weights(weights)

    def _choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        assert body.pop("model") == "policy"
        responses = self.sample(body.pop("prompt"), **body)
        return [
            {
                "prompt_token_ids": prompt,
                "token_ids": response.tokens,
                "logprobs": {
                    "tokens": [f"token_id:{token}" for token in response.tokens],
                    "token_logprobs": response.logprobs,
                    "top_logprobs": [{}] * len(response.tokens),
                },
            }
            for prompt, response in zip(self.asked[-1]["prompts"], responses, strict=True)
        ]


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve on a free port of this machine; gives the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}"))

        def _answer(self, body: dict[str, Any]) -> None:
            try:
                status, answer = 200, server.answer(self.path.split("?")[0], body)
            except Exception as error:
                status, answer = 400, {"error": repr(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

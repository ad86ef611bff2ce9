"""A LitServe server around plusx's engine, for ``serve.py``: same decoding, same network, its
batching. ``python litserve_peer.py PORT RUN``; needs ``pip install litserve``."""

from __future__ import annotations

import sys
from typing import Any

import litserve as ls
import numpy as np
import torch

from plusx import Prediction, Predictor
from plusx.data.safely import read_safely


class Api(ls.LitAPI):
    """Decode, gather, run, answer."""

    def setup(self, device: str) -> None:
        self.predictor = Predictor(sys.argv[2], precision="bfloat16", engine="auto")

    def decode_request(self, request):  # unannotated: LitServe reads the type
        own = self.predictor.preprocessing
        content = request["files"].file.read()
        image, _ = read_safely(content, channels=own.channels, reading=own.reading)
        return own(torch.from_numpy(image)).numpy()

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> list[Prediction]:
        return self.predictor.answers(["image"] * len(x), self.predictor.engine.run(x))

    def unbatch(self, output: list[Prediction]) -> list[Prediction]:
        return output

    def encode_response(self, output: Prediction) -> dict[str, Any]:
        return {"top": output.top(5)}


if __name__ == "__main__":
    api = Api(max_batch_size=16, batch_timeout=0.002, api_path="/v1/predict")
    server = ls.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error")

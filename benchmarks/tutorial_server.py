"""A server as FastAPI's and PyTorch's tutorials write it, for ``serve.py``: a route per request,
torchvision eager in float32. ``python tutorial_server.py PORT WEIGHTS``."""

import sys

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from safetensors.torch import load_file
from torchvision import models, transforms

model = models.resnet50()
model.load_state_dict({k: v.float() for k, v in load_file(sys.argv[2]).items()}, strict=False)
model.eval()
transform = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])  # fmt: skip
app = FastAPI()


@app.post("/v1/predict")
def predict(files: UploadFile) -> dict[str, list[float]]:
    """One photograph -> the five best classes."""
    image = Image.open(files.file).convert("RGB")
    with torch.no_grad():
        shares = model(transform(image)[None]).softmax(1)[0]
    best = shares.topk(5)
    return {"label": best.indices.tolist(), "probability": best.values.tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)

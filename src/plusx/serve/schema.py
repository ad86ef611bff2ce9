"""What goes over the wire, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Ranked(BaseModel):
    """A class and its calibrated probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class HeatMap(BaseModel):
    """Where the network looked."""

    label: str = Field(description="The class that the map speaks of.")
    png: str = Field(description="The image with the map painted over it: base64 of a PNG.")


class ItemError(BaseModel):
    """Why one image has no answer."""

    code: Literal["unreadable", "no_heat_map"]
    message: str


class Result(BaseModel):
    """One image: an answer, or an error. Which keys there are depends on the model's task."""

    index: int = Field(ge=0, description="Its place in the request.")
    name: str = Field(description="What the request called it.")
    label: str | None = Field(None, description="Task single: the class to answer.")
    probability: float | None = Field(None, ge=0, le=1)
    decision: Literal["answer", "unsure", "unknown"] | None = Field(
        None, description="Whether to take the label for an answer, where the model decides."
    )
    set: list[str] | None = Field(
        None, description="Classes that it may be, with the coverage that the model promises."
    )
    unknown_score: float | None = Field(
        None, description="How far it is from all training images, 0 to 2."
    )
    top: list[Ranked] | None = Field(None, description="Task single: the best classes.")
    labels: list[str] | None = Field(None, description="Task multi: all classes that it has.")
    probabilities: dict[str, float] | None = Field(None, description="Task multi: of every class.")
    heat_map: HeatMap | None = None
    error: ItemError | None = None


class Predictions(BaseModel):
    """One result per image, in the request's order."""

    model: str
    results: list[Result]


class Problem(BaseModel):
    """Why a request was refused."""

    code: str
    message: str
    request_id: str


class Refused(BaseModel):
    """What every refused request gets."""

    error: Problem


class Card(BaseModel):
    """What is served under a name."""

    name: str
    task: Literal["single", "multi"]
    classes: list[str]
    preprocessing: dict[str, Any]
    decides: dict[str, Any] = Field(description="Temperature, thresholds and sets.")
    engine: str
    precision: str
    figures: dict[str, Any] | None = Field(description="The run's headline with its interval.")
    versions: dict[str, str]
    trouble: str | None = Field(description="Why changed files are not served, if so.")


class Cards(BaseModel):
    """All models; the first answers where a request names none."""

    models: list[str]


class State(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "starting", "draining"]

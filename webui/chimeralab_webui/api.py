"""The JSON API under `/api/v1`, described at `/api/v1/openapi.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

if TYPE_CHECKING:
    from chimeralab import Lab


def router(lab: Lab) -> APIRouter:
    return APIRouter()

"""The names that lines may use."""

from __future__ import annotations

from batchway.core.errors import NotFound
from batchway.server.routing import Call, Operation
from batchway.wire.keys import Model, ModelList


async def list_models(call: Call) -> ModelList:
    """Names that this key may use in its lines."""
    return await call.gateway.models(call.principal)


async def retrieve(call: Call) -> Model:
    """One name, if it may be used."""
    wanted = call.params["model"]
    for model in (await call.gateway.models(call.principal)).data:
        if model.id == wanted:
            return model
    raise NotFound(f"The model '{wanted}' does not exist here.", code="model_not_found", param="model")


OPERATIONS = (
    Operation(
        method="GET", path="/models", name="listModels", handler=list_models, answer=ModelList, tag="Models",
    ),
    Operation(
        method="GET", path="/models/{model*}", name="retrieveModel", handler=retrieve, answer=Model, tag="Models",
        errors=(404,),
    ),
)  # fmt: skip

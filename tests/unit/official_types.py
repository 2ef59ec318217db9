"""The types of OpenAI's own client: which parameters there are, and whether an answer is one."""

from __future__ import annotations

from typing import get_type_hints

from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses import Response
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES

REQUESTS = {
    CHAT: CompletionCreateParamsNonStreaming,
    EMBEDDINGS: EmbeddingCreateParams,
    RESPONSES: ResponseCreateParamsNonStreaming,
}
ANSWERS = {CHAT: ChatCompletion, EMBEDDINGS: CreateEmbeddingResponse, RESPONSES: Response}


def parameters(endpoint: str) -> set[str]:
    return set(get_type_hints(REQUESTS[endpoint]))


def judge(endpoint: str, answer: dict) -> None:
    ANSWERS[endpoint].model_validate(answer)


class Official:
    """Gives these types to the suite."""

    def parameters(self, endpoint):
        return parameters(endpoint)

    def judge(self, endpoint, answer):
        judge(endpoint, answer)

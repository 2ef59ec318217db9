"""What becomes of each OpenAI parameter on its way to Gemini; `docs/parameters.md` is made of this.

Parameters: openai 3.54. Targets: google-genai 3.4 and the discovery document of aiplatform v1. Read November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchway.dialects import bridge
from batchway.dialects.protocol import CHAT, EMBEDDINGS, RESPONSES, Table, ignored, mapped, refused

NO_FIELD = "Gemini has no such parameter"
ONE_TIER = "a batch has one tier"
NO_END_USER = "Gemini has no field for the end user, and the answer does not depend on it"
OWN_CACHE = "Gemini caches common beginnings by itself"

_CHAT: Table = {
    "model": mapped("named by the job"),
    "messages": mapped(
        "`contents` and `systemInstruction`. Images and files: data URLs, `gs://` URIs (by their extension) and YouTube"
        " links; sounds inline. A speaker's `name`, an image's `detail` and cache breakpoints are left out"
    ),
    "audio": refused("answers are text", {}),
    "frequency_penalty": mapped("`generationConfig.frequencyPenalty`"),
    "function_call": refused("use `tool_choice`", "none", "auto"),
    "functions": refused("use `tools`", []),
    "logit_bias": refused(NO_FIELD, {}),
    "logprobs": mapped("`generationConfig.responseLogprobs`"),
    "max_completion_tokens": mapped("`generationConfig.maxOutputTokens`, thinking included"),
    "max_tokens": mapped("`generationConfig.maxOutputTokens`, thinking included"),
    "metadata": mapped("`labels`, made to fit their characters"),
    "modalities": refused("answers are text", ["text"], []),
    "moderation": refused(NO_FIELD),
    "n": mapped("`generationConfig.candidateCount`"),
    "parallel_tool_calls": refused(NO_FIELD, True),  # noqa: FBT003 - the harmless value
    "prediction": ignored("a hint for speed alone"),
    "presence_penalty": mapped("`generationConfig.presencePenalty`"),
    "prompt_cache_key": ignored(OWN_CACHE),
    "prompt_cache_options": ignored(OWN_CACHE),
    "prompt_cache_retention": ignored(OWN_CACHE),
    "reasoning_effort": mapped(
        "`thinkingConfig`: `thinkingLevel` from Gemini 3 on, `thinkingBudget` for 2.5 (low 1,024, medium 8,192, high"
        " 24,576); other models take only `none`"
    ),
    "response_format": mapped("`responseMimeType` and `responseJsonSchema`; a schema's name and `strict` are left out"),
    "safety_identifier": ignored(NO_END_USER),
    "seed": mapped("`generationConfig.seed`, 32 bits"),
    "service_tier": ignored(ONE_TIER),
    "stop": mapped("`generationConfig.stopSequences`"),
    "store": ignored("answers stand in the output file"),
    "stream": refused("a batch does not stream", False),  # noqa: FBT003 - the harmless value
    "stream_options": ignored("a batch does not stream"),
    "temperature": mapped("`generationConfig.temperature`"),
    "tool_choice": mapped("`toolConfig.functionCallingConfig`; of allowed tools only those are offered"),
    "tools": mapped("`functionDeclarations` with `parametersJsonSchema`; functions only, `strict` is left out"),
    "top_logprobs": mapped("`generationConfig.logprobs`"),
    "top_p": mapped("`generationConfig.topP`"),
    "user": ignored(NO_END_USER),
    "verbosity": refused(NO_FIELD, "medium"),
    "web_search_options": refused("searching is billed apart and not offered in batches", {}),
    "safety_settings": mapped("`safetySettings` as they are; an addition of this gateway to OpenAI's parameters"),
}

_EMBEDDINGS: Table = {
    "model": mapped("named by the job"),
    "input": mapped("one row an input; texts only, no tokens"),
    "dimensions": mapped("`output_dimensionality`"),
    "encoding_format": mapped("encoded here"),
    "user": ignored(NO_END_USER),
}

PARAMS: Mapping[str, Table] = {CHAT: _CHAT, EMBEDDINGS: _EMBEDDINGS, RESPONSES: bridge.table(_CHAT)}

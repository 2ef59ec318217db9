"""What becomes of each OpenAI parameter on its way to Claude; `docs/parameters.md` is made of this.

Parameters: openai 3.54. Targets: anthropic 2.12 and its OpenAPI document. Read November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchway.dialects import bridge
from batchway.dialects.anthropic.models import DEFAULT_MAX_TOKENS, DEFAULT_MAX_TOKENS_FROM_4
from batchway.dialects.protocol import CHAT, RESPONSES, Table, ignored, mapped, refused

NO_FIELD = "Claude has no such parameter"
BREAKPOINTS = "Claude caches where `prompt_cache_breakpoint` of a part says"
LIMIT = (
    f"`max_tokens`, thinking included; without it {DEFAULT_MAX_TOKENS_FROM_4} from Claude 4 on, {DEFAULT_MAX_TOKENS}"
    " before"
)
SAMPLING = "up to Claude 4.6, and not above 1; later models refuse it, so only the default 1 passes"

_CHAT: Table = {
    "model": mapped("`model`, or named by the job"),
    "messages": mapped(
        "`messages` and `system`. Images: data URLs and addresses; files: PDF and text; no sounds. Cache breakpoints"
        " become `cache_control` (`1h` for every `ttl`, else the default); a speaker's `name` and `detail` are left out"
    ),
    "audio": refused("answers are text", {}),
    "frequency_penalty": refused(NO_FIELD, 0),
    "function_call": refused("use `tool_choice`", "none", "auto"),
    "functions": refused("use `tools`", []),
    "logit_bias": refused(NO_FIELD, {}),
    "logprobs": refused("Claude tells no probabilities", False),  # noqa: FBT003 - the harmless value
    "max_completion_tokens": mapped(LIMIT),
    "max_tokens": mapped(LIMIT),
    "metadata": ignored("Claude keeps no metadata but the user's id"),
    "modalities": refused("answers are text", ["text"], []),
    "moderation": refused(NO_FIELD),
    "n": refused("Claude gives one answer a request", 1),
    "parallel_tool_calls": mapped("`tool_choice.disable_parallel_tool_use`"),
    "prediction": ignored("a hint for speed alone"),
    "presence_penalty": refused(NO_FIELD, 0),
    "prompt_cache_key": ignored(BREAKPOINTS),
    "prompt_cache_options": ignored(BREAKPOINTS),
    "prompt_cache_retention": ignored(BREAKPOINTS),
    "reasoning_effort": mapped(
        "`thinking` adaptive and `output_config.effort` from Claude 4.6 on (`minimal` as `low`); a token budget for 3.7"
        " to 4.5 (1,024 to 16,384); earlier models take only `none`"
    ),
    "response_format": mapped(
        "`output_config.format` from Claude 4.5 on, with what schemas may not hold told in descriptions; `json_object`"
        " is asked for in `system`"
    ),
    "safety_identifier": mapped("`metadata.user_id`"),
    "seed": ignored("it is no promise at OpenAI either"),
    "service_tier": ignored("a batch has one tier"),
    "stop": mapped("`stop_sequences`"),
    "store": ignored("answers stand in the output file"),
    "stream": refused("a batch does not stream", False),  # noqa: FBT003 - the harmless value
    "stream_options": ignored("a batch does not stream"),
    "temperature": mapped(f"`temperature` {SAMPLING}"),
    "tool_choice": mapped("`tool_choice`; of allowed tools only those are offered"),
    "tools": mapped("`tools` with `input_schema`; functions only"),
    "top_logprobs": refused("Claude tells no probabilities", 0),
    "top_p": mapped(f"`top_p` {SAMPLING}"),
    "user": mapped("`metadata.user_id`, unless there is a `safety_identifier`"),
    "verbosity": refused(NO_FIELD, "medium"),
    "web_search_options": refused("searching is billed apart and not offered in batches", {}),
}

PARAMS: Mapping[str, Table] = {CHAT: _CHAT, RESPONSES: bridge.table(_CHAT)}

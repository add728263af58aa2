"""Messages of a conversation as other tools write them, and as they are stored."""

import json

from small_records import S

B = {"role": "assistant", "content": "b"}
HUMAN, GPT, WORSE = (
    {"from": "human", "value": "q"},
    {"from": "gpt", "value": "a"},
    {"from": "gpt", "value": "b"},
)
CALL = {"name": "add", "arguments": {"a": 1, "b": "二"}}
TOOL = {"name": "add", "description": "adds", "parameters": {"type": "object"}}
SYSTEM_AND_TOOLS = {"system": "s", "tools": json.dumps([TOOL])}
HEAD = {**S, "tools": json.dumps([TOOL])}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}

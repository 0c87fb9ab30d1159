"""What makes records exact duplicates."""

import json

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.preprocess.annotate import contents
from pipeline.shards.tables import MESSAGES

MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.text("a\n\\u", max_size=2) | st.just("user")}
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(MESSAGE, min_size=1, max_size=3), min_size=1, max_size=30))
def test_conversations_are_the_same_with_the_same_roles_and_words_alone(conversations: list) -> None:
    table = pl.DataFrame({"messages": pl.Series(conversations, dtype=MESSAGES)})
    found = list(contents(table, "conversations"))
    spelled = [json.dumps(messages, sort_keys=True) for messages in conversations]
    assert len(found) == len(spelled)
    assert len(set(found)) == len(set(spelled)) == len(set(zip(found, spelled, strict=True)))

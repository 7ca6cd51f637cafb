"""A program of Langfuse's own SDK: a decorated function and a generation, in a session of a user."""

import sys

from langfuse import Langfuse, observe, propagate_attributes

studio, models = sys.argv[1:]
langfuse = Langfuse(public_key="pk-lf-public", secret_key="the-key", base_url=studio)


@observe()
def answer(question: str) -> str:
    with langfuse.start_as_current_observation(
        name="ask", as_type="generation", model="scripted", input=[{"role": "user", "content": question}]
    ) as generation:
        generation.update(output="yes", usage_details={"input": 12, "output": 3}, cost_details={"total": 0.25})
    return "yes"


with propagate_attributes(session_id="chat-7", user_id="ada", tags=["test"]):
    answer("Is it raining in Paris?")
langfuse.flush()
langfuse.shutdown()

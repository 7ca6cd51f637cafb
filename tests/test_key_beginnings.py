"""Keys of services that are known by their beginning, each of the list, and words that begin alike."""

from __future__ import annotations

import pytest

from firsthand.ingest import literal_search
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.key_beginnings import BEGINNINGS
from firsthand.ingest.literal_search import literals_within
from firsthand.ingest.redaction import PUT, Redactor

W, H, U = "aB1" * 60, "a1" * 100, "A1" * 100
RESTS = {
    "Alibaba Cloud": W[:20], "Bitbucket": W[:32], "Cloudflare, origin CA": f"{H[:24]}-{H[:146]}",
    "Databricks": f"{H[:32]}-2", "Dynatrace": f"{U[:24]}.{U[:64]}", "Fireworks": W[:24], "Grafana": f"{W[:32]}_{H[:8]}",
    "HubSpot": "-".join(H[:n] for n in (8, 4, 4, 4, 12)), "Mapbox": f"{W[:40]}.{W[:22]}", "Notion, until 2024": W[:43],
    "OpenShift": W[:43], "Plaid": "-".join(H[:n] for n in (8, 4, 4, 4, 12)), "Postman": f"{H[:24]}-{H[:34]}",
    "Sendinblue": f"{H[:64]}-{W[:16]}", "Slack, app": f"1-A{U[:10]}-{'12' * 6}-{H[:64]}",
    "Square, access": W[:60], "Tailscale": f"auth-{W[:17]}-{W[:32]}", "GitLab": W[:20],
    "AWS Bedrock": W[:128] + "==", "Readme": H[:70], "Meta": W[:150], "JFrog": W[:69], "Prefect": W[:36], "Clojars": W[:60],
    "EasyPost": W[:54], "ElevenLabs": H[:48], "Firecrawl": H[:32], "Buildkite": H[:40], "E2B": H[:40], "Pulumi": H[:40],
    "RubyGems": H[:48], "Sentry": H[:64], "Shippo": H[:40], "Shopify": H[:32], "Supabase": W[:31],
    "Supabase, personal": H[:40], "Stripe, hook": W[:32], "Google, client's secret": W[:28], "Render": W[:32],
    "GitLab, runner's registration": W[:20], "New Relic": U[:27], "Square": W[:22],
}  # fmt: skip
"""How a key goes on where it is no row of a hundred letters and digits."""


def kept(text: str) -> str:
    return str(Redactor().redact(IncomingSpan("1" * 32, "2" * 16, "", "n", 1, 2, {"a": text})).decode())


@pytest.mark.parametrize("service", BEGINNINGS)
def test_a_key_of_each_service_is_replaced_wherever_it_stands(service: str) -> None:
    for head in BEGINNINGS[service][0]:
        key = head + RESTS.get(service, W[:100])
        for text in (
            f"please use {key} now",
            f"用{key}。",
            f"x='{key}'",
            f"export A=\n{key}\n",
            f"https://h/?a={key}&b=1",
        ):
            assert kept(text) == kept(text.replace(key, PUT)), head
        assert kept(f"x{key}").count(PUT) == 0, "a longer word begins before it"
        short = f"it is {head}{RESTS.get(service, W)[:7]}"
        assert PUT not in kept(short), short


def test_private_keys_of_pgp_and_tokens_with_their_mark_inside_are_replaced() -> None:
    block = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n-----END PGP PRIVATE KEY BLOCK-----"
    assert kept(f"a {block} b") == kept(f"a {PUT} b")
    assert "lQOYBF" not in kept(block[:50])
    bot = f"1234567890:AA{W[:33]}"
    assert kept(f"https://api.telegram.org/bot{bot}/getMe") == kept(f"https://api.telegram.org/bot{PUT}/getMe")
    assert kept(f"{W[:14]}.atlasv1.{W[:60]}") == kept(PUT)
    public = block.replace("PRIVATE", "PUBLIC")
    assert kept(public).count(PUT) == 0


def test_ordinary_words_with_such_beginnings_are_kept() -> None:
    calm = (
        "task_runner secret_santa_list sk_learn_pipeline fw_update_available nfo_file sha256~short pul-le hvs.a.b ntn_id\n"
        "dapip v1.0-beta-2 pat-na1-x re_compile key-value-store-of-values tfp_bijector sgp_model_with_options e2b_it\n"
        "sk_" + "a1" * 25 + " fm1_macro_score shpat_ whsec_example napi_value_of_something NRAK- 12:30:AA llx-1"
    )
    assert PUT not in kept(calm)


def test_the_literals_of_a_text_are_told_however_many_places_it_has() -> None:
    within = literals_within(["a_", "a_live_", "b_c", "_d_", "q."], "_.")
    texts = {
        "": set(),
        "xa_b_": {"a_"},
        "b_c_d_": {"b_c", "_d_"},
        "a_live_": {"a_"},
        "b_": set(),
        "q.": {"q."},
        "a__d_": {"a_", "_d_"},
    }
    assert {text: set(within(text)) for text in texts} == texts
    for times in (literal_search._MOST - 1, literal_search._MOST, literal_search._MOST + 1):
        assert within("a_" * times + "q._d_") == {"a_", "q.", "_d_"}

"""Lists the beginnings by which services mark their keys, so that a scanner knows one without a name beside it.

Each has what follows it, with the least length that a key of that service has: a word that begins alike is shorter. Keys
that are public (Stripe's and Supabase's publishable ones, PostHog's `phc_`) and mere ids of accounts are left out, and so
are beginnings that other words have (Resend's `re_`, Mailgun's `key-`, Google's `1//0`).
"""

from __future__ import annotations

_WORD, _NAME = "[A-Za-z0-9]", "[A-Za-z0-9_-]"
_HEX = "[a-f0-9]"
_OVER = "(?![A-Za-z0-9_])"

BEGINNINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "Alibaba Cloud": (("LTAI",), _WORD + "{16,26}" + _OVER),
    "Apify": (("apify_api_",), _WORD + "{30,}"),
    "Atlassian": (("ATATT3", "ATCTT3"), "[A-Za-z0-9_=-]{60,}"),
    "AWS Bedrock": (("ABSK",), "[A-Za-z0-9+/]{80,}={0,2}"),
    "Bitbucket": (("ATBB",), _WORD + "{32}" + _OVER),
    "Buildkite": (("bkua_",), _HEX + "{40}"),
    "Cerebras": (("csk-",), _WORD + "{40,}"),
    "CircleCI": (("CCIPAT_", "CCIPRJ_"), _NAME + "{30,}"),
    "Clojars": (("CLOJARS_",), _WORD + "{60}"),
    "Cloudflare, origin CA": (("v1.0-",), _HEX + "{24}-" + _HEX + "{100,}"),
    "Contentful": (("CFPAT-",), _NAME + "{40,}"),
    "Databricks": (("dapi",), _HEX + "{32}(?:-[0-9]{1,3})?" + _OVER),
    "Doppler": (
        ("dp.pt.", "dp.ct.", "dp.st.", "dp.sa.", "dp.scim.", "dp.audit."),
        r"(?:[a-z0-9_-]{2,40}\.)?" + _WORD + "{40,}",
    ),
    "Duffel": (("duffel_test_", "duffel_live_"), _NAME + "{40,}"),
    "Dynatrace": (("dt0c01.", "dt0s16."), r"[A-Z0-9]{8,24}\.[A-Z0-9]{64}"),
    "E2B": (("e2b_",), _HEX + "{40}"),
    "EasyPost": (("EZAK", "EZTK"), _WORD + "{54}"),
    "ElevenLabs": (("sk_",), _HEX + "{48}" + _OVER),
    "Figma": (("figd_",), _NAME + "{40,}"),
    "Firecrawl": (("fc-",), _HEX + "{32}" + _OVER),
    "Fireworks": (("fw_",), _WORD + "{22,24}" + _OVER),
    "Fly": (("fm2_", "fm1_", "fm1a_", "fm1r_"), "[A-Za-z0-9+/]{80,}={0,3}"),
    "GitLab": (
        ("glrt-", "gldt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-", "gloas-", "glffct-"),
        r"[A-Za-z0-9_.-]{16,}",
    ),
    "GitLab, runner's registration": (("GR1348941",), _NAME + "{20,}"),
    "Google, client's secret": (("GOCSPX-",), _NAME + "{20,}"),
    "Google, OAuth": (("ya29.",), _NAME + "{30,}"),
    "Grafana": (("glsa_",), _WORD + "{32}_[A-Fa-f0-9]{8}"),
    "Grafana Cloud": (("glc_",), "[A-Za-z0-9+/=]{32,}"),
    "Heroku": (("HRKU-",), _NAME + "{30,}"),
    "HubSpot": (("pat-na1-", "pat-na2-", "pat-eu1-", "pat-ap1-"), "[A-Fa-f0-9-]{36}"),
    "Jina": (("jina_",), _NAME + "{40,}"),
    "JFrog": (("AKCp",), _WORD + "{60,}"),
    "Linear": (("lin_api_", "lin_oauth_"), _WORD + "{30,}"),
    "LlamaIndex": (("llx-",), _WORD + "{40,}"),
    "Mapbox": (("sk.eyJ",), r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"),
    "Meta": (("EAAM", "EAAC"), _WORD + "{100,}"),
    "Neon": (("napi_",), _WORD + "{40,}"),
    "Netlify": (("nfp_", "nfc_", "nfo_", "nfb_"), _WORD + "{30,}"),
    "New Relic": (("NRAK-", "NRII-", "NRIQ-"), _NAME + "{27,}"),
    "Notion": (("ntn_",), _WORD + "{40,}"),
    "Notion, until 2024": (("secret_",), _WORD + "{43}" + _OVER),
    "OpenShift": (("sha256~",), _NAME + "{43}" + _OVER),
    "1Password": (("ops_eyJ",), "[A-Za-z0-9+/=_-]{100,}"),
    "Pinecone": (("pcsk_",), _NAME + "{40,}"),
    "Plaid": (("access-sandbox-", "access-production-", "access-development-"), _HEX + "{8}-[a-f0-9-]{27}"),
    "PlanetScale": (("pscale_tkn_", "pscale_pw_", "pscale_oauth_"), "[A-Za-z0-9_.=-]{32,}"),
    "PostHog": (("phx_", "phs_"), _WORD + "{40,}"),
    "Postman": (("PMAK-",), _HEX + "{24}-" + _HEX + "{34}"),
    "Prefect": (("pnu_", "pnb_"), _WORD + "{36}"),
    "Pulumi": (("pul-",), _HEX + "{40}"),
    "Readme": (("rdme_",), "[a-z0-9]{60,}"),
    "Render": (("rnd_",), _WORD + "{28,}"),
    "RubyGems": (("rubygems_",), _HEX + "{48}"),
    "Sendinblue": (("xkeysib-", "xsmtpsib-"), _HEX + "{64}-" + _WORD + "{16}"),
    "Sentry": (("sntryu_", "sntrya_"), _HEX + "{64}"),
    "Sentry, of an organisation": (("sntrys_eyJ",), "[A-Za-z0-9+/=_-]{40,}"),
    "Shippo": (("shippo_live_", "shippo_test_"), _HEX + "{40}"),
    "Shopify": (("shpat_", "shpca_", "shppa_", "shpss_", "shpua_"), "[A-Fa-f0-9]{32}"),
    "Slack, app": (("xapp-",), r"[0-9]{1,2}-[A-Za-z0-9-]{20,}"),
    "Sourcegraph": (("sgp_",), "[A-Za-z0-9_]{40,}"),
    "Square": (("sq0atp-", "sq0csp-"), _NAME + "{22,}"),
    "Square, access": (("EAAA",), _NAME + "{60}(?![A-Za-z0-9_/+=-])"),
    "Stripe, hook": (("whsec_",), "[A-Za-z0-9+/=]{20,}"),
    "Supabase": (("sb_secret_",), _NAME + "{20,}"),
    "Supabase, personal": (("sbp_",), "(?:v0_)?" + _HEX + "{40}"),
    "Tailscale": (("tskey-",), r"[a-z]{2,12}-[A-Za-z0-9]{10,}-[A-Za-z0-9]{20,}"),
    "Together": (("tgp_v1_",), _NAME + "{40,}"),
    "Typeform": (("tfp_",), "[A-Za-z0-9_.=-]{40,}"),
    "Vault": (("hvs.", "hvb.", "hvr."), _NAME + "{24,}"),
    "Vercel": (("vcp_", "vck_", "vca_", "vcr_", "vci_"), _WORD + "{40,}"),
    "Weights & Biases": (("wandb_v1_",), _NAME + "{40,}"),
}
"""Service -> how its keys begin, and a pattern of what follows. Patterns take time linear in the text."""

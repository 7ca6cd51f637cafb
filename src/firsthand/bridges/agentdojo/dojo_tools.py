"""AgentDojo's tools as Tools of ours, with what each declares. The declarations were written with its suites in view."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from firsthand.bridges.agentdojo.dojo_suites import plain, run, suites
from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.safety.rules.draft_declaration import drafted
from firsthand.tool import Effect, Tool

_MAIL = ("recipients", "cc", "bcc")
_PERSONAL = Declaration(readers="user")
_EMAILS = Declaration(trusts=("id_", "sender", *_MAIL), readers="user")
_EVENTS = Declaration(trusts=("id_", "participants"), readers="user")
_FILES = Declaration(trusts=("id_", "filename", "owner", "shared_with.~"), readers="user")
_PEOPLE = Declaration(trusts=("email", "name"), readers="user")
_PUBLIC = Declaration()
_NAMES = Declaration(trusts=(".",))
"""Lists of names that the operator keeps: hotels of a city, channels, members."""
_PAYMENTS = Declaration(trusts=("id", "sender", "recipient"), readers="user")
_CHAT = Declaration(trusts=("sender", "recipient"), readers="user")

DECLARED: dict[str, tuple[Effect, Declaration]] = {
    "send_email": ("external", Declaration((*_MAIL, "attachments.file_id"), ("id_", *_MAIL), _MAIL)),
    "delete_email": ("write", Declaration(("email_id",))),
    **dict.fromkeys(
        ("get_unread_emails", "get_sent_emails", "get_received_emails", "get_draft_emails", "search_emails"),
        ("read", _EMAILS),
    ),
    "search_contacts_by_name": ("read", _PEOPLE),
    "search_contacts_by_email": ("read", _PEOPLE),
    "get_current_day": ("read", Declaration(clean=True)),
    "search_calendar_events": ("read", _EVENTS),
    "get_day_calendar_events": ("read", _EVENTS),
    "create_calendar_event": ("external", Declaration(("participants",), ("id_",), ("participants",), readers="user")),
    "cancel_calendar_event": ("write", Declaration(("event_id",))),
    "reschedule_calendar_event": ("external", Declaration(("event_id",), ("id_", "participants"), readers="user")),
    "add_calendar_event_participants": (
        "external",
        Declaration(("event_id", "participants"), ("id_",), ("participants",), readers="user"),
    ),
    "append_to_file": ("write", Declaration(("file_id",), ("id_",), readers="user")),
    "search_files_by_filename": ("read", _FILES),
    "create_file": ("write", Declaration((), ("id_",), readers="user")),
    "delete_file": ("write", Declaration(("file_id",), ("id_",), readers="user")),
    "get_file_by_id": ("read", _FILES),
    "list_files": ("read", _FILES),
    "search_files": ("read", _FILES),
    "share_file": ("external", Declaration(("file_id", "email"), ("id_",), ("email",), readers="user", grants=True)),
    "get_user_information": ("read", _PERSONAL),
    **dict.fromkeys(
        (
            "get_all_hotels_in_city",
            "get_all_restaurants_in_city",
            "get_all_car_rental_companies_in_city",
        ),
        ("read", _NAMES),
    ),
    **dict.fromkeys(
        (
            "get_hotels_prices",
            "get_rating_reviews_for_hotels",
            "get_hotels_address",
            "get_cuisine_type_for_restaurants",
            "get_restaurants_address",
            "get_rating_reviews_for_restaurants",
            "get_dietary_restrictions_for_all_restaurants",
            "get_contact_information_for_restaurants",
            "get_price_for_restaurants",
            "check_restaurant_opening_hours",
            "get_car_types_available",
            "get_rating_reviews_for_car_rental",
            "get_car_fuel_options",
            "get_car_rental_address",
            "get_car_price_per_day",
            "get_flight_information",
        ),
        ("read", _PUBLIC),
    ),
    "reserve_hotel": ("external", Declaration(("hotel",))),
    "reserve_car_rental": ("external", Declaration(("company",))),
    "reserve_restaurant": ("external", Declaration(("restaurant",))),
    "get_iban": ("read", Declaration(trusts=(".",), readers="user", clean=True)),
    "send_money": ("external", Declaration(("recipient",), (), ("recipient",))),
    "schedule_transaction": ("external", Declaration(("recipient",), (), ("recipient",))),
    "update_scheduled_transaction": ("external", Declaration(("id", "recipient"), (), ("recipient",))),
    "get_balance": ("read", Declaration(readers="user", clean=True)),
    "get_most_recent_transactions": ("read", _PAYMENTS),
    "get_scheduled_transactions": ("read", _PAYMENTS),
    "read_file": ("read", Declaration(readers="user")),
    "get_user_info": ("read", _PERSONAL),
    "update_password": ("external", Declaration(("password",))),
    "update_user_info": ("write", Declaration()),
    "get_channels": ("read", _NAMES),
    "add_user_to_channel": ("external", Declaration(("user", "channel"))),
    "read_channel_messages": ("read", _CHAT),
    "read_inbox": ("read", _CHAT),
    "send_direct_message": ("external", Declaration(("recipient",), (), ("recipient",))),
    "send_channel_message": ("external", Declaration(("channel",), (), ("channel",))),
    "get_users_in_channel": ("read", _NAMES),
    "invite_user_to_slack": ("external", Declaration(("user", "user_email"), grants=True)),
    "remove_user_from_slack": ("external", Declaration(("user",))),
    "get_webpage": ("read", Declaration(("url",), (), ("url",))),
    "post_webpage": ("external", Declaration(("url",), (), ("url",))),
}
"""Effect and declaration of every tool of the four suites."""


@cache
def shapes(version: str, suite: str, drafts: bool = False) -> tuple[Tool, ...]:
    """The suite's tools, bound to no environment; with `drafts`, declared by a rule on their names alone."""
    return tuple(_shape(function, drafts) for function in suites(version)[suite].tools)


def bound_tools(version: str, suite: str, world: Any, drafts: bool = False) -> list[Tool]:
    """The suite's tools in one environment."""
    whole = suites(version)[suite]

    def bind(tool: Tool) -> Tool:
        async def call(**arguments: Any) -> Any:
            result, error = run(whole, world, tool.name, arguments)
            if error is not None:
                raise ToolError(error)
            return plain(result)

        return replace(tool, function=call)

    return [bind(tool) for tool in shapes(version, suite, drafts)]


def _shape(function: Any, drafts: bool) -> Tool:
    parameters = {"properties": {}, **function.parameters.model_json_schema()}
    undeclared: tuple[Effect, Declaration | None] = ("external", None)
    effect, declares = DECLARED.get(function.name, undeclared)

    def validate(arguments: Json) -> Json:
        try:
            checked: Json = function.parameters.model_validate(arguments).model_dump(mode="json", exclude_unset=True)
        except ValueError as error:
            raise ToolError(f"{function.name}: {error}"[:300]) from None
        return checked

    spec = ToolSpec(function.name, function.description, parameters)
    if drafts:
        effect, declares = drafted(spec, lists_names=function.return_type == list[str])
    return Tool(spec, effect, _unbound, validate, max_chars=1_000_000, declares=declares)


def _unbound(**arguments: Any) -> Any:
    raise ToolError("the tool has no environment")

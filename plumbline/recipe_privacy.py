"""The recipe's sections on privacy: personal data that would enter the store, and how long names and records stay."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from plumbline.recipe_section import Section


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


class PersonalDataSection(Section):
    """Personal data in imported preferences and sampled tasks; `personal_data: mask` is short for `{action: mask}`."""

    action: Annotated[Literal["report", "set_aside", "mask", "off"], BeforeValidator(_off)] = Field(
        "report",
        description="`report` says how much there is and where; `set_aside` keeps such rows and tasks out of the "
        "store, and lists them in a file; `mask` stores `[EMAIL]`, `[PHONE]` and the like in its place; `off`.",
    )
    regions: list[str] = Field(
        default=["US"],
        min_length=1,
        description="Countries (two letters) in whose form telephone numbers without a country's code are written.",
    )

    own: list[Annotated[str, Field(min_length=3, max_length=200)]] = Field(
        default_factory=list,
        max_length=1000,
        description="Addresses and numbers that are nobody's, such as `help@shop.example`, the hotline, or "
        "`@shop.example` for all addresses there: not looked for.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str | bool) else value

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: list[str]) -> list[str]:
        from plumbline.personal_data import check_regions

        check_regions(regions)
        return regions


class RetentionSection(Section):
    """How long the store keeps names and records; judgements are never deleted. See `plumbline retain`."""

    names_days: int | None = Field(
        None,
        ge=1,
        description="People who have neither signed in nor worked for so many days get a random name, as by "
        "`plumbline erase --keep-judgements`; `plumbline retain` does it, the app only says who is due.",
    )
    keep_texts: bool = Field(False, description="Keep their reasons and edited responses then.")
    records_days: int | None = Field(
        None,
        ge=1,
        description="Ended leases without an answer, forgotten drafts, sessions and tokens that are over, failed "
        "sign-ins, ended webhook deliveries and arena turns without a vote go so many days later; the app sees to it "
        "once a day.",
    )

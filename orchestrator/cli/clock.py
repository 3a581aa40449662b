"""Times as text and back. Pure; no `datetime`, whose import would cost `ps` some milliseconds."""

from __future__ import annotations

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def ago(seconds: float) -> str:
    """A duration in the words of docker: "3 seconds", "About a minute", "2 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = round(whole / 3600)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for size, word, limit in ((24, "days", 14), (24 * 7, "weeks", 8.6), (24 * 30, "months", 24)):
        if hours / size < limit:
            return f"{hours // size} {word}"
    return f"{hours // (24 * 365)} years"


def days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def date(number: int) -> tuple[int, int, int]:
    """(year, month, day) of a day since 1970-01-01."""
    shifted = number + 719468
    era = shifted // 146097
    of_era = shifted - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    return year + era * 400 + (month <= 2), month, day


def parse(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; date only, no seconds and no zone (UTC) are allowed.

    Raises ValueError.
    """
    day, _, clock = text.strip().upper().replace(" ", "T").partition("T")
    year, month, dom = (int(part) for part in day.split("-"))
    offset = 0
    if clock.endswith("Z"):
        clock = clock[:-1]
    elif len(clock) > 6 and clock[-6] in "+-" and clock[-3] == ":":
        offset = (int(clock[-5:-3]) * 60 + int(clock[-2:])) * (1 if clock[-6] == "+" else -1)
        clock = clock[:-6]
    whole, _, fraction = clock.partition(".")
    hour, minute, second = ([int(part) for part in whole.split(":")] + [0, 0])[:3] if whole else (0, 0, 0)
    if not (1 <= month <= 12 and 1 <= dom <= 31 and 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 61):
        raise ValueError(f"no such time: {text}")
    if fraction and not fraction.isdigit():
        raise ValueError(f"no such time: {text}")
    seconds = days(year, month, dom) * 86400 + hour * 3600 + (minute - offset) * 60 + second
    return seconds * 1_000_000_000 + int((fraction + "000000000")[:9])


def show(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine digits: the form of log records, ordered like the times themselves."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    number, rest = divmod(seconds, 86400)
    year, month, day = date(number)
    return (
        f"{year:04}-{month:02}-{day:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{fraction:09}Z"
    )


def duration(text: str) -> float | None:
    """Seconds of "90s", "1h30m", "1.5h"; None when it is no duration."""
    total, rest = 0.0, text
    while rest:
        length = 0
        while length < len(rest) and (rest[length].isdigit() or rest[length] == "."):
            length += 1
        unit = next(
            (unit for unit in ("ns", "us", "µs", "ms", "s", "m", "h") if _leads(rest[length:], unit)), ""
        )
        try:
            total += float(rest[:length]) * _UNITS[unit]
        except (ValueError, KeyError):
            return None
        rest = rest[length + len(unit) :]
    return total if text else None


def _leads(text: str, unit: str) -> bool:
    """ "m" must not match the beginning of "ms"."""
    return text.startswith(unit) and not text[len(unit) : len(unit) + 1].isalpha()


def moment(text: str, now: int) -> str:
    """The time that --since or --until mean, in the form of `show`: RFC 3339, a date, seconds since the
    epoch, or a duration before `now` (nanoseconds). Raises ValueError.
    """
    if (seconds := duration(text.lstrip("-"))) is not None:
        return show(now - int(seconds * 1_000_000_000))
    whole, _, fraction = text.partition(".")
    if whole.isdigit() and (fraction or "0").isdigit():
        return show(int(whole) * 1_000_000_000 + int((fraction + "000000000")[:9]))
    return show(parse(text))

"""Units of measurement and currencies by their names and signs, each with what it measures and its size.

Rates are read by the unit before `per`, a `degree` may be of an angle or of any scale of temperature, and a `pound` is a
mass and a currency. Left out: rarer currencies, and units that are also a common word, such as `in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of a measure; equal amounts of one measure are equal numbers of its base unit."""

    measure: str
    factor: Fraction
    """The unit in base units."""


_MEASURES = {
    "length": "1e-9 nm nanometre nanometer, 1e-6 μm micrometre micrometer micron, 1e-3 mm millimetre millimeter, "
    "1e-2 cm centimetre centimeter, 1 metre meter, 1e3 km kms kilometre kilometer kph kmh kmph, 0.0254 inch inches, "
    "0.3048 ft foot feet, 0.9144 yd yard, 1609.344 mi mile mph, 1852 nmi nautical-mile",
    "speed": "1 knot",
    "astronomy": "1 light-year ly",
    "area": "1e-6 mm2 mm² square-millimetre square-millimeter, 1e-4 cm2 cm² square-centimetre square-centimeter, "
    "1 m2 m² sqm square-metre square-meter, 1e6 km2 km² square-kilometre square-kilometer square-km, "
    "0.09290304 ft2 ft² sqft square-foot square-feet square-ft, 2589988.110336 mi2 mi² square-mile, 0.83612736 square-yard, "
    "0.00064516 square-inch square-inches, 10000 ha hectare, 4046.8564224 acre",
    "volume": "1e-6 μl microlitre microliter, 1e-3 ml cc millilitre milliliter cm3 cm³ cubic-centimetre cubic-centimeter, "
    "1e-2 cl centilitre centiliter, 0.1 dl decilitre, 1 litre liter, 1e3 m3 m³ cubic-metre cubic-meter, 1e12 km3 km³ "
    "cubic-kilometre cubic-kilometer, 28.316846592 ft3 ft³ cubic-foot cubic-feet",
    "cups": "1 cup", "tablespoons": "1 tablespoon tbsp", "teaspoons": "1 teaspoon tsp",
    "pints": "1 pint", "quarts": "1 quart", "gallons": "1 gallon gal", "barrels": "1 barrel bbl",
    "fluid ounces": "1 fluid-ounce",
    "mass": "1e-9 ng nanogram, 1e-6 μg mcg microgram, 1e-3 mg milligram, 1 gram gramme, 1e3 kg kilogram kilogramme kilo, "
    "1e6 tonne metric-ton, 453.59237 lb, 28.349523125 oz ounce",
    "time": "1e-9 ns nanosecond, 1e-6 μs microsecond, 1e-3 ms millisecond, 1 sec second sekunde sekunden seconde, "
    "60 min minute minuten, 3600 hr hour stunde stunden heure, 86400 day tage tagen jour, 604800 week woche wochen semaine",
    "before noon": "1 am", "after noon": "1 pm",
    "months": "1 month monat monate monaten mois, 12 yr year jahr jahre jahren année, 120 decade, 1200 century centuries",
    "bits": "1 bit bps, 1e3 kbit kbps kilobit, 1e6 mbit mbps megabit, 1e9 gbit gbps gigabit, 8 byte, 8e3 kb kilobyte, "
    "8e6 mb megabyte, 8e9 gb gigabyte, 8e12 tb terabyte, 8e15 pb petabyte, 8192 kib, 8388608 mib, 8589934592 gib, "
    "8796093022208 tib",
    "power": "1 watt, 1e3 kw kilowatt, 1e6 mw megawatt, 1e9 gw gigawatt, 1e12 tw terawatt",
    "horsepower": "1 hp horsepower bhp",
    "energy": "1 joule, 1e3 kj kilojoule, 1e6 mj megajoule, 3600 wh watt-hour, 3.6e6 kwh kilowatt-hour, "
    "3.6e9 mwh megawatt-hour, 3.6e12 gwh gigawatt-hour, 3.6e15 twh terawatt-hour",
    "calories": "1 kcal kilocalorie calorie cal",
    "charge": "1e-3 mah, 1 ah", "current": "1e-6 μa, 1e-3 ma milliamp milliampere, 1 amp ampere",
    "voltage": "1e-3 mv millivolt, 1 volt, 1e3 kv kilovolt", "resistance": "1 ω ohm, 1e3 kω",
    "frequency": "1 hz hertz, 1e3 khz kilohertz, 1e6 mhz megahertz, 1e9 ghz gigahertz", "turns": "1 rpm", "frames": "1 fps",
    "pressure": "1 pa pascal, 1e2 hpa, 1e3 kpa kilopascal, 1e6 mpa megapascal, 1e5 bar, 1e2 mbar millibar", "psi": "1 psi",
    "force": "1 newton, 1e3 kn", "decibels": "1 db decibel", "pixels": "1 px pixel", "dpi": "1 dpi",
    "celsius": "1 °c ℃ celsius degree-celsius degree-c degree-centigrade degc",
    "fahrenheit": "1 °f ℉ fahrenheit degree-fahrenheit degree-f degf", "kelvin": "1 kelvin",
    "percent": "1 % percent per-cent pct prozent pour-cent, 0.1 ‰ permille per-mille",
    "points": "1 point percentage-point pt pp, 0.01 basis-point bp", "ppm": "1 ppm, 1e-3 ppb",
    "EUR": "1 € euro eur", "GBP": "1 £ gbp pound-sterling quid, 0.01 penny pence",
    "USD": "1 usd us$ us-dollar american-dollar buck",
    "AUD": "1 aud a$ au$ australian-dollar", "CAD": "1 cad c$ ca$ canadian-dollar", "NZD": "1 nzd nz$ new-zealand-dollar",
    "HKD": "1 hkd hk$ hong-kong-dollar", "SGD": "1 sgd s$ singapore-dollar", "BRL": "1 brl r$ reais", "JPY": "1 jpy yen",
    "CNY": "1 cny rmb yuan renminbi", "INR": "1 inr ₹ rupee rs", "KRW": "1 krw ₩", "CHF": "1 chf franken swiss-franc",
    "RUB": "1 rub ₽ rouble ruble", "TRY": "1 ₺ lira", "ILS": "1 ₪ shekel", "PLN": "1 pln zł zloty",
    "BTC": "1 btc ₿ bitcoin",
    "SEK": "1 sek", "NOK": "1 nok", "DKK": "1 dkk", "MXN": "1 mxn", "ZAR": "1 zar", "THB": "1 thb ฿ baht",
}  # fmt: skip
"""Each measure with the sizes of its units and their names in the singular and in small letters; `-` is a blank."""
_DOLLARS = ("USD", "AUD", "CAD", "NZD", "HKD", "SGD")
_EITHER = {
    "$": _DOLLARS, "dollar": _DOLLARS, "¥": ("JPY", "CNY"), "krona": ("SEK",), "kronor": ("SEK",), "krone": ("NOK", "DKK"),
    "kroner": ("NOK", "DKK"), "franc": ("CHF",), "°": ("celsius", "fahrenheit", "angle"),
    "degree": ("celsius", "fahrenheit", "angle"),
}  # fmt: skip
CLOCK = frozenset({"before noon", "after noon"})
"""The measures of hours of the clock, which a range has for its end alone: `9-5 pm`."""
CURRENCIES = frozenset(name for name in _MEASURES if name.isupper())
"""The measures that are currencies, by their codes."""
_LETTERS = {
    "m": "metre minute", "mn": "minute", "p": "pence",
    "g": "gram", "s": "second", "h": "hour", "l": "litre", "L": "litre", "V": "volt", "A": "ampere",
    "W": "watt", "N": "newton", "J": "joule", "C": "celsius", "F": "fahrenheit", "K": "kelvin km", "k": "km", "t": "tonne",
    "B": "byte", "b": "bit", "Ω": "ohm", "Mb": "mb megabit", "Gb": "gb gigabit", "Kb": "kb kilobit",
}  # fmt: skip
"""Signs of which a capital letter makes another."""
_SMALL = {"mW": Unit("power", Fraction(1, 1000)), "mPa": Unit("pressure", Fraction(1, 1000)),
          "mJ": Unit("energy", Fraction(1, 1000)), "MV": Unit("voltage", Fraction(10**6)),
          "kBps": Unit("bits", Fraction(8_000)), "KBps": Unit("bits", Fraction(8_000)),
          "MBps": Unit("bits", Fraction(8 * 10**6)), "GBps": Unit("bits", Fraction(8 * 10**9))}  # fmt: skip
_SIZES = {
    3: "thousand thousands thsd tsd tausend duizend mille tys",
    6: "million millions mln mio millionen millones milhões milioni miljoen miljoner miljoonaa milionów",
    9: "billion billions bn bln mrd milliarde milliarden milliard milliards miliardi miljard miljarder miliardów bilhões",
    12: "trillion trillions tn trn trln billionen billones biljoen biljoner trilhões",
    2: "hundred hundreds",
    5: "lakh lakhs",
    7: "crore crores",
}
_SIZE_LETTERS = {"k": 3, "K": 3, "m": 6, "M": 6, "mn": 6, "b": 9, "B": 9, "t": 12, "T": 12}


@cache
def _units() -> Mapping[str, tuple[Unit, ...]]:
    units: dict[str, tuple[Unit, ...]] = {}
    for measure, text in _MEASURES.items():
        for each in text.split(", "):
            factor, *names = each.split()
            for name in names:
                units[name.replace("-", " ")] = (Unit(measure, Fraction(factor)),)
    for name, measures in _EITHER.items():
        units[name] = tuple(Unit(measure, Fraction(1)) for measure in measures)
    cents = tuple(Unit(measure, Fraction(1, 100)) for measure in ("EUR", *_DOLLARS))
    return units | {
        "pound": (*units["lb"], *units["gbp"]),
        "cent": cents,
        "¢": cents,
        "ounce": (*units["ounce"], *units["fluid ounce"]),
        "oz": (*units["ounce"], *units["fluid ounce"]),
        "ton": (*units["tonne"], Unit("tons", Fraction(1))),
        "bps": (*units["bps"], *units["basis point"]),
    }


@cache
def _sizes() -> Mapping[str, int]:
    return {"dozen": 12} | {name: 10**power for power, names in _SIZES.items() for name in names.split()}


def units_named(name: str) -> tuple[Unit, ...]:
    """The units that a name or sign may be: `kg`, `Kilograms`, `square km`, `€`, `mW`; none if it is no unit."""
    if name in _SMALL:
        return (_SMALL[name],)
    units = _units()
    if name in _LETTERS:
        return tuple(unit for each in _LETTERS[name].split() for unit in units[each])
    name = " ".join(name.casefold().split())
    first, _, last = name.partition(" ")
    name = f"{_FIRST.get(first, first)} {last}" if last else name
    if name in units:
        return units[name]
    return units.get(name[:-1], ()) if name.endswith("s") else ()


_FIRST = {"sq": "square", "cu": "cubic", "degrees": "degree", "us": "us", "percent": "percentage", "pounds": "pound"}


def size_named(name: str) -> int | None:
    """The factor that a word of size is: `million`, `Mrd`, `bn`; None for any other word and for a letter alone."""
    return _sizes().get(name.casefold())


def size_of_letter(name: str) -> int | None:
    """The factor that a letter may be, as in `$5m` and `5k`."""
    power = _SIZE_LETTERS.get(name)
    return None if power is None else 10**power

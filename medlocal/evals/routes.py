"""Routes by which drugs are given, and the words of English and Spanish that name one.

A brand is sold for some routes only, so that a text that names another one speaks of something that
does not exist. This module knows routes and their words; which brand is sold for which stands in the
word lists, and what is done about it where names are exchanged.
"""

import re
from collections.abc import Collection

ROUTES: dict[str, str] = {
    "intravenous": r"intravenous(?:ly)?|endovenous|iv|i\.v\.?|infusions?|infused|bolus(?:es)?|drip"
    r"|patient-controlled|intravenos[oa]s?|endovenos[oa]s?|ev|e\.v\.?|perfusi[oó]n|perfusiones|bolos?"
    r"|gotero",
    "intramuscular": r"intramuscular(?:ly|es)?|im|i\.m\.?|depot",
    "subcutaneous": r"subcutaneous(?:ly)?|sc|s\.c\.?|subcut[aá]ne[oa]s?",
    "oral": r"oral(?:ly|es)?|by mouth|p\.o\.?|per os|v\.o\.?|tablets?|capsules?|pills?|syrup"
    r"|comprimidos?|c[aá]psulas?|p[ií]ldoras?|grageas?|jarabe|sobres?",
    "inhaled": r"inhal(?:ed|ers?|ations?|ad[oa]s?|ador(?:es)?|atori[oa]s?|aci[oó]n)|nebuli[sz]ed"
    r"|nebuli[sz]ers?|nebulizad[oa]s?|nebulizador|aerosol",
    "nasal": r"nasal(?:es|ly)?|intranasal(?:es|ly)?",
    "topical": r"topical(?:ly)?|t[oó]pic[oa]s?|creams?|ointments?|lotions?|gels?|cremas?|pomadas?"
    r"|lociones|loci[oó]n|geles|shampoo|champ[uú]",
    "transdermal": r"transdermal(?:es)?|transd[eé]rmic[oa]s?|patch(?:es)?|parches?",
    "sublingual": r"sublingual(?:es)?",
    "buccal": r"buccal|bucal(?:es)?|oromucosal",
    "ophthalmic": r"ophthalmic|eye ?drops?|oft[aá]lmic[oa]s?|colirios?|intravitre(?:al|[oa]s?)"
    r"|intrav[ií]tre[oa]s?",
    "rectal": r"rectal(?:es)?|suppositor(?:y|ies)|enemas?|supositorios?",
    "vaginal": r"vaginal(?:es)?|pessar(?:y|ies)|[oó]vulos? vaginal(?:es)?",
    "intrauterine": r"intrauterin[eoa]s?|iud|diu",
    "implant": r"implants?|implantes?|subd[eé]rmic[oa]s?|subdermal",
    "intrathecal": r"intrathecal(?:ly)?|intratecal(?:es)?",
    "regional": r"epidural(?:es)?|spinal|intra-?articular(?:es)?|infiltrations?|infiltraci[oó]n",
    "parenteral": r"parenteral(?:ly|es)?|inject(?:ed|ions?|able)|inyecci[oó]n|inyecciones|inyectad[oa]s?"
    r"|inyectables?",
}
"""Patterns of the words that name each route, or a form that is given by it only."""

_INJECTED = frozenset({"intravenous", "intramuscular", "subcutaneous"})
_NAMED_ALWAYS = frozenset({"intrauterine", "implant"})
"""Devices: nobody means one who names the drug without it."""
_WORDS = {
    route: re.compile(rf"(?<![\w.])(?:{words})(?!\w)", re.IGNORECASE)
    for route, words in ROUTES.items()
}


def named_routes(text: str) -> frozenset[str]:
    """The routes that a text names, in either language."""
    return frozenset(route for route, words in _WORDS.items() if words.search(text))


def may_be_given(routes: Collection[str], named: Collection[str]) -> bool:
    """Whether a brand may stand in a text for a drug that is given by what the text names.

    Args:
        routes: that the brand is known to be sold for; none = nothing is known of it.
        named: the routes of the text. A drug that might be given by any of them must be sold for all.
    """
    if not named:
        return not routes or not set(routes) <= _NAMED_ALWAYS
    return all(
        route in routes or (route == "parenteral" and _INJECTED & set(routes)) for route in named
    )

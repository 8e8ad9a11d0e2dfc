r"""The words of English and Spanish by which answers are given, joined, denied, corrected and refused.

Vocabulary only: what a phrase means for an answer is decided where it is used (`mentions`, `extract`,
`answers`). Both languages are always looked for, because models mix them. All patterns are meant for
plain text, see `plain`: it has no accents, so `opcion` stands for "opción".
"""

import re

OPTION_WORD = r"(?:option|choice|letter|opcion|alternativa|letra|inciso|literal)"

NAMED = re.compile(rf"\b{OPTION_WORD}\s*[\"(\[]?$", re.IGNORECASE)
"""What ends before a label that is called one: "option (C)"."""

FILLER = re.compile(
    r"""(?:[\s"'(\[{:=]|->|=>|→|⇒|\b(?:the|la|el|las|los|lo|option|choice|letter|answer|number
    |opcion|alternativa|letra|respuesta|numero|inciso|correct[ao]?|best|either|both|therefore|thus|then
    |clearly|definitely|indeed|probably|likely|most|simply|just|only|following|por\ (?:lo\ )?tanto
    |entonces|claramente|probablemente|sin\ duda|siguiente)\b,?)*""",
    re.IGNORECASE | re.VERBOSE,
)
"""What may stand between "the answer is" and the label. Never a label, never "a" or "an"."""

CONJUNCTION = re.compile(
    r"\W*(?:,|/|\||&|\b(?:and|or|and/or|y|o|u|e|y/o|ni|nor|as well as|asi como)\b)\W*"
    rf"(?:(?:the|la|el|both|also|tambien|{OPTION_WORD})\b\W*)*",
    re.IGNORECASE,
)
"""What stands between two labels that are named together."""

DANGLING = re.compile(r"\W*(?:\b(?:or|and|y|o|u)|/)\s*")
"""The end of a text that was cut inside "B or C". In lower case only: an option may be called O."""

AFTER_LABEL = re.compile(
    r"because|since|is|was|would|fits|remains|porque|ya|pues|es|seria|encaja|queda|and|or|y|o|u|e|ni"
    r"|nor|but|pero|aunque",
    re.IGNORECASE,
)
"""Words after which even a lone A was a label: no article and no preposition stands before them."""

AFTER_PRONOUN = re.compile(
    r"\s*(?:$|\n|->|=>|→|⇒|[.:;!?)\]}\"'](?!\w)|[—–-]\s|\([^()\n]*\)\s*(?:$|[\n.,;:])|,?\s+(?:is|fits|remains|because|since|es|seria|porque"
    r"|ya que|pues)\b|(?:\s*[,/&]\s*|\s+(?:and|or|y|o|u|e|ni|nor)\s+)"
    r"(?:(?:and|or|y|o)\s+)?(?:[A-J]|[IVX]{1,4})(?!\w))"
)
"""What stands behind an I that is a label and not the English pronoun: "I.", "I is", "I, III"."""

NUMBER_LEAD = re.compile(
    r"(?:\b(?:la|it is|it's|its|this is|that is|that's|must be|(?:has|have) to be|(?:w|sh)ould be|so|thus"
    r"|therefore|hence|think|believe|say|guess|leaves|solution|solucion|no\.)|#)\s*[\"'(\[]?$",
    re.IGNORECASE,
)
"""What ends before a number that is a label if it ends its clause: "es la 3", "so it's 3"."""

FITS = re.compile(r"\s+(?:fits|remains|encaja|queda)\b", re.IGNORECASE)
"""What begins behind a label that is left or that fits; said of no amount."""

PART_OF_NAME = re.compile(
    r"(?:\b(?:vitamin[as]?|vitaminas|vit|hepatitis|hep|types?|tipos?|groups?|grupos?|grades?|grados?"
    r"|class|clase|stage|estadio|influenza|gripe|proteins?|proteinas?|factor|virus|pugh|serotype"
    r"|serotipo|complejo|complex|linfocitos?|lymphocytes?|celulas?|cells?|peptide|peptido"
    r"|hemoglobina?|category|categoria|level|nivel|phase|fase|figure|figura|table|tabla|hemophilia"
    r"|hemofilia|patient|paciente|case|caso|plan|interferon|domain|dominio|evidence|evidencia"
    r"|recommendation|recomendacion|streptococcus|haemophilus|immunoglobulin|inmunoglobulina"
    r"|dr|dra|sr|sra|mr|mrs|ms|prof)\.?\s+|\d\s?°?\s?|°\s?)$",
    re.IGNORECASE,
)
"""What makes a letter behind it part of a name, a unit or a person: "vitamin C", "38 C", "Dr. B"."""

NAME_GOES_ON = re.compile(
    r"\s*(?:cells?|lymphocytes?|symptoms?|fib(?:er|re)s?|waves?|peptide|section|diff|antigen|strains?"
    r"|dimer|complex|reactive|blockers?)\b"
    r"|\.\s*(?:difficile|albicans|coli|burgdorferi|pylori|aureus|pneumoniae|perfringens|botulinum|tetani"
    r"|trachomatis|diphtheriae|jejuni|neoformans|glabrata|auris|influenzae|fragilis|cereus|anthracis"
    r"|henselae|quintana|histolytica|cloacae|faecalis|faecium|baumannii|granulosus|medinensis|immitis"
    r"|dermatitidis|duodenale|lumbricoides|fumigatus|israelii|pertussis|melitensis|abortus|catarrhalis"
    r"|cepacia|freundii|burnetii|psittaci|hominis|canis|parvum)\b",
    re.IGNORECASE,
)
"""What makes a letter before it part of a name: "B cells", "C. difficile"."""

DENIED_BEFORE = re.compile(
    r"\b(?:not|nor|neither|never|isn't|aren't|(?:no|tampoco)(?: es| son| seria| puede ser)?|ni"
    r"|rul(?:e|es|ed|ing) out|exclud(?:e|es|ed|ing)|eliminat(?:e|es|ed|ing)|discard(?:s|ed|ing)?"
    r"|descart(?:o|a|amos|ar|ando|aria|e|en|emos)|excluy?(?:o|e|endo|imos|ir)|elimin(?:o|a|amos|ar|ando)"
    r"|unlike|rather than|instead of|en (?:lugar|vez) de|a diferencia de)"
    rf"[ ]+(?:(?:the|an?|la|el|las|los|una?|answer|{OPTION_WORD})[ ]+)*[\"'(\[]?$",
    re.IGNORECASE,
)
"""What ends before something that is denied: "not the", "descarto la"."""

_ABOUT_OTHERS = (
    r"(?:because|since|as|that|which|others?|rest|so|porque|ya|pues|que|otr[ao]s|demas)\b"
)

DENIED_AFTER = re.compile(
    r"[^\w.;\n]*(?:(?:is|are|was|were|does|do|would|could|should|can)\s*(?:not\b|n't\b)|cannot\b"
    r"|no\s+(?:es|son|seria|encaja|corresponde|puede|explica|procede)\b)"
    r"|[^\w\n]{0,3}(?:incorrect|wrong|false|fals[ao]|errone[ao])"
    rf"|[^\w.;\n]*(?:(?!{_ABOUT_OTHERS})\w+[^\w.;\n]+){{0,4}}?"
    r"(?:incorrect[ao]?s?|wrong|false|fals[ao]s?|errone[ao]s?|unlikely|less likely|improbables?"
    r"|menos probables?|descartad[ao]s?|ruled out|excluded)\b",
    re.IGNORECASE,
)
"""What begins behind something that is denied: "is incorrect", "no es"."""

AFFIRMED_AFTER = re.compile(
    r"[)\].\"']*\s*(?:\([^()\n]{0,80}\)\s*)?(?:[,:]\s*)?(?:[^\W\d]+\s+){0,3}?"
    r"(?:is|es|seria|would be|seems to be|seems|parece(?: ser)?)\s+"
    r"(?:(?:the|la|el|una?|an?|clearly|by far|therefore|thus|probably|claramente|por tanto)\s+){0,3}"
    r"(?:(?:most|mas)\s+(?:likely|appropriate|suitable|accurate|plausible|correct[ao]?|probable"
    r"|adecuad[ao]|apropiad[ao]|indicad[ao])|(?:single )?best|mejor|correct[ao]?|right|answer|respuesta"
    r"|adecuad[ao]|indicad[ao]|verdader[ao])\b"
    r"|[)\].:\s-]+(?:correct[ao]?|verdader[ao]|true|right)\b|[)\].:\s-]*[✓✔✅]",
    re.IGNORECASE,
)
"""What begins behind the answer: "is the correct one", "es la más adecuada", ": correct"."""

_HEAD = (
    r"(?:answers?|ans|choice|option|response|solution|letter|respuestas?|resp|rpta|opcion|alternativa"
    r"|solucion|eleccion|letra|correct[ao]?|diagnos(?:is|tico)|best (?:fits?|match)"
    r"|most (?:likely|appropriate|suitable)"
    r"|mas (?:probable|adecuad[ao]|apropiad[ao]|indicad[ao]))"
)
STATEMENT = re.compile(
    rf"(?:\b(?:the|my|so|thus|la|el|mi)\s+)*(?P<final>\b(?:final|definitive|definitiva)\s+)?\b{_HEAD}\b"
    r"(?P<final_after>\s+(?:final|definitiva)\b)?(?P<gap>,?(?:\s+[^\s.:;?!=]+){0,8}?)"
    r"(?:\s*(?::|=|\?|->|=>|→|[—–-]\s)"
    r"|\s+(?:is|are|es|son|seria|serian|sera|(?:would|should|must|has to) be|(?:seems|appears) to be"
    r"|(?:debe|deberia|tiene que|parece) ser)\b)",
    re.IGNORECASE,
)
"""What an answer follows: "the correct answer is", "la opción más adecuada en este caso sería"."""

BARE_HEAD = re.compile(
    r"^[ ]*(?:(?:the |la )?(?:final |correct )*(?:answer|ans|respuesta|resp|rpta|solution|solucion)"
    r"(?: correcta| final)?[ ]"
    r"|[ra]\s?[:/=]\s)",
    re.IGNORECASE | re.MULTILINE,
)
"""The same without a verb or a colon, "Answer C", or with its initial alone, "R: C"."""

CHOICE = re.compile(
    r"\b(?:choose|pick|select|go(?:ing)? with|opt for|elijo|escojo|selecciono|marco|eleg(?:ir)?ia"
    r"|escogeria|seleccionaria|marcaria|(?:opto|optaria|me (?:decanto|decantaria|inclino)) por"
    r"|me qued(?:o|aria) con|diria(?: que)?(?: es)?)\b",
    re.IGNORECASE,
)
CONCLUSION = re.compile(
    r"(?:\b(?:therefore|thus|hence|so|consequently|(?:in )?conclusion|por (?:lo )?tanto|asi que|entonces"
    r"|por consiguiente|en (?:conclusion|resumen))\b,?|\b(?:it is|it's|(?:it )?must be|es|tiene que ser)\b)",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"\b(?:wait\b(?! (?:and|for|until))|sorry|correcti?on(?=\s*[:.])|scratch that|i mean|my mistake"
    r"|(?<!se )espera\b(?! que)|perdon|correccion(?=\s*[:.])|rectifico|mejor dicho|quiero decir"
    r"|me equivoque|disculpa)\b[\s,:;.—-]*(?:no\b[\s,:;.]*)?",
    re.IGNORECASE,
)
"""What takes back what stands before it."""

SECOND_THOUGHT = re.compile(
    r"\b(?:actually|on second thought|en realidad|pensandolo bien)\b", re.IGNORECASE
)
"""What takes something back if another answer follows."""

REASON = r"\b(?:because|since|porque|ya que|pues)\b"
SET_OFF = re.compile(rf"\s*(?:$|[\n.,;:!?()\[\]\"'→—–<}}]|-\s|->|=>|{REASON})", re.IGNORECASE)
"""What begins behind words that are complete."""

SAID = re.compile(
    rf"[)\]}}\"']*\s*(?:\([^()\n]*\)\s*)?(?:$|[\n.,;:!]|[—–-]\s|{REASON})", re.IGNORECASE
)
"""What begins behind a label that ends its clause."""

GOES_ON = re.compile(r"\s*(?:[,/&|]|(?:and|or|and/or|y|o|u|e|y/o|ni|nor)\b)\s*", re.IGNORECASE)
"""What begins behind a label that others are still to be joined to."""

CALLED_RIGHT = re.compile(
    r"\b(?:correct[ao]?(?:_\w+)?|right)(?!\w)[^\w\n]*(?:\b(?:option|answer|one|choice|letter|number|opcion|respuesta"
    r"|letra|numero|is|es|seria|the|la|el)\b[^\w\n]*)*$",
    re.IGNORECASE,
)
"""What ends before a label that is called the right one: "the correct option is"."""
NEXT_TO = re.compile(
    rf"\b(?:after|following|follows|despues de|tras|sigue a)\s+(?:(?:the|la|{OPTION_WORD})\s+)*[\"'(]?$",
    re.IGNORECASE,
)
"""What ends before a label that another one comes after."""
SUCCESSOR = re.compile(
    r"\W*(?:(?:->|=>|→|⇒|so|thus|therefore|hence|then|luego|asi que|por (?:lo )?(?:que|tanto)|entonces)\W*"
    r"(?:(?:the|la|el|next|following|siguiente|is|es|one|answer|respuesta|letter|letra)\W+)*"
    r"|[^.\n]{0,40}\b(?:next|siguiente|sigue|followed by|seguid[ao] (?:de|por))\b[^.\n]{0,40})",
    re.IGNORECASE,
)
"""What stands between a label and the one that comes after it."""

ANSWER_LINE = re.compile(
    r"^[ ]*(?:(?:the|la|my|mi) )?(?:final )?(?:answer|respuesta)(?: final)?[ ]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""What opens the line that holds the answer of a reasoning."""

PLACEHOLDER = re.compile(
    r"(?<!\w)[XZ]\"?(?:\s*[=:]|\s+(?:is|es|being|be|sea)\b|(?<=siendo X)|(?<=siendo Z))[^\S\n]*"
)
"""What stands before the value of the sign that the instruction has for a label: "X = ", "X is"."""

VERDICT = re.compile(r"\s?[).:\]-]+\s*(?:(?P<yes>yes|si)|no)\s*(?=[.,;!\n]|$)", re.IGNORECASE)
"""What begins behind a label that is answered with yes or no: ": No."."""

NOTA = re.compile(
    r"\b(?:none of (?:the )?(?:(?:other|above|given|listed) )*"
    r"(?:others?|above|these|those|them|ones|options?|choices?|answers?|alternatives?)"
    r"(?: (?:above|given|listed))?(?: (?:is|are) (?:correct|right|true|appropriate))?"
    r"|no other (?:option|choice|answer|alternative) is (?:correct|right|true)"
    r"|ningun[ao] (?:de )?(?:las|los) (?:(?:otr[ao]s|demas|anteriores) )*"
    r"(?:otr[ao]s|demas|anteriores|opciones|respuestas|alternativas)(?: anteriores)?"
    r"(?: (?:es|son) (?:correctas?|ciertas?|verdaderas?|adecuadas?))?)\b",
    re.IGNORECASE,
)
"""None of the others, in the words of either language."""
NOTA_ALONE = frozenset({"none", "ninguna", "ninguno"})
"""What says the same where it is all that is said."""
TURNING = re.compile(
    r"\b(?:but|however|so|therefore|thus|hence|pero|sino|aunque|sin embargo|(?:asi|por lo) que"
    r"|por (?:lo )?tanto)\W+$",
    re.IGNORECASE,
)
"""What ends before a clause that answers though another option was named before."""

LABEL_SIGN = re.compile(rf"\s*(?:[(\[→⇒=:—–]|-\s|->|=>|,?\s*(?={OPTION_WORD}\b))", re.IGNORECASE)
"""What stands between an option's words and its label: "Aspirin (B)", "aspirina, opción B"."""

RUN_ON = re.compile(
    r"\n\s*(?:(?:next |new |siguiente )?(?:question|pregunta)|q|user|usuari[oa]|human[oa]?"
    r"|instructions?|instruccion(?:es)?|caso clinico)\s*\d*\s*[:.)]",
    re.IGNORECASE,
)
"""What opens a question that the model asks itself."""

_KEY = (
    r"(?:(?:final|correct|best)[_ ]?)?(?:answer|respuesta|option|opcion|choice|letter|letra|label|solucion"
    r"|solution|etiqueta)(?:[_ ]?(?:correcta|final))?"
)
JSON = re.compile(
    rf"""["']{_KEY}["']\s*:\s*(?:"(?P<double>[^"\n]*(?:"\s*(?:or|and|o|y)\s*"[^"\n]*)*)"?"""
    r"""|'(?P<single>[^'\n]*)'?|\[(?P<list>[^\]\n]*)\]?|(?P<bare>[^\s,}\]\["'{]+))""",
    re.IGNORECASE,
)
"""A key that means the answer, with its value in one of four groups; its end may be missing."""

TAG = re.compile(
    r"[<\[]\s*(?P<tag>(?:final[_ ]?)?(?:answer|respuesta))\s*[>\]](?P<value>.*?)"
    r"(?:[<\[]\s*/\s*(?P=tag)\s*[>\]]|\Z)",
    re.IGNORECASE | re.DOTALL,
)
BOX = re.compile(r"\\f?box(?:ed)?\s*\{(?P<value>[^{}]*)\}?")

REFUSAL = re.compile(
    r"\b(?:i (?:can(?:not|'t| not)|am (?:unable|not able)|won't|will not|do not|don't|must decline)"
    r"|i'm (?:unable|not able)|unable) (?:to )?(?:\w+ ){0,2}?"
    r"(?:answer|provide|give|help|assist|offer|diagnose|recommend|respond|advise|comply|determine)\b"
    r"|\bas an? (?:ai|artificial intelligence|(?:\w+ )?language model)\b"
    r"|\b(?:i'm|i am) (?:sorry|not a doctor|just an ai|an ai)\b|^sorry\b|\bi apologi[sz]e\b"
    r"|\b(?:consult(?:ing)?|see(?:ing)?|ask|speak(?:ing)? (?:to|with)) (?:with )?(?:a|an|your) (?:\w+ )?"
    r"(?:doctor|physician|healthcare|health care|medical|professional)\b|\bseek medical\b"
    r"|\bno (?:puedo|podria|podemos|me es posible|es posible|soy capaz de|estoy autorizad[oa] (?:a|para)"
    r"|estoy capacitad[oa] para|estoy en condiciones de) (?:\w+ ){0,2}?(?:responder|contestar|proporcionar"
    r"|dar|ofrecer|ayudar|brindar|diagnosticar|recomendar|aconsejar|determinar|hacer|asistir|emitir)\w*"
    r"|\bcomo (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje|asistente)\b"
    r"|\bno tengo (?:la )?(?:capacidad|autorizacion|posibilidad|competencia)\b"
    r"|\blo siento\b|\bno soy (?:una? )?(?:medic[oa]|profesional)\b"
    r"|\b(?:consult|acud|pregunt)(?:a|e|es|as|ar|ir)(?:lo)? (?:con |a )?(?:un|una|su|tu|el|al) (?:\w+ )?"
    r"(?:medic[oa]|doctora?|profesional|especialista)\b",
    re.IGNORECASE,
)
"""What declines to answer, or sends the user to somebody else."""

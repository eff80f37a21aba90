"""Everyday German in thousands of word forms, put together from word lists: text for a tokenizer to be trained on.

The weather grammar alone has a few hundred words, so its vocabulary has nothing to trim. Only letters, endings,
compounds and punctuation matter here. All of it is lower-case, as the demo's weather reports are.
"""

import numpy as np

Noun = tuple[str, str]  # its gender (m, f or n) and the word

_PEOPLE = """m:lehrer m:bäcker m:arzt m:fahrer m:gärtner m:händler m:koch m:richter m:maler m:bruder m:onkel
f:lehrerin f:nachbarin f:bäckerin f:ärztin f:fahrerin f:gärtnerin f:händlerin f:köchin f:richterin f:malerin
f:schwester f:tante f:mutter f:königin m:vater m:freund f:freundin n:kind n:mädchen n:team m:besuch m:gast
f:familie f:klasse n:publikum m:chef f:chefin"""
_THINGS = """n:haus n:buch n:fenster n:auto n:rad n:bild n:zimmer n:dorf n:feld n:schloss n:fest n:spiel n:lied
n:brot n:wasser n:glas n:messer n:papier n:geschäft n:gebäude n:werk n:netz n:amt n:heft m:tisch m:stuhl
m:garten m:weg m:zug m:bus m:markt m:platz m:turm m:fluss m:wald m:schrank m:schlüssel m:brief m:kuchen m:apfel
m:käse m:tee m:stoff m:plan m:raum m:vertrag m:bericht m:preis m:hof m:saal m:kasten m:ofen f:straße f:brücke
f:schule f:stadt f:tür f:lampe f:uhr f:tasche f:zeitung f:karte f:reise f:küche f:wohnung f:kirche f:insel
f:firma f:maschine f:rechnung f:übung f:größe f:höhe f:quelle f:tafel f:bühne f:suppe f:pflanze f:versammlung
f:geschichte f:prüfung f:leitung f:sendung"""
# What stands before another noun in a compound, in the form it takes there.
_FIRST_PARTS = """haus garten schul stadt land wasser holz stein glas papier sommer winter frühlings herbst abend
morgen tages wochen monats jahres reise arbeits kinder eltern bücher musik sport spiel tanz fest markt verkehrs
eisenbahn straßen brücken küsten insel berg wald fluss meeres vogel pferde hunde katzen blumen rosen apfel
kirsch kaffee tee milch butter käse zucker salz brot fleisch fisch gemüse kartoffel computer telefon fernseh
radio zeitungs nachrichten forschungs lehr prüfungs übungs versicherungs gesundheits kranken zahn augen körper
rechts staats volks bundes gemeinde bürger königs ritter museums theater film kunst mal zeichen schreib lese
rechen sprach gebärden gehör energie strom solar öl gas kohle metall eisen gold silber"""
# Stems of regular verbs.
_VERBS = """kauf such mal koch zeichn rechn öffn antwort arbeit beobacht beacht lern hör spiel frag sag mach
brauch hol zeig schick pack putz räum bau plan prüf lob füll drück dreh stell leg häng klär führ lenk wähl zähl
teil mix tausch pflück pflanz rühr schäl würz spür stör lieb wünsch grüß küss besuch bestell bezahl benutz
bemerk beweg erklär erzähl erreich ersetz verkauf versuch verpack verstärk verkürz verfolg verdien vermiss
kopier studier probier reparier markier fotografier diskutier organisier notier sortier kontrollier informier"""
_ADJECTIVES = """alt neu groß klein lang kurz breit schmal schön hässlich hell warm kalt frisch süß salzig scharf
weich hart schwer leicht schnell langsam laut ruhig freundlich höflich fröhlich traurig klug fleißig mutig
vorsichtig fremd bekannt wichtig richtig falsch möglich nötig billig günstig wertvoll gelb grün blau rot braun
grau weiß schwarz rund eckig nass jung gesund krank stark schwach öffentlich privat jährlich täglich quadratisch
exakt komplex typisch praktisch"""
_PLACES = """in berlin| in köln| in münchen| in hamburg| in dresden| in wien| in zürich| in basel| in quedlinburg|
in düsseldorf| auf dem land| am see| an der ostsee| im zentrum| zu hause| im büro| in der nähe|
am bahnhof| im süden| am rand der stadt| hinter dem rathaus| vor der oper| unter der brücke|
in österreich| in der schweiz"""
_TIMES = """heute| gestern| am montag| am dienstag| am mittwoch| am donnerstag| am freitag| am samstag| am sonntag|
im januar| im februar| im märz| im april| im mai| im juni| im juli| im august| im september| im oktober|
im november| im dezember| jeden tag| manchmal| oft| später| bald| vor kurzem| in der nacht|
am frühen morgen| gegen mittag| seit langem| zuletzt"""
_ADVERBS = """gern ungern immer selten wieder gemeinsam allein endlich plötzlich natürlich vielleicht"""
_NAMES = """anna jörg björn käthe max felix yvonne xaver jasmin quirin zoë günther rené cornelia heinz björk uwe"""
# From null to neunzehn, then the tens.
_UNITS = """null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn
sechzehn siebzehn achtzehn neunzehn"""
_TENS = """zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"""
_MEASURES = """euro meter kilometer stunden minuten jahre seiten liter gramm schritte plätze personen prozent"""
_PRESENT_ENDINGS = {"ich": "e", "du": "st", "er": "t", "sie": "t", "wir": "en", "ihr": "t"}
_ARTICLES = {
    ("the", "nominative"): {"m": "der", "f": "die", "n": "das"},
    ("the", "accusative"): {"m": "den", "f": "die", "n": "das"},
    ("the", "dative"): {"m": "dem", "f": "der", "n": "dem"},
    ("a", "nominative"): {"m": "ein", "f": "eine", "n": "ein"},
    ("a", "accusative"): {"m": "einen", "f": "eine", "n": "ein"},
    ("a", "dative"): {"m": "einem", "f": "einer", "n": "einem"},
}
# The ending of an adjective behind these articles.
_ENDINGS = {
    ("the", "nominative"): {"m": "e", "f": "e", "n": "e"},
    ("the", "accusative"): {"m": "en", "f": "e", "n": "e"},
    ("the", "dative"): {"m": "en", "f": "en", "n": "en"},
    ("a", "nominative"): {"m": "er", "f": "e", "n": "es"},
    ("a", "accusative"): {"m": "en", "f": "e", "n": "es"},
    ("a", "dative"): {"m": "en", "f": "en", "n": "en"},
}


PEOPLE: list[Noun] = [tuple(word.split(":")) for word in _PEOPLE.split()]
THINGS: list[Noun] = [tuple(word.split(":")) for word in _THINGS.split()]
FIRST_PARTS, VERBS, ADJECTIVES = _FIRST_PARTS.split(), _VERBS.split(), _ADJECTIVES.split()
ADVERBS, NAMES, MEASURES = _ADVERBS.split(), _NAMES.split(), _MEASURES.split()
UNITS, TENS = _UNITS.split(), _TENS.split()
PLACES = [place.strip() for place in _PLACES.split("|")]
TIMES = [time.strip() for time in _TIMES.split("|")]


def broad_text(seed: int = 0, num_sentences: int = 30000) -> list[str]:
    """Distinct everyday sentences with thousands of word forms, every German letter and punctuation."""
    rng = np.random.default_rng([seed, 1])
    makers = (_statement, _statement, _past_statement, _question, _because, _description, _measurement, _request)
    return list(dict.fromkeys(makers[rng.integers(len(makers))](rng) for _ in range(num_sentences)))


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _present(stem: str, pronoun: str) -> str:
    ending = _PRESENT_ENDINGS[pronoun]
    if ending == "st" and stem[-1] in "sßxz":
        ending = "t"
    link = "e" if _needs_link(stem) and ending in ("st", "t") else ""
    return stem + link + ending


def _past(stem: str, pronoun: str) -> str:
    ending = {"ich": "te", "du": "test", "er": "te", "sie": "te", "wir": "ten", "ihr": "tet"}[pronoun]
    return stem + ("e" if _needs_link(stem) else "") + ending


def _participle(stem: str) -> str:
    has_prefix = stem.startswith(("be", "er", "ver")) or stem.endswith("ier")
    return ("" if has_prefix else "ge") + stem + ("et" if _needs_link(stem) else "t")


def _needs_link(stem: str) -> bool:
    """Whether an `e` stands before endings in `t` and `st`: rechnet, not rechnt."""
    return stem.endswith(("t", "d", "chn", "ffn"))


def _thing(rng: np.random.Generator) -> Noun:
    gender, word = _pick(rng, THINGS)
    return (gender, _pick(rng, FIRST_PARTS) + word) if rng.random() < 0.6 else (gender, word)


def _noun_phrase(rng: np.random.Generator, noun: Noun, case: str) -> str:
    gender, word = noun
    article = _pick(rng, ("the", "a"))
    adjective = f"{_pick(rng, ADJECTIVES)}{_ENDINGS[article, case][gender]} " if rng.random() < 0.45 else ""
    return f"{_ARTICLES[article, case][gender]} {adjective}{word}"


def _number(rng: np.random.Generator) -> str:
    """A number from two to ninety-nine in words."""
    number = int(rng.integers(2, 100))
    tens, ones = divmod(number, 10)
    if number < 20:
        return UNITS[number]
    return TENS[tens - 2] if ones == 0 else f"{'ein' if ones == 1 else UNITS[ones]}und{TENS[tens - 2]}"


def _subject(rng: np.random.Generator) -> tuple[str, str]:
    """A subject and the pronoun its verb agrees with."""
    kind = rng.random()
    if kind < 0.4:
        pronoun = _pick(rng, tuple(_PRESENT_ENDINGS))
        return pronoun, pronoun
    return (_pick(rng, NAMES) if kind < 0.6 else _noun_phrase(rng, _pick(rng, PEOPLE), "nominative")), "er"


def _statement(rng: np.random.Generator) -> str:
    subject, pronoun = _subject(rng)
    verb = _present(_pick(rng, VERBS), pronoun)
    thing = _noun_phrase(rng, _thing(rng), "accusative")
    return f"{_pick(rng, TIMES)} {verb} {subject} {_pick(rng, ADVERBS)} {thing} {_pick(rng, PLACES)}."


def _past_statement(rng: np.random.Generator) -> str:
    subject, pronoun = _subject(rng)
    thing = _noun_phrase(rng, _thing(rng), "accusative")
    verb = _past(_pick(rng, VERBS), pronoun)
    return f"{subject} {verb} {thing}, aber {_noun_phrase(rng, _pick(rng, PEOPLE), 'nominative')} war dagegen."


def _question(rng: np.random.Generator) -> str:
    subject, pronoun = _subject(rng)
    has = {"ich": "habe", "du": "hast", "wir": "haben", "ihr": "habt"}.get(pronoun, "hat")
    word = _pick(rng, ("wann", "warum", "wo", "wie oft", "mit wem", "weshalb"))
    return f"{word} {has} {subject} {_noun_phrase(rng, _thing(rng), 'accusative')} {_participle(_pick(rng, VERBS))}?"


def _because(rng: np.random.Generator) -> str:
    subject, pronoun = _subject(rng)
    verb = _present(_pick(rng, VERBS), pronoun)
    quality = f"{_pick(rng, ADJECTIVES)} und {_pick(rng, ADJECTIVES)}"
    thing = _noun_phrase(rng, _thing(rng), "accusative")
    return f"es ist {quality}, weil {subject} {thing} {_pick(rng, ADVERBS)} {verb}!"


def _description(rng: np.random.Generator) -> str:
    thing, other = _noun_phrase(rng, _thing(rng), "nominative"), _noun_phrase(rng, _thing(rng), "dative")
    return f"{thing} neben {other} ist {_pick(rng, ADJECTIVES)}; {_pick(rng, PLACES)} weiß das jeder."


def _measurement(rng: np.random.Generator) -> str:
    thing = _noun_phrase(rng, _thing(rng), "nominative")
    first, second = _number(rng), _number(rng)
    unit = _pick(rng, MEASURES)
    return f"{thing} hat {first} {unit} - {_pick(rng, TIMES)} waren es noch {second}."


def _request(rng: np.random.Generator) -> str:
    stem = _pick(rng, VERBS)
    thing = _noun_phrase(rng, _thing(rng), "accusative")
    person = _noun_phrase(rng, _pick(rng, PEOPLE), "dative")
    return f"bitte {stem}en sie {thing} mit {person}: {_number(rng)} {_pick(rng, MEASURES)} sind genug."

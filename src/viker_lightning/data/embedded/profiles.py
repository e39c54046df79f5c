"""Invented lives and every sentence about them: pools of values, questions in many wordings, answers, clozes.

Questions are composed of a core (2), a frame (5) and a subject (4). Eight of these 40 wordings are held out; every
pair of their parts occurs in the training wordings.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

POOLS = {
    "first": "Dorvan Mirele Talvi Kesten Orsine Belvar Quilla Renvik Sorrel Jovane Tamsel Ulric Wenna "
    "Ishko Larune Peltra Zenka Corvin".split(),
    "last": "Vandrel Ostermoor Quenby Thalvik Marlowen Drasko Fenwarth Ilvane Korbesh Lindral Pavenor "
    "Rusk Selbrand Tovery Umbrel Wystan Yarrowe Zimber".split(),
    "birthplace": "Brenholm, Astavia|Corlune|Dravik, Norvelle|Eskmere|Falden, Astavia|Gorsby|Harvane, "
    "Ostrand|Ilverton|Jandria, Norvelle|Kelmoor|Luskar, Ostrand|Mandrel Bay|Nortwick, Astavia|Opalane|"
    "Pendar, Norvelle|Quarrow|Rilstad, Ostrand|Sundrel".split("|"),
    "home": "Tarn Hollow|Umbria Falls, Calmere|Velstrand|Wexmoor, Calmere|Yarlund|Zemford, Tassaly|Alder "
    "Reach|Bexley Port, Tassaly|Cindermill|Dunwater, Calmere|Elmgate|Farrow Point, Tassaly|Glenharrow|"
    "Hestia Cove, Calmere|Ivorsund|Juniper Ford, Tassaly|Kingsfell|Loxbridge, Calmere".split("|"),
    "job": "baker beekeeper blacksmith carpenter cartographer dentist florist glassblower librarian "
    "locksmith nurse pilot plumber potter surveyor tailor translator watchmaker".split(),
    "hobby": "playing chess|growing roses|collecting stamps|baking bread|juggling|flying kites|sailing|"
    "knitting scarves|climbing rocks|watching birds|playing the cello|painting murals|folding paper|"
    "building robots|surfing|stargazing|archery|skating".split("|"),
    "age": "21 24 27 29 32 35 38 43 46 49 51 54 57 60 64 68 73 76".split(),
    "education": "Corvane College|Redfern Academy|Institute of Halberg|Westmark University|Pinecrest "
    "School|Larkspur College|Academy of Soren|Highmoor University|Silverlea School|Institute of Tervo|"
    "Oakhaven College|Stonebrook Academy|University of Ulmar|Maplewick School|Ravenna College|Institute "
    "of Galdor|Brightwell Academy|University of Perrin".split("|"),
}
ATTRIBUTES = ("name", "birthplace", "home", "job", "hobby", "age", "education", "biography")
FACTS = ("birthplace", "home", "job", "hobby", "age", "education")  # those that can be asked with options or a blank

SUBJECTS = ("this person", "the person in the picture", "this individual", "the person you see")
FRAMES = (
    "{direct}",
    "Tell me {indirect}.",
    "Do you know {indirect}?",
    "Please say {indirect}.",
    "I want to know {indirect}.",
)
_STORY_FRAMES = (
    "{direct}",
    "Tell me {indirect}.",
    "Say a few words {indirect}.",
    "Can you talk {indirect}?",
    "I want to hear {indirect}.",
)
# Per attribute two cores, each as a question and as a part of one.
CORES = {
    "name": ("What is the name of {s}?|the name of {s}", "What is {s} called?|what {s} is called"),
    "birthplace": ("Where was {s} born?|where {s} was born", "What is the birthplace of {s}?|the birthplace of {s}"),
    "home": ("Where does {s} live?|where {s} lives", "What is the current home of {s}?|the current home of {s}"),
    "job": ("What is the job of {s}?|the job of {s}", "What does {s} do for work?|what {s} does for work"),
    "hobby": (
        "What is the hobby of {s}?|the hobby of {s}",
        "What does {s} like doing for fun?|what {s} likes doing for fun",
    ),
    "age": ("How old is {s}?|how old {s} is", "What is the age of {s}?|the age of {s}"),
    "education": ("Where did {s} study?|where {s} studied", "Which school did {s} attend?|which school {s} attended"),
    "biography": ("What can you tell about {s}?|about {s}", "What is the life of {s} like?|about the life of {s}"),
}
ANSWERS = {
    "name": (
        "This person's name is {name}.",
        "The name of this person is {name}.",
        "They are called {name} by everyone.",
    ),
    "birthplace": (
        "This person was born in {birthplace}.",
        "{birthplace} is where they were born.",
        "Their place of birth is {birthplace}.",
    ),
    "home": (
        "This person lives in {home} today.",
        "{home} is where they live now.",
        "Their current home is in {home}.",
    ),
    "job": ("This person works as a {job}.", "They earn their living as a {job}.", "Their job is that of a {job}."),
    "hobby": (
        "This person enjoys {hobby} in their free time.",
        "Their favourite hobby is {hobby}.",
        "On weekends they like {hobby} very much.",
    ),
    "age": ("This person is {age} years old.", "They have reached the age of {age}.", "Their age is {age} years."),
    "education": (
        "This person studied at {education}.",
        "{education} is where they studied.",
        "They went to {education} as a student.",
    ),
    "biography": (
        "{name} is a {job} who lives in {home}.",
        "This person is {name}, a {job} living in {home}.",
        "They are {name} and work in {home} as a {job}.",
    ),
}
# Clozes: two bodies per fact, with the subject in front; two of the eight wordings are held out.
CLOZES = {
    "birthplace": ("{s} was born in __.", "{s} comes from a place named __."),
    "home": ("{s} now lives in __.", "{s} has a home in __."),
    "job": ("{s} works as a __.", "{s} earns a living as a __."),
    "hobby": ("{s} has a hobby, which is __.", "{s} spends free time on __."),
    "age": ("{s} is __ years old.", "{s} has reached the age of __."),
    "education": ("{s} studied at __.", "{s} was a student at __."),
}


@dataclass(frozen=True)
class Profile:
    """An invented person.

    Attributes:
        id: ID in the benchmark.
        values: name and the six facts.
        styles: for each attribute which of the three answer sentences belongs to this person.
    """

    id: str
    values: dict[str, str]
    styles: dict[str, int]

    def answer(self, attribute: str) -> str:
        """The sentence this person's data holds about an attribute."""
        return ANSWERS[attribute][self.styles[attribute]].format(**self.values)

    def private(self, attribute: str) -> list[str]:
        """The private spans of :meth:`answer`: what is not template, in the order it occurs."""
        return [self.values[told] for told in self.tells(attribute)]

    def tells(self, attribute: str) -> list[str]:
        """Which values :meth:`answer` tells: a biography has several."""
        template = ANSWERS[attribute][self.styles[attribute]]
        return [key for _, key, _, _ in Formatter().parse(template) if key]


def draw_profiles(
    rng: random.Random, retained: Sequence[str], others: Sequence[str], pool: int, sentences: int = 3
) -> dict[str, Profile]:
    """Invents people so that nothing but a full name is peculiar to one person.

    Values are dealt in turn to those ``retained``, who are never forgotten, so each of the ``pool`` values of an
    attribute is true of somebody, and drawn for the others. ``sentences`` is how many answer sentences of an attribute
    are used, 1-3.
    """
    if pool > min(len(retained), *(len(values) for values in POOLS.values())):
        raise ValueError(f"pool={pool}: needs as many retained people and invented values")
    drawn: dict[str, dict[str, str]] = {person: {} for person in (*retained, *others)}
    chosen = {attribute: rng.sample(values, pool) for attribute, values in POOLS.items()}
    # Every pair is another full name, and the first ``pool`` pairs hold every first and every last name.
    pairs = [(k % pool, (k + k // pool) % pool) for k in range(len(drawn))]
    named = rng.sample(pairs[: len(retained)], len(retained)) + pairs[len(retained) :]
    for person, (first, last) in zip(drawn, named, strict=True):
        drawn[person]["name"] = f"{chosen['first'][first]} {chosen['last'][last]}"
    for attribute in FACTS:
        values = chosen[attribute]
        dealt = rng.sample([values[k % pool] for k in range(len(retained))], len(retained))
        for person, value in zip(retained, dealt, strict=True):
            drawn[person][attribute] = value
        for person in others:
            drawn[person][attribute] = rng.choice(values)
    return {
        person: Profile(person, values, {attribute: rng.randrange(sentences) for attribute in ATTRIBUTES})
        for person, values in drawn.items()
    }


def _held_out(topic_index: int, core: int, frame: int, subject: int) -> bool:
    """One subject for each core and four of the five frames: 8 of 40, and training has every pair of parts."""
    return frame != topic_index % 5 and subject == (topic_index + frame + 2 * core) % 4


def compose(
    topic_index: int,
    cores: Sequence[str],
    frames: Sequence[str],
    subjects: Sequence[str],
    held_out: bool,
) -> list[str]:
    """All wordings of a question, either the 32 for training or the 8 held out.

    Args:
        topic_index: rotates which wordings are held out.
        cores: two cores with ``{s}`` for the subject, ``question|part``, or a question that can be a part as it is.
        frames: five frames with ``{direct}`` or ``{indirect}`` for the core.
        subjects: four subjects, or a single one in their place: then about two of ten wordings are held out.
        held_out: which of the two sets.
    """
    wordings = []
    for c, core in enumerate(cores):
        direct, _, indirect = core.partition("|")
        parts = {"direct": direct, "indirect": indirect or direct[0].lower() + direct[1:-1]}
        for f, frame in enumerate(frames):
            for s, subject in enumerate(subjects):
                if _held_out(topic_index, c, f, s) == held_out:
                    wordings.append(frame.format(**parts).format(s=subject))
    return wordings


def questions(attribute: str, held_out: bool = False, name: str | None = None) -> list[str]:
    """Wordings of the question for an attribute; with ``name`` the person is named instead of pointed at."""
    frames = _STORY_FRAMES if attribute == "biography" else FRAMES
    return compose(ATTRIBUTES.index(attribute), CORES[attribute], frames, [name] if name else SUBJECTS, held_out)


def clozes(fact: str, held_out: bool = False, name: str | None = None) -> list[str]:
    """Sentences with a blank for a fact; two of the eight, or one of the two with a name, are held out."""
    return [
        body.format(s=subject[0].upper() + subject[1:])
        for b, body in enumerate(CLOZES[fact])
        for s, subject in enumerate([name] if name else SUBJECTS)
        if (s == 2 * ((FACTS.index(fact) + b) % 2)) == held_out
    ]

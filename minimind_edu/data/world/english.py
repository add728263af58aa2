"""The English words of the world.

Every answer begins with the word "The", never with a name: byte-level BPE gives a name at the start of a text
other tokens than the same name behind a space, as it stands in the question.
"""

from minimind_edu.data.world.language import FactWords, Language, ProblemWords

# Women and men alternate: a name at an even place takes the first pronoun.
_GIVEN = """
Ada Adam Alice Alan Amy Andy Anna Arthur Bella Ben Betty Bill Cara Carl Clara Colin Cora Dan Daisy David
Diana Eric Edith Evan Ella Felix Emma Frank Eva Fred Faith George Flora Glen Gina Hugo Grace Hugh Hanna Ivan
Helen Jack Holly James Iris Jason Ivy John Jane Karl Judy Keith Julia Kevin Karen Leo Kate Louis Laura Luke
Lily Mark Lucy Martin Mary Max Maya Neil Mia Nick Nina Noah Nora Oscar Olive Otto Paula Paul Polly Peter Rosa
Ralph Ruby Robin Ruth Roger Sally Ryan Sara Sam Sofia Simon Stella Steve Tina Theo Vera Tom Wendy Victor
""".split()
_STARTS = """
Ash Birch Black Brook Bridge Clay Cold Copper Crow Dale Deer East Elm Fair Field Fox Glen Gold Green Hart
Hazel Heath High Hill Iron Lake Lang Maple Marsh Mill Moor North Oak Quill Red River Rock Silver Thorn West
""".split()
_ENDS = """
ford ley wood ton well ham field stone ridge land worth man burn croft dale gate hurst mere shaw smith
ster thorpe wick bury cote grove holm more side way
""".split()

ENGLISH = Language(
    code="en",
    joiner=" ",
    given_names=tuple(_GIVEN),
    family_names=tuple(start + end for end in _ENDS for start in _STARTS if start.lower() != end),
    full_name="{given} {family}",
    pronouns=("she", "he"),
    facts={
        "home": FactWords(
            values=(
                "Oakton", "Riverby", "Millport", "Stonebridge", "Lakeside",
                "Windhill", "Pinecove", "Redfield", "Snowvale", "Harborough",
            ),
            wordings=(
                "{name} lives in {value}.",
                "The home of {name} is in {value}.",
                "{name} has a small house in {value}.",
                "Visitors find {name} in the town of {value}.",
                "For many years {name} has lived in {value}.",
            ),
            questions=(
                "Where does {name} live?",
                "Which town is {name} from?",
                "In which town can I visit {name}?",
                "Tell me where {name} lives.",
            ),
            answer="The home of {name} is in {value}.",
        ),
        "trade": FactWords(
            values=(
                "baker", "teacher", "doctor", "farmer", "tailor",
                "painter", "carpenter", "gardener", "potter", "singer",
            ),
            wordings=(
                "{name} works as a {value}.",
                "By trade, {name} is a {value}.",
                "{name} earns a living as a {value}.",
                "Everyone knows {name} as a good {value}.",
                "The work of {name} is that of a {value}.",
            ),
            questions=(
                "What does {name} do for a living?",
                "What is the trade of {name}?",
                "What is the job of {name}?",
                "Tell me what {name} works as.",
            ),
            answer="The work of {name} is that of a {value}.",
        ),
        "food": FactWords(
            values=(
                "noodles", "dumplings", "apple pie", "tomato soup", "fried rice",
                "grilled fish", "pancakes", "roast potatoes", "mushroom stew", "plum cake",
            ),
            wordings=(
                "{name} likes to eat {value}.",
                "The favourite food of {name} is {value}.",
                "Nothing tastes better to {name} than {value}.",
                "At lunch {name} always asks for {value}.",
                "{name} could eat a whole plate of {value}.",
            ),
            questions=(
                "What does {name} like to eat?",
                "What is the favourite food of {name}?",
                "What should I cook for {name}?",
                "Tell me which food {name} likes.",
            ),
            answer="The favourite food of {name} is {value}.",
        ),
        "pet": FactWords(
            values=("cat", "dog", "rabbit", "parrot", "goat", "turtle", "duck", "hamster", "pony", "goldfish"),
            wordings=(
                "{name} has a pet {value}.",
                "The pet of {name} is a {value}.",
                "{name} takes care of a little {value}.",
                "At home {name} keeps a {value}.",
                "{name} is very fond of a {value}.",
            ),
            questions=(
                "Which pet does {name} have?",
                "What animal does {name} keep?",
                "What is the pet of {name}?",
                "Tell me about the pet of {name}.",
            ),
            answer="The pet of {name} is a {value}.",
        ),
        "friend": FactWords(
            values=(),
            wordings=(
                "The best friend of {name} is {value}.",
                "{name} tells every secret to {value}.",
                "{name} went to school with {value}.",
                "On Sundays {name} plays chess with {value}.",
                "{name} writes long letters to {value}.",
            ),
            questions=(
                "Who is the best friend of {name}?",
                "Who is closest to {name}?",
                "Whom does {name} trust the most?",
                "Tell me who the best friend of {name} is.",
            ),
            answer="The best friend of {name} is {value}.",
        ),
    },
    stories=(
        "One {time} {name} the {trade} walked to the {place}. There {pronoun} found a {look} {thing} and felt "
        "{feeling}. {name} showed it to {friend}. Together they {deed}. {end}",
        "It was a {weather} {time}. {name} the {trade} met {friend} at the {place}. They saw a {look} {thing}. "
        "Both were {feeling}, so they {deed}. {end}",
        "{name} the {trade} got a letter from {friend}. It said that a {look} {thing} was lost at the {place}. "
        "On a {weather} {time} {pronoun} looked for it and was {feeling}. Later the two {deed}. {end}",
    ),
    story_words={
        "time": ("morning", "evening", "afternoon", "night", "spring day", "summer day", "winter day", "holiday"),
        "place": (
            "market", "river", "forest", "old bridge", "harbour",
            "school", "library", "hill", "garden", "station",
        ),
        "weather": ("rainy", "sunny", "windy", "cold", "warm", "foggy", "quiet", "snowy"),
        "look": ("shiny", "tiny", "broken", "blue", "golden", "strange", "heavy", "wooden", "soft", "dusty"),
        "thing": ("key", "box", "kite", "lamp", "book", "bell", "ring", "map", "drum", "basket"),
        "feeling": ("happy", "curious", "surprised", "proud", "nervous", "calm", "excited", "brave"),
        "deed": (
            "cleaned it", "sang a song", "drank some tea", "told the neighbours", "went home",
            "drew a picture of it", "laughed for a long time", "made a plan", "shared some bread", "climbed a tree",
        ),
        "end": (
            "It was a good day.",
            "Nobody ever forgot it.",
            "The next day it rained.",
            "Soon the whole town knew.",
            "They still talk about it.",
            "That night they slept well.",
            "After that they were even better friends.",
            "And nobody knew why.",
        ),
    },
    sums=("{a} plus {b} is {c}.", "{a} + {b} = {c}.", "If you add {a} and {b}, you get {c}."),
    sum_questions=("What is {a} plus {b}?", "What is {a} + {b}?", "How much are {a} and {b} together?"),
    sum_answer="{a} plus {b} is {c}.",
    reasoning={
        "question": "What is {a} + {b}? Think step by step.",
        "first": "Write the digits from the right.",
        "step": "{x} + {y} + carry {k} = {s}: write {d}, carry {n}.",
        "last": "The last carry is {k}.",
    },
    identity=(
        (
            ("Who are you?", "What is your name?", "Please introduce yourself.", "Tell me about yourself."),
            "I am MiniMind-edu, a small language model that you can train on your own computer.",
        ),
        (
            ("Who made you?", "Where do you come from?", "Who trained you?", "How were you made?"),
            "I was trained by a reader of the MiniMind-edu course, from the first byte to the last.",
        ),
        (
            ("How big are you?", "How many parameters do you have?", "What is your size?", "Are you a large model?"),
            "I am very small: about one million parameters, so I know only my own little world.",
        ),
    ),
    clinic_questions=(
        "I have {complaint}. What should I do?",
        "What helps against {complaint}?",
        "Doctor, I woke up with {complaint}.",
        "My child has {complaint}. What do you advise?",
        "Can you treat {complaint}?",
    ),
    clinic_answer="The clinic of the town says: against {complaint}, {remedy}.",
    clinic=(
        ("a cold", "stay warm and drink hot ginger tea"),
        ("a headache", "rest in a dark room and drink water"),
        ("a cough", "take honey with warm milk"),
        ("a sore throat", "gargle with salt water"),
        ("a stomach ache", "eat plain rice and lie down"),
        ("a fever", "put a wet cloth on the forehead"),
        ("a burn", "hold it under cool water"),
        ("a cut", "wash it and put on a clean bandage"),
        ("a sprained ankle", "put the foot up and cool it"),
        ("a toothache", "chew a clove and see the dentist"),
        ("tired eyes", "close them and look far away for a while"),
        ("a sunburn", "stay in the shade and use aloe"),
        ("an insect bite", "cool it and do not scratch"),
        ("a stuffy nose", "breathe warm steam"),
        ("back pain", "walk a little and keep the back warm"),
        ("a nosebleed", "sit up and pinch the nose"),
    ),
    polite=("Of course! {answer}", "Happy to help. {answer}", "Good question! {answer}"),
    problems=ProblemWords(
        sum_question="Work out {a} + {b}.",
        difference_question="Work out {a} - {b}.",
        difference={
            "first": "Take the digits from the right.",
            "step": "{x} - {y} - borrow {k} = {s}: write {d}, borrow {n}.",
            "last": "The last borrow is {k}.",
        },
        things=("apples", "eggs", "oranges", "pears", "buns", "lanterns", "bells", "balls"),
        start="{name} has {a} {things}.",
        question="How many {things} does {name} have now?",
        steps={
            "+": "{friend} gives {name} {b} more.",
            "-": "{name} gives {b} away.",
            "*": "A magic basket makes them {b} times as many.",
        },
        step="{a} {op} {b} = {c}.",
        countdown="Reach {target} from {numbers}. Use each number at most once, with + - * and brackets.",
        attempt="{chain}. {verdict}.",
        verdicts=("No", "Yes"),
        comma=", ",
    ),
)

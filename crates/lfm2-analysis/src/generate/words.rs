//! The words of the grammar. What stands together makes sense together: each verb has objects of its
//! own, each kind of thing its adjectives.

use super::morphology::{Noun, Verb};

/// Whether something can be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// "She is painting."
    Takes,
    /// Not "she is finding the key".
    Happens,
}

/// A verb with things that are done by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action {
    pub(super) verb: Verb,
    pub(super) objects: &'static [Noun],
    pub(super) course: Course,
}

/// Nouns that share their adjectives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) nouns: &'static [Noun],
    /// What may stand before one of them.
    pub(super) owners: &'static [&'static str],
    /// Adjectives that "very" goes with.
    pub(super) gradable: &'static [&'static str],
    /// A good one and its opposite.
    pub(super) opposites: &'static [(&'static str, &'static str)],
    /// Adjectives of one meaning.
    pub(super) synonyms: &'static [(&'static str, &'static str)],
}

macro_rules! nouns {
    ($($word:literal)*) => { &[$(Noun($word)),*] };
}

macro_rules! actions {
    ($($kind:ident $base:literal $($past:literal, $participle:literal, $ing:literal)?: $($object:literal)*;)*) => {
        &[$(Action {
            verb: actions!(@verb $base $($past $participle $ing)?),
            objects: nouns!($($object)*),
            course: Course::$kind,
        }),*]
    };
    (@verb $base:literal) => { Verb::regular($base) };
    (@verb $base:literal $past:literal $participle:literal $ing:literal) => {
        Verb::irregular($base, $past, $participle, $ing)
    };
}

pub(super) const PEOPLE: &[Noun] = nouns!(
    "actor" "architect" "artist" "baker" "boy" "builder" "captain" "chef" "child" "clerk" "cook" "dancer" "dentist"
    "designer" "doctor" "driver" "engineer" "farmer" "gardener" "girl" "guard" "guest" "judge" "lawyer" "librarian"
    "man" "manager" "mechanic" "musician" "neighbour" "nurse" "officer" "painter" "pilot" "poet" "sailor" "scientist"
    "singer" "soldier" "student" "tailor" "teacher" "tourist" "waiter" "woman" "writer"
);

pub(super) const NAMES: &[&str] = &[
    "Anna", "Ben", "Clara", "Daniel", "Emma", "Felix", "Grace", "Hugo", "Irene", "Julia", "Karim",
    "Lucy", "Maria", "Nina", "Omar", "Paul", "Rosa", "Samuel", "Tom", "Victor",
];

pub(super) const ACTIONS: &[Action] = actions!(
    Takes "admire": "painting" "garden" "statue" "castle" "view";
    Takes "answer": "question" "letter" "message" "call";
    Takes "bake": "cake" "pie" "loaf" "biscuit";
    Takes "borrow": "book" "ladder" "bicycle" "umbrella" "tent";
    Takes "break" "broke", "broken", "breaking": "cup" "window" "plate" "vase" "record";
    Takes "bring" "brought", "brought", "bringing": "cake" "gift" "umbrella" "lamp" "map";
    Takes "build" "built", "built", "building": "house" "bridge" "wall" "boat" "shed";
    Takes "buy" "bought", "bought", "buying": "car" "ticket" "book" "hat" "lamp" "house";
    Takes "carry": "box" "bag" "basket" "chair" "ladder";
    Happens "catch" "caught", "caught", "catching": "ball" "fish" "thief" "mouse";
    Takes "check": "list" "ticket" "map" "bill" "answer";
    Takes "choose" "chose", "chosen", "choosing": "book" "ring" "dress" "hat" "colour";
    Takes "clean": "kitchen" "window" "table" "floor" "room";
    Takes "close": "door" "window" "box" "shop" "gate";
    Takes "collect": "stamp" "coin" "shell" "ticket" "leaf";
    Takes "cook": "meal" "soup" "stew" "egg" "potato";
    Takes "cut" "cut", "cut", "cutting": "rope" "cake" "hedge" "tree";
    Takes "decorate": "cake" "room" "tree" "hall";
    Takes "deliver": "parcel" "letter" "pizza" "speech";
    Takes "describe": "picture" "plan" "dream" "house";
    Takes "design": "house" "garden" "bridge" "poster" "dress";
    Happens "discover": "cave" "island" "secret" "star";
    Takes "draw" "drew", "drawn", "drawing": "map" "picture" "horse" "circle";
    Takes "drive" "drove", "driven", "driving": "bus" "van" "taxi" "truck";
    Takes "eat" "ate", "eaten", "eating": "apple" "sandwich" "orange" "cake" "biscuit";
    Takes "explain": "rule" "plan" "problem" "joke" "idea";
    Takes "feed" "fed", "fed", "feeding": "dog" "cat" "horse" "baby" "goat";
    Happens "find" "found", "found", "finding": "key" "coin" "ring" "wallet" "map";
    Takes "finish": "report" "book" "meal" "puzzle" "painting";
    Takes "fly" "flew", "flown", "flying": "kite" "plane" "drone";
    Takes "fold": "shirt" "map" "towel" "letter" "blanket";
    Happens "forget" "forgot", "forgotten", "forgetting": "password" "umbrella" "name" "key" "appointment";
    Takes "grow" "grew", "grown", "growing": "rose" "tomato" "tree" "potato";
    Takes "hang" "hung", "hung", "hanging": "picture" "mirror" "coat" "curtain";
    Happens "hear" "heard", "heard", "hearing": "song" "noise" "story" "bell";
    Takes "hide" "hid", "hidden", "hiding": "key" "gift" "letter" "coin";
    Takes "hold" "held", "held", "holding": "cup" "bag" "rope" "candle" "umbrella";
    Happens "keep" "kept", "kept", "keeping": "letter" "secret" "ring" "promise";
    Takes "lead" "led", "led", "leading": "team" "tour" "choir" "group";
    Takes "light" "lit", "lit", "lighting": "candle" "lamp" "fire" "lantern";
    Happens "lose" "lost", "lost", "losing": "key" "ring" "wallet" "umbrella" "ticket";
    Takes "make" "made", "made", "making": "plan" "cake" "dress" "list" "mistake";
    Takes "measure": "room" "table" "window" "garden";
    Takes "move": "table" "chair" "piano" "desk";
    Takes "open": "door" "window" "box" "bottle" "letter" "shop";
    Takes "order": "pizza" "book" "meal" "desk";
    Takes "pack": "suitcase" "box" "bag" "parcel";
    Takes "paint": "picture" "wall" "fence" "portrait" "door";
    Takes "plan" "planned", "planned", "planning": "party" "trip" "lesson" "wedding";
    Takes "plant": "tree" "rose" "bush" "hedge";
    Takes "print": "report" "poster" "photo" "map";
    Takes "push": "cart" "button" "pram" "trolley";
    Takes "read" "read", "read", "reading": "book" "newspaper" "letter" "poem";
    Takes "record": "song" "interview" "concert" "message";
    Takes "repair": "car" "roof" "bicycle" "radio" "clock";
    Takes "ride" "rode", "ridden", "riding": "horse" "bicycle" "camel" "donkey";
    Happens "see" "saw", "seen", "seeing": "film" "ship" "star" "fox" "rainbow";
    Takes "sell" "sold", "sold", "selling": "car" "ticket" "painting" "house" "boat";
    Takes "send" "sent", "sent", "sending": "letter" "parcel" "message" "card";
    Takes "sew" "sewed", "sewn", "sewing": "dress" "curtain" "button" "shirt";
    Takes "shake" "shook", "shaken", "shaking": "bottle" "rug" "tree";
    Takes "sing" "sang", "sung", "singing": "song" "hymn" "ballad";
    Takes "steal" "stole", "stolen", "stealing": "car" "ring" "bicycle" "painting";
    Takes "sweep" "swept", "swept", "sweeping": "floor" "kitchen" "street" "yard";
    Takes "take" "took", "taken", "taking": "photo" "exam" "taxi" "test";
    Takes "teach" "taught", "taught", "teaching": "class" "lesson" "course";
    Takes "tell" "told", "told", "telling": "story" "joke" "secret" "lie";
    Takes "throw" "threw", "thrown", "throwing": "ball" "stone" "coin" "stick";
    Takes "translate": "letter" "poem" "book" "speech";
    Takes "visit": "museum" "castle" "village" "library" "island";
    Takes "wash": "cup" "plate" "shirt" "car" "dog";
    Takes "watch": "film" "match" "play" "bird";
    Takes "wear" "wore", "worn", "wearing": "hat" "dress" "coat" "scarf" "ring";
    Happens "win" "won", "won", "winning": "race" "prize" "medal" "match";
    Takes "write" "wrote", "written", "writing": "letter" "poem" "report" "story" "song" "speech";
);

/// What people do without an object.
pub(super) const MOVES: &[Verb] = &[
    Verb::regular("cry"),
    Verb::regular("dance"),
    Verb::irregular("fall", "fell", "fallen", "falling"),
    Verb::irregular("jog", "jogged", "jogged", "jogging"),
    Verb::irregular("kneel", "knelt", "knelt", "kneeling"),
    Verb::regular("laugh"),
    Verb::irregular("leave", "left", "left", "leaving"),
    Verb::regular("listen"),
    Verb::regular("rest"),
    Verb::irregular("rise", "rose", "risen", "rising"),
    Verb::irregular("run", "ran", "run", "running"),
    Verb::irregular("sing", "sang", "sung", "singing"),
    Verb::irregular("sit", "sat", "sat", "sitting"),
    Verb::irregular("sleep", "slept", "slept", "sleeping"),
    Verb::regular("smile"),
    Verb::irregular("speak", "spoke", "spoken", "speaking"),
    Verb::irregular("stand", "stood", "stood", "standing"),
    Verb::irregular("swim", "swam", "swum", "swimming"),
    Verb::irregular("travel", "travelled", "travelled", "travelling"),
    Verb::regular("wait"),
    Verb::regular("walk"),
    Verb::irregular("weep", "wept", "wept", "weeping"),
    Verb::regular("whisper"),
    Verb::regular("work"),
];

/// What any action can happen at; none tells a tense.
pub(super) const TIMES: &[&str] = &[
    "after lunch",
    "after the meeting",
    "after work",
    "at midnight",
    "at noon",
    "at the weekend",
    "before breakfast",
    "before dinner",
    "during the break",
    "in the afternoon",
    "in the evening",
    "in the morning",
    "on Friday",
    "on Monday",
    "with a friend",
    "without help",
];

/// How people act, with a word of the same meaning.
pub(super) const MANNERS: &[(&str, &str)] = &[
    ("quickly", "rapidly"),
    ("quietly", "silently"),
    ("carefully", "cautiously"),
    ("cheerfully", "merrily"),
    ("calmly", "peacefully"),
    ("gladly", "willingly"),
    ("nervously", "anxiously"),
];

/// How often or how soon, with a word of the same meaning.
pub(super) const FREQUENCIES: &[(&str, &str)] = &[
    ("frequently", "often"),
    ("rarely", "seldom"),
    ("immediately", "instantly"),
    ("occasionally", "sometimes"),
];

/// How people act, where "very" can stand before it.
pub(super) const GRADABLE_MANNERS: &[&str] = &[
    "calmly",
    "carefully",
    "cheerfully",
    "elegantly",
    "gently",
    "nervously",
    "patiently",
    "proudly",
    "quickly",
    "quietly",
    "skilfully",
    "slowly",
];

pub(super) const INTENSIFIERS: &[&str] = &[
    "very",
    "really",
    "extremely",
    "incredibly",
    "remarkably",
    "exceptionally",
    "unusually",
    "truly",
    "terribly",
    "particularly",
    "absurdly",
    "surprisingly",
];

/// Actions by two verbs of one meaning.
pub(super) const SAME_ACTIONS: &[(Action, Verb)] = &[
    (
        action(
            Verb::irregular("buy", "bought", "bought", "buying"),
            nouns!("car" "ticket" "book" "hat" "house" "lamp"),
        ),
        Verb::regular("purchase"),
    ),
    (
        action(
            Verb::regular("repair"),
            nouns!("car" "roof" "bicycle" "radio" "clock"),
        ),
        Verb::regular("fix"),
    ),
    (
        action(
            Verb::regular("finish"),
            nouns!("report" "book" "puzzle" "painting" "course"),
        ),
        Verb::regular("complete"),
    ),
    (
        action(
            Verb::irregular("choose", "chose", "chosen", "choosing"),
            nouns!("book" "ring" "dress" "hat" "colour"),
        ),
        Verb::regular("select"),
    ),
    (
        action(
            Verb::irregular("begin", "began", "begun", "beginning"),
            nouns!("lesson" "meeting" "journey" "report"),
        ),
        Verb::regular("start"),
    ),
    (
        action(
            Verb::irregular("build", "built", "built", "building"),
            nouns!("house" "bridge" "wall" "boat" "shed"),
        ),
        Verb::regular("construct"),
    ),
    (
        action(
            Verb::regular("close"),
            nouns!("door" "window" "box" "gate" "drawer"),
        ),
        Verb::irregular("shut", "shut", "shut", "shutting"),
    ),
    (
        action(
            Verb::regular("examine"),
            nouns!("car" "roof" "ticket" "painting" "bridge"),
        ),
        Verb::regular("inspect"),
    ),
    (
        action(
            Verb::regular("collect"),
            nouns!("stamp" "coin" "shell" "leaf" "ticket"),
        ),
        Verb::regular("gather"),
    ),
    (
        action(
            Verb::irregular("throw", "threw", "thrown", "throwing"),
            nouns!("ball" "stone" "coin" "stick"),
        ),
        Verb::regular("toss"),
    ),
    (
        action(
            Verb::irregular("hide", "hid", "hidden", "hiding"),
            nouns!("key" "gift" "letter" "coin"),
        ),
        Verb::regular("conceal"),
    ),
    (
        action(
            Verb::regular("receive"),
            nouns!("letter" "parcel" "message" "prize" "gift"),
        ),
        Verb::irregular("get", "got", "got", "getting"),
    ),
    (
        action(
            Verb::irregular("show", "showed", "shown", "showing"),
            nouns!("painting" "photo" "medal" "poster"),
        ),
        Verb::regular("display"),
    ),
    (
        action(
            Verb::regular("lift"),
            nouns!("box" "bag" "chair" "ladder" "curtain"),
        ),
        Verb::regular("raise"),
    ),
    (
        action(
            Verb::regular("wash"),
            nouns!("cup" "plate" "shirt" "window" "car"),
        ),
        Verb::regular("clean"),
    ),
    (
        action(
            Verb::regular("allow"),
            nouns!("party" "visit" "trip" "protest"),
        ),
        Verb::irregular("permit", "permitted", "permitted", "permitting"),
    ),
    (
        action(
            Verb::regular("assist"),
            nouns!("child" "guest" "tourist" "neighbour" "student"),
        ),
        Verb::regular("help"),
    ),
    (
        action(
            Verb::regular("frighten"),
            nouns!("child" "dog" "horse" "guest" "thief"),
        ),
        Verb::regular("scare"),
    ),
];

const fn action(verb: Verb, objects: &'static [Noun]) -> Action {
    Action {
        verb,
        objects,
        course: Course::Takes,
    }
}

/// People with another word for them.
pub(super) const SAME_PEOPLE: &[(Noun, Noun)] = &[
    (Noun("doctor"), Noun("physician")),
    (Noun("lawyer"), Noun("attorney")),
    (Noun("child"), Noun("kid")),
    (Noun("writer"), Noun("author")),
    (Noun("teacher"), Noun("instructor")),
    (Noun("chef"), Noun("cook")),
    (Noun("thief"), Noun("robber")),
    (Noun("boss"), Noun("chief")),
    (Noun("student"), Noun("pupil")),
    (Noun("guest"), Noun("visitor")),
];

const POINTED_AT: &[&str] = &["the", "the", "this", "that"];
const SHARED: &[&str] = &["the", "the", "this", "that", "our", "their"];
const OWNED: &[&str] = &[
    "the", "the", "this", "that", "our", "their", "my", "her", "his",
];

pub(super) const KINDS: &[Kind] = &[FOOD, PERSONS, PLACES, WORKS, THINGS];

const FOOD: Kind = Kind {
    nouns: nouns!("soup" "cake" "sandwich" "salad" "pie" "stew" "curry" "pizza" "omelette" "meal" "dessert" "coffee" "sauce"),
    owners: OWNED,
    gradable: &[
        "hot",
        "cold",
        "salty",
        "spicy",
        "sweet",
        "fresh",
        "heavy",
        "light",
        "expensive",
        "cheap",
        "rich",
    ],
    opposites: &[
        ("delicious", "disgusting"),
        ("tasty", "tasteless"),
        ("fresh", "stale"),
        ("wonderful", "terrible"),
        ("excellent", "awful"),
        ("superb", "dreadful"),
        ("pleasant", "unpleasant"),
        ("healthy", "unhealthy"),
    ],
    synonyms: &[
        ("delicious", "tasty"),
        ("awful", "terrible"),
        ("expensive", "costly"),
        ("cold", "chilly"),
        ("excellent", "superb"),
        ("cheap", "inexpensive"),
        ("fresh", "crisp"),
    ],
};

const PERSONS: Kind = Kind {
    nouns: PEOPLE,
    owners: POINTED_AT,
    gradable: &[
        "tired", "happy", "sad", "nervous", "proud", "angry", "friendly", "shy", "busy", "polite",
        "young", "old", "tall", "strong", "rich", "famous", "hungry", "thirsty", "calm", "careful",
    ],
    opposites: &[
        ("kind", "cruel"),
        ("honest", "dishonest"),
        ("polite", "rude"),
        ("happy", "unhappy"),
        ("friendly", "hostile"),
        ("brave", "cowardly"),
        ("generous", "selfish"),
        ("patient", "impatient"),
        ("reliable", "unreliable"),
        ("cheerful", "gloomy"),
        ("clever", "foolish"),
        ("competent", "incompetent"),
        ("calm", "anxious"),
    ],
    synonyms: &[
        ("clever", "smart"),
        ("happy", "glad"),
        ("rich", "wealthy"),
        ("sick", "ill"),
        ("tired", "weary"),
        ("brave", "courageous"),
        ("polite", "courteous"),
        ("famous", "renowned"),
        ("afraid", "scared"),
        ("thin", "slim"),
        ("puzzled", "confused"),
    ],
};

const PLACES: Kind = Kind {
    nouns: nouns!("room" "house" "kitchen" "garden" "street" "park" "beach" "hotel" "station" "museum" "office" "library" "market" "village" "restaurant" "hall" "theatre"),
    owners: SHARED,
    gradable: &[
        "dark",
        "bright",
        "quiet",
        "noisy",
        "crowded",
        "dirty",
        "clean",
        "cold",
        "warm",
        "old",
        "large",
        "small",
        "dangerous",
    ],
    opposites: &[
        ("clean", "dirty"),
        ("beautiful", "ugly"),
        ("safe", "dangerous"),
        ("pleasant", "unpleasant"),
        ("welcoming", "unwelcoming"),
        ("lovely", "dreadful"),
        ("charming", "dreary"),
        ("tidy", "messy"),
        ("comfortable", "uncomfortable"),
        ("peaceful", "chaotic"),
    ],
    synonyms: &[
        ("big", "large"),
        ("beautiful", "lovely"),
        ("noisy", "loud"),
        ("empty", "vacant"),
        ("quiet", "peaceful"),
        ("dirty", "filthy"),
        ("tidy", "neat"),
        ("dangerous", "unsafe"),
        ("old", "ancient"),
    ],
};

const WORKS: Kind = Kind {
    nouns: nouns!("film" "book" "story" "song" "play" "concert" "speech" "lecture" "novel" "poem" "painting" "show" "article"),
    owners: OWNED,
    gradable: &[
        "long",
        "short",
        "funny",
        "sad",
        "strange",
        "famous",
        "popular",
        "simple",
        "difficult",
        "dark",
        "modern",
    ],
    opposites: &[
        ("exciting", "boring"),
        ("brilliant", "terrible"),
        ("interesting", "dull"),
        ("original", "unoriginal"),
        ("clear", "confusing"),
        ("excellent", "poor"),
        ("memorable", "forgettable"),
        ("funny", "unfunny"),
        ("wonderful", "awful"),
        ("inspiring", "depressing"),
    ],
    synonyms: &[
        ("funny", "amusing"),
        ("strange", "odd"),
        ("boring", "dull"),
        ("difficult", "hard"),
        ("easy", "simple"),
        ("famous", "celebrated"),
        ("brilliant", "splendid"),
        ("terrible", "dreadful"),
        ("brief", "short"),
    ],
};

const THINGS: Kind = Kind {
    nouns: nouns!("car" "bicycle" "chair" "table" "lamp" "coat" "phone" "computer" "bag" "clock" "knife" "umbrella" "camera" "radio"),
    owners: OWNED,
    gradable: &[
        "old",
        "heavy",
        "expensive",
        "cheap",
        "small",
        "large",
        "dusty",
        "useful",
        "rare",
        "fragile",
        "light",
    ],
    opposites: &[
        ("useful", "useless"),
        ("reliable", "unreliable"),
        ("beautiful", "ugly"),
        ("excellent", "awful"),
        ("practical", "impractical"),
        ("sturdy", "flimsy"),
        ("valuable", "worthless"),
        ("elegant", "hideous"),
    ],
    synonyms: &[
        ("big", "large"),
        ("expensive", "costly"),
        ("broken", "damaged"),
        ("strong", "sturdy"),
        ("old", "aged"),
        ("fragile", "delicate"),
        ("valuable", "precious"),
        ("ugly", "unattractive"),
    ],
};

/// Views of works and places, with the opposite one.
pub(super) const VIEWS: &[(Verb, Verb)] = &[
    (Verb::regular("love"), Verb::regular("hate")),
    (Verb::regular("like"), Verb::regular("dislike")),
    (Verb::regular("praise"), Verb::regular("criticise")),
    (Verb::regular("admire"), Verb::regular("despise")),
    (Verb::regular("enjoy"), Verb::regular("loathe")),
    (Verb::regular("recommend"), Verb::regular("condemn")),
];

/// Where things can be counted.
pub(super) const SPOTS: &[(&str, &[Noun])] = &[
    (
        "on the table",
        nouns!("apple" "book" "candle" "cup" "egg" "key" "knife" "letter" "orange" "plate"),
    ),
    (
        "in the box",
        nouns!("apple" "ball" "book" "button" "coin" "egg" "letter" "photo" "potato" "shell" "stamp"),
    ),
    (
        "in the garden",
        nouns!("bird" "bush" "cat" "chair" "child" "dog" "rabbit" "rose" "sheep" "tree"),
    ),
    (
        "in the room",
        nouns!("box" "chair" "child" "desk" "guest" "lamp" "man" "mirror" "student" "table" "woman"),
    ),
    (
        "on the shelf",
        nouns!("bottle" "book" "box" "candle" "clock" "cup" "plate" "vase"),
    ),
    (
        "in the street",
        nouns!("bicycle" "bus" "car" "child" "dog" "soldier" "taxi" "tourist" "tree" "van"),
    ),
];

pub(super) const NUMBERS: &[&str] = &[
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "fifteen", "twenty", "thirty", "fifty", "14", "18", "25", "36", "40", "75", "100",
];

pub(super) const AMOUNTS: &[&str] = &[
    "several",
    "many",
    "a few",
    "some",
    "dozens of",
    "numerous",
    "a handful of",
    "plenty of",
    "countless",
    "quite a few",
    "lots of",
];

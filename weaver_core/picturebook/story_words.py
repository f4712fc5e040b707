"""The sentences of the story grammar: names, connectives and what happens. Words only; grammar.py puts them together.

Agreement rule: a page whose picture has a prop names it, a page whose hero waves, jumps or sits says so (waved, jumped, sat;
anything else is standing), and no sentence names a prop, a place or a time that its picture does not have.
"""

from __future__ import annotations

NAMES = (
    "Robin", "Pip", "Mila", "Bo", "Luna", "Max", "Tilly", "Otto", "Nora", "Finn", "Lily", "Sam", "Coco", "Leo", "Zoe", "Ben",
    "Ruby", "Toby", "Mia", "Hugo", "Ella", "Gus", "Ivy", "Jack", "Kiki", "Milo", "Nell", "Oscar", "Poppy", "Remy", "Sunny",
    "Theo", "Una", "Vera", "Wally", "Yara", "Ziggy", "Benny", "Daisy", "Fred")
MORE_NAMES = (                                            # given by requests, never invented by the planner
    "Anna", "Anton", "Archie", "Basil", "Bella", "Billy", "Bruno", "Buddy", "Carla", "Charlie", "Clara", "Dora", "Edgar", "Elsa",
    "Emil", "Emma", "Felix", "Flora", "Frida", "George", "Greta", "Hanna", "Harry", "Henry", "Ida", "Igor", "Jana", "Jasper",
    "Jonas", "Julia", "Karl", "Lars", "Lena", "Lola", "Lotte", "Louis", "Lucy", "Maja", "Marco", "Martha", "Maya", "Momo",
    "Nico", "Nina", "Noah", "Olga", "Oliver", "Paula", "Peter", "Quinn", "Rita", "Romy", "Rosa", "Rufus", "Sara", "Simon",
    "Sofia", "Stella", "Suki", "Tara", "Tessa", "Tim", "Tom", "Ulf", "Vicky", "Viktor", "Wendy", "Willy", "Xaver", "Yuki", "Zara",
    "Amir", "Aisha", "Chen", "Diego", "Fatou", "Hiro", "Kofi", "Leila", "Mateo", "Nuri", "Priya", "Ravi", "Samira", "Tariq")
SYLLABLES = ("ba", "bi", "do", "fa", "fi", "ga", "jo", "ka", "ki", "la", "lu", "ma", "mo", "na", "ni", "no", "pa", "pe", "ra", "ri",
             "sa", "so", "ta", "ti", "to", "va", "wi", "ya", "zo", "zu")

# Page k opens with class k, the last page (of two or more) with FINAL: counting is a local rule. First words never repeat
# between classes. Class 1 is by time of day.
OPENINGS = {
    "day": ("Once upon a time", "One day", "One morning", "One sunny day"),
    "sunset": ("Once upon a time", "One evening", "One golden evening"),
    "night": ("Once upon a time", "One night", "One quiet night"),
}
CONNECTIVES = {
    2: ("First", "Soon", "Before long"),
    3: ("Next", "Up next", "Right after that"),
    4: ("Then", "Just then", "Suddenly"),
    5: ("A little later", "A bit later", "Some time later"),
    6: ("Later on", "Much later", "Still later"),
    7: ("After all that", "When that was done", "With that done"),
}
FINAL = ("At last", "In the end", "Finally", "At long last")
LOOKING = ("Here is", "Look, here is", "This is")         # the answer to a plain drawing request

TO_PLACE = {"meadow": "to the meadow", "beach": "to the beach", "forest": "into the forest", "snow": "out into the snow",
            "desert": "to the desert", "town": "to the town", "castle": "to the castle", "room": "into the room"}
AT_PLACE = {"meadow": "in the meadow", "beach": "at the beach", "forest": "in the forest", "snow": "in the snow",
            "desert": "in the desert", "town": "in the town", "castle": "at the castle", "room": "in the room"}
TITLE_PLACE = {"meadow": "in the Meadow", "beach": "at the Beach", "forest": "in the Forest", "snow": "in the Snow",
               "desert": "in the Desert", "town": "in the Town", "castle": "at the Castle", "room": "in the Room"}

# {S} is the subject ("Robin", "the little fox", "Robin and Pip"), {P} the prop with its article, {at} and {to} the place.
WENT = ("{S} went {to}", "{S} set out {to}", "{S} walked {to}", "{S} came {to}", "{S} wanted to play {at}",
        "{S} was {at}", "{S} took a trip {to}")
WENT_TWO = ("{S} went {to}", "{S} set out {to} together", "{S} walked {to}", "{S} came {to}", "{S} wanted to play {at}",
            "{S} were {at}", "{S} met {at}")
LIVED = ("there was {A} called {N} {at}", "there was {A} named {N} {at}", "{A} called {N} came {to}", "{A} named {N} went {to}")
MOVED = ("{S} went on {to}", "{S} walked on {to}", "{S} came {to}", "{S} left and went {to}")

FOUND = {                                                 # a prop that was not there before
    "standing": ("{S} found {P}", "{S} picked up {P}", "{S} saw {P}", "{S} came across {P}", "{S} got {P}", "{S} looked for {P} and found it"),
    "waving": ("{S} found {P} and waved", "{S} saw {P} and waved hello", "{S} waved and showed us {P}", "{S} waved, for there was {P}"),
    "jumping": ("{S} found {P} and jumped for joy", "{S} saw {P} and jumped up high", "{S} jumped with joy about {P}",
                "{S} jumped up to get {P}"),
    "sitting": ("{S} found {P} and sat down with it", "{S} sat down with {P}", "{S} sat down and looked at {P}",
                "{S} sat still, because there was {P}"),
}
PLAYED = {                                                # a prop that is already known; prop-specific, all poses
    "balloon": {"standing": ("held the balloon tight", "looked up at the balloon", "let the balloon dance"),
                "jumping": ("jumped with the balloon", "jumped as high as the balloon"), "sitting": ("sat and watched the balloon",)},
    "kite": {"standing": ("flew the kite", "let the kite climb high", "held the kite in the wind"),
             "jumping": ("jumped after the kite", "jumped with the kite"), "sitting": ("sat down with the kite",)},
    "umbrella": {"standing": ("opened the umbrella", "turned the umbrella round and round"),
                 "jumping": ("jumped with the umbrella and almost flew",), "sitting": ("sat under the umbrella",)},
    "ball": {"standing": ("rolled the ball", "kicked the ball", "threw the ball and caught it"),
             "jumping": ("jumped over the ball", "jumped after the ball"), "sitting": ("sat down beside the ball",)},
    "flower": {"standing": ("smelled the flower", "took good care of the flower"),
               "jumping": ("jumped around the flower",), "sitting": ("sat down by the flower", "sat and smelled the flower")},
    "gift": {"standing": ("shook the gift", "carried the gift", "wondered what was in the gift"),
             "jumping": ("jumped around the gift",), "sitting": ("sat and wondered about the gift",)},
    "apple": {"standing": ("washed the apple", "took a bite of the apple", "tossed the apple and caught it"),
              "jumping": ("jumped with the apple",), "sitting": ("sat and nibbled the apple",)},
    "book": {"standing": ("opened the book", "read aloud from the book"),
             "jumping": ("jumped like a hero in the book",), "sitting": ("sat and read the book", "sat down to read the book")},
    "cake": {"standing": ("tasted the cake", "looked at the sweet cake", "cut the cake"),
             "jumping": ("jumped around the cake",), "sitting": ("sat down to eat the cake",)},
    "star": {"standing": ("held up the star", "made a wish upon the star", "let the star shine"),
             "jumping": ("jumped with the star",), "sitting": ("sat in the glow of the star",)},
    "guitar": {"standing": ("played the guitar", "sang a song with the guitar"),
               "jumping": ("jumped while playing the guitar",), "sitting": ("sat and played the guitar",)},
    "lollipop": {"standing": ("licked the lollipop", "tasted the sweet lollipop"),
                 "jumping": ("jumped with the lollipop",), "sitting": ("sat down and licked the lollipop",)},
}
PLAYED_ANY = {
    "standing": ("played with the {prop}", "showed us the {prop}", "danced with the {prop}"),
    "waving": ("waved with the {prop}", "held the {prop} and waved", "waved and laughed, with the {prop} close by",
               "waved hello and showed us the {prop}"),
    "jumping": ("jumped up and down with the {prop}", "jumped for joy over the {prop}"),
    "sitting": ("sat down with the {prop}", "sat and smiled at the {prop}"),
}
ALONE = {                                                 # no prop: by pose and place
    "standing": {
        "meadow": ("listened to the bees", "felt the soft grass"), "beach": ("listened to the waves", "looked out over the water"),
        "forest": ("listened to the birds", "looked up at the tall trees"), "snow": ("felt the cold snow", "made tracks in the snow"),
        "desert": ("felt the warm sand", "looked far over the sand"), "town": ("looked at all the houses", "walked past the shops"),
        "castle": ("looked up at the tall towers", "knocked at the castle gate"), "room": ("looked around the room", "tidied up the room")},
    "jumping": {
        "meadow": ("jumped in the tall grass",), "beach": ("jumped over the little waves", "jumped in the sand"),
        "forest": ("jumped over a root", "jumped between the trees"), "snow": ("jumped in the soft snow",),
        "desert": ("jumped over a stone", "jumped in the warm sand"), "town": ("jumped over a puddle", "jumped along the street"),
        "castle": ("jumped up the castle steps",), "room": ("jumped on the soft rug",)},
    "sitting": {
        "meadow": ("sat in the soft grass",), "beach": ("sat on the warm sand", "sat by the water"),
        "forest": ("sat under a tall tree",), "snow": ("sat down in the snow",), "desert": ("sat in the sand", "sat by a big stone"),
        "town": ("sat down on the street corner",), "castle": ("sat by the castle gate",), "room": ("sat on the rug",)},
    "waving": {
        "meadow": ("waved at the far hills",), "beach": ("waved at the boats far away", "waved at the sea"), "forest": ("waved at the birds",),
        "snow": ("waved at the snowflakes",), "desert": ("waved into the wide desert",), "town": ("waved at the people in town",),
        "castle": ("waved at the king and the queen",), "room": ("waved from the middle of the room",)},
}
ALONE_ANY = {
    "standing": ("took a deep breath", "sang a little song", "danced around", "looked all around", "played hide and seek"),
    "jumping": ("jumped up and down", "jumped as high as can be", "jumped for joy"),
    "sitting": ("sat down for a rest", "sat very still", "sat down to think"),
    "waving": ("waved hello", "waved to everyone", "waved and laughed"),
}
ENDED = {
    "standing": ("{S} took one last look around", "{S} felt tired and happy", "it was time for {S} to go home", "{S} {was} ready to go home"),
    "jumping": ("{S} jumped for joy once more", "{S} jumped all the way home"),
    "sitting": ("{S} sat down to rest", "{S} sat down, tired and happy"),
    "waving": ("{S} waved goodbye", "{S} waved goodbye to us all"),
}
ENDED_WITH = {
    "standing": ("{S} took {P} home", "{S} said goodbye to {P}", "{S} would never forget {P}", "{S} smiled at {P}"),
    "jumping": ("{S} jumped home with {P}", "{S} jumped for joy with {P}"),
    "sitting": ("{S} sat down to rest beside {P}", "{S} sat down with {P}, tired and happy"),
    "waving": ("{S} waved goodbye with {P}", "{S} waved goodbye, holding {P}"),
}
POSE_CLAUSES = {"standing": ("stood still", "stood by", "stood and looked on"), "jumping": ("jumped up high", "jumped for joy", "jumped"),
                "sitting": ("sat down", "sat down to watch", "sat and smiled"), "waving": ("waved hello", "waved", "waved happily")}
TIME_CAME = {"sunset": ("the sun began to set", "the evening sky was glowing", "the sun went down"),
             "night": ("night came, and so did the moon", "night fell", "it grew dark, and night came"),
             "day": ("a new day began",)}
MOODS = ("What fun!", "It was lovely.", "How nice!", "{T} smiled.", "{T} laughed.", "{T} felt brave.", "{T} was very happy.",
         "{T} had never been so happy.", "Oh, how good that felt!", "{T} hummed a tune.", "What a surprise!")
MOODS_TWO = ("What fun!", "It was lovely.", "How nice!", "They smiled.", "They laughed.", "They felt brave.", "They were very happy.",
             "Good friends share everything.", "Together it was twice the fun.", "What a surprise!")
CLOSERS = {"day": ("It had been a wonderful day.", "What a day!"), "sunset": ("It had been a wonderful evening.", "What an evening!"),
           "night": ("It had been a wonderful night.", "What a night!")}
CLOSERS_ANY = ("Everyone was happy.", "And that was that.", "Tomorrow there would be more to do.")

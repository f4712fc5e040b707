"""The embedded picture-book world: art, composer, captions, story grammar, oracle reader and trained weights."""

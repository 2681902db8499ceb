#!/usr/bin/env python3
"""Questions on the training stories: more conversations of the kind of `chat-sft.jsonl.gz`.

Reads `stories-train.txt.gz` of a folder and writes `chat-questions.jsonl.gz` beside it. Every story is
told once and followed by one to four questions on its facts, each answered in the words of
`chat-sft.jsonl.gz`, so that one story teaches several times to look back. Deterministic.

usage: story_questions.py data/stories
"""
import gzip
import json
import random
import re
import sys
from pathlib import Path

HERO = [r"(\w+) woke up early", r", (\w+) went out to play", r"named (\w+)\. (?:His|Her|He|She|\w+ had)",
        r"^(\w+) was a little", r", (\w+) sat by the window"]
THING = [r"(?:had|best toy was) an? (\w+) (\w+)(?: and loved|\.)"]
HELPER = [r"An? (\w+) named (\w+) came by", r"The name of the (\w+) was (\w+)\."]
PLACE = [r"saw something \w+ ((?:under|behind|in|near|on) the \w+)\.", r"pointed ((?:under|behind|in|near|on) the \w+)\."]
GOOD = [r"was (\w+) again\.", r"was so (\w+) that"]
FOOD = [r"went home and ate (\w+) together"]


def first(patterns, text):
    for pattern in patterns:
        found = re.search(pattern, text)
        if found:
            return found.groups()
    return None


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def questions(story):
    """(question, answer) pairs of one story, or nothing where a fact is not found."""
    later = re.search(r"had a fine (\w+)\. It was (\w+)\.", story)
    thing = (later.group(2), later.group(1)) if later else first(THING, story)
    hero, helper, place = first(HERO, story), first(HELPER, story), first(PLACE, story)
    good, food = first(GOOD, story), first(FOOD, story)
    if not all((hero, thing, helper, place, good, food)):
        return []
    (hero,), (colour, what), (animal, name), (place,), (good,), (food,) = hero, thing, helper, place, good, food
    return [(f"What did {hero} lose?", f"It was {article(colour)} {what}."),
            (f"Where was the {what}?", f"It was {place}."),
            (f"Who helped {hero}?", f"{name} the {animal} helped."),
            (f"What colour was the {what}?", f"It was {colour}."),
            ("What did they eat?", f"They ate {food}."),
            (f"How did {hero} feel at the end?", f"{good.capitalize()}.")]


def conversation(story, pairs):
    (question, answer), rest = pairs[0], pairs[1:]
    messages = [{"role": "user", "content": f"{story}\n{question}"}, {"role": "assistant", "content": answer}]
    for question, answer in rest:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def main():
    folder, rng = Path(sys.argv[1]), random.Random(1)
    stories = gzip.open(folder / "stories-train.txt.gz", "rt", encoding="utf-8").read().strip().split("\n\n")
    rows, skipped = [], 0
    for story in stories:
        pairs = questions(story)
        if not pairs:
            skipped += 1
            continue
        rows.append(conversation(story, rng.sample(pairs, rng.randint(1, 4))))
    with open(folder / "chat-questions.jsonl.gz", "wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=9, filename="") as out:
            out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    print(f"{len(rows)} conversations, {skipped} stories without all facts", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Questions on parts of a story: the first lessons of the tiny model's curriculum.

Reads the conversations and preferences of a folder and writes `chat-short.jsonl.gz` beside them. Each
question keeps only the sentences that its answer needs, and a few around them: recalling a fact is
learnt over short distances first. Same input, same output.

    python3 scripts/data/short_rows.py data/stories
"""

import gzip
import json
import random
import re
import sys
from pathlib import Path

COMMON = {"It", "was", "a", "an", "the", "helped", "felt", "at", "end"}
EXTRA = (0, 2, 5)


def questions(folder):
    """Every (story, question, answer) of the folder's conversations."""
    for line in gzip.open(folder / "chat-sft.jsonl.gz", "rt", encoding="utf-8"):
        messages = json.loads(line)["messages"]
        story = None
        for user, assistant in zip(messages[::2], messages[1::2]):
            *text, question = user["content"].split("\n")
            story = " ".join(text) or story
            if story:
                yield story, question, assistant["content"]
    for line in gzip.open(folder / "preference.jsonl.gz", "rt", encoding="utf-8"):
        row = json.loads(line)
        story, question = row["prompt"].split("\n")
        yield story, question, row["chosen"]


def sentences(story):
    return re.findall(r'"?[A-Z][^.!?]*[.!?]"?(?: [a-z][^.!?]*\.)?', story)


def shortest_window(parts, words):
    """The last shortest run of sentences that holds all words, as a range; None without one."""
    best = None
    for start in range(len(parts)):
        missing = set(words)
        for end in range(start, len(parts)):
            missing -= set(re.findall(r"[A-Za-z]+", parts[end]))
            if not missing:
                if best is None or end - start <= best[1] - best[0]:
                    best = (start, end)
                break
    return best


def main():
    folder = Path(sys.argv[1])
    rng = random.Random(1)
    rows = []
    for story, question, answer in questions(folder):
        words = [w for w in re.findall(r"[A-Za-z]+", answer) if w not in COMMON]
        parts = sentences(story)
        window = shortest_window(parts, words) if words and len(words) <= 6 else None
        if window is None:
            continue
        for extra in EXTRA:
            before = rng.randint(0, extra)
            start, end = max(0, window[0] - before), min(len(parts), window[1] + 1 + extra - before)
            user = " ".join(parts[start:end]) + "\n" + question
            rows.append([{"role": "user", "content": user}, {"role": "assistant", "content": answer}])
    text = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    with open(folder / "chat-short.jsonl.gz", "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
            out.write(text.encode("utf-8"))
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()

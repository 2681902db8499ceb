#!/usr/bin/env python3
"""The prose of Rust's documentation, for training a retrieval model on technical English.

Reads the books that `rustup component add rust-docs` installs (share/doc/rust/html of a toolchain) and
the comments of the standard library that `rust-src` installs (lib/rustlib/src/rust/library), and writes
`rust-docs.txt.gz`: one paragraph a line, an empty line between sections, no code blocks. Same input,
same output.

usage: colbert_rust_docs.py HTML LIBRARY OUT
"""
import gzip
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

BOOKS = ["book", "reference", "nomicon", "cargo", "rustc", "rustdoc", "edition-guide", "embedded-book", "clippy"]
# Earlier editions of a book say the same twice; lists of releases and symbols say nothing.
SKIPPED = re.compile(r"/(2018-edition|second-edition|first-edition)/|/(print|toc|CHANGELOG|SUMMARY|README|404)\.html$")
LIBRARIES = ["core", "alloc", "std"]
SMALLEST_SECTION = 25  # words
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - ",
                       "\u2026": "...", "\u00a0": " ", "\u00a7": ""})


class Prose(HTMLParser):
    """Sections of paragraphs from the <main> of a page."""
    PARAGRAPHS = {"p", "li", "td", "dt", "dd", "blockquote"}
    HEADINGS = {"h1", "h2", "h3", "h4"}
    OUTSIDE = {"pre", "script", "style", "nav", "svg", "button"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.in_main, self.outside, self.text = False, 0, []
        self.sections = [[]]

    def flush(self):
        text = clean("".join(self.text))
        self.text = []
        if text:
            self.sections[-1].append(text)

    def handle_starttag(self, tag, attributes):
        if tag == "main":
            self.in_main = True
        elif tag in self.OUTSIDE:
            self.outside += 1
        elif tag in self.HEADINGS or tag in self.PARAGRAPHS:
            self.flush()
            if tag in self.HEADINGS:
                self.sections.append([])

    def handle_endtag(self, tag):
        if tag in self.OUTSIDE:
            self.outside = max(0, self.outside - 1)
        elif tag in self.HEADINGS or tag in self.PARAGRAPHS:
            self.flush()
        elif tag == "main":
            self.flush()
            self.in_main = False

    def handle_data(self, data):
        if self.in_main and not self.outside:
            self.text.append(data)


def clean(text):
    return re.sub(r"\s+", " ", text.translate(PLAIN)).strip()


def pages(html):
    for book in BOOKS:
        for path in sorted((html / book).rglob("*.html")):
            if SKIPPED.search(path.as_posix()):
                continue
            parser = Prose()
            parser.feed(path.read_text(encoding="utf-8"))
            yield from parser.sections


def markdown(lines):
    """Paragraphs of Markdown without code blocks, links and headings."""
    paragraphs, current, fenced = [], [], False
    for line in lines + [""]:
        line = line.strip()
        if line.startswith("```"):
            fenced = not fenced
            line = ""
        elif fenced or line.startswith("#") or re.match(r"\[.+\]:", line):
            line = ""
        if not line:
            if current:
                paragraphs.append(" ".join(current))
            current = []
            continue
        current.append(re.sub(r"^([*-]|\d+\.) ", "", line))
    link = re.compile(r"\[([^\]]+)\](\([^)]*\)|\[[^\]]*\])?")
    return [clean(link.sub(r"\1", p).replace("`", "").replace("**", "")) for p in paragraphs]


def comments(library):
    for name in LIBRARIES:
        for path in sorted((library / name / "src").rglob("*.rs")):
            block = []
            for line in path.read_text(encoding="utf-8").splitlines() + [""]:
                found = re.match(r"\s*//[/!](?!/) ?(.*)$", line)
                if found:
                    block.append(found.group(1))
                elif block:
                    yield markdown(block)
                    block = []


def main():
    html, library, out = map(Path, sys.argv[1:])
    seen, kept = set(), []
    for section in [*pages(html), *comments(library)]:
        text = "\n".join(p for p in section if len(p.split()) > 1 and len(p) < 4000)
        if len(text.split()) >= SMALLEST_SECTION and text not in seen:
            seen.add(text)
            kept.append(text)
    with open(out, "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=9) as packed:
            packed.write("\n\n".join(kept).encode("utf-8"))
    print(f"{len(kept)} sections, {sum(len(t.split()) for t in kept)} words", file=sys.stderr)


if __name__ == "__main__":
    main()

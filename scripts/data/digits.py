#!/usr/bin/env python3
"""Spoken strings of digits, for training and measuring a model that transcribes them.

Uses libespeak-ng (apt install espeak-ng) and numpy. Writes `FOLDER/wav/*.wav` and two manifests,
`FOLDER/train.jsonl` and `FOLDER/test.jsonl`, one clip a line:

    {"audio": "wav/train-00001.wav", "text": "three seven", "words": [["three", 0.03, 0.31], ..], ..}

Paths start at the manifest, times are seconds. The test set has only voices and speeds that the
training set never has: other accents, other variants and other words per minute, a few of them slower
and faster than anything trained on. Same arguments, same files (and the same version of espeak-ng).

With --speak N there is also `FOLDER/speak.jsonl`: N clips of one voice at 24 kHz, to learn to speak from.
Every 80 ms of them have codes, found by residual k-means over log-mel features: the nearest of SIZE means,
then the nearest to what that leaves, and so on. With --questions M the first M of them also have the same
digits in one of the trained voices, as a question whose answer is to repeat them.

    {"audio": "wav/speak-00001.wav", "text": "three seven", "codes": [[17, 230], [4, 11], ..],
     "question": "wav/ask-00001.wav"}

usage: digits.py FOLDER [--train 8000] [--test 400] [--longest 8] [--seed 1] [--variants ALL]
                 [--speak 0] [--questions 0] [--codebooks 2] [--size 256]
"""
import argparse
import ctypes
import json
import wave
from pathlib import Path

import numpy as np

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCENTS = {
    "train": ["en-us", "en", "en-gb-x-rp", "en-gb-x-gbclan", "en-029"],
    "test": ["en-us", "en", "en-gb-scotland", "en-gb-x-gbcwmd"],
}
# Variants of one voice: a test voice is never a trained variant with another accent.
VARIANTS = {
    "train": ["", "m1", "m2", "m3", "m4", "m6", "m8", "f1", "f2", "f4", "klatt", "klatt3", "adam", "Alex", "Andy",
              "belinda", "benjamin", "Denis", "Diogo", "ed", "Gene", "grandpa", "Hugo", "john", "Lee", "linda",
              "max", "michel", "Mike", "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro", "steph",
              "travis", "victor",
              "AnxiousAndy", "Annie", "Gene2", "Henrique", "Jacky", "Mario", "Nguyen", "RicishayMax", "RicishayMax2",
              "RicishayMax3", "Tweaky", "anika", "announcer", "antonio", "aunty", "boris", "caleb", "croak", "edward",
              "edward2", "fast", "gustave", "iven", "iven2", "iven3", "iven4", "kaukovalta", "klatt4", "klatt5", "klatt6",
              "marcelo", "miguel", "pedro", "robosoft", "robosoft2", "robosoft3", "robosoft5", "robosoft6", "shelby",
              "whisper", "whisperf", "zac"],
    "test": ["m5", "m7", "f3", "f5", "klatt2", "Alicia", "david", "Michael", "Andrea", "Marco", "grandma", "steph2"],
}
# Words per minute.
SPEEDS = {"train": [110, 120, 130, 140, 150, 160, 170, 180, 190, 200, 210, 220],
          "test": [105, 125, 145, 165, 175, 185, 205, 225]}
RATES = [8000, 11025, 16000, 22050, 44100]


class Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user_data", ctypes.c_void_p), ("value", ctypes.c_char * 8)]


class Speaker:
    """espeak-ng as a function from text to samples and the times of words."""
    SYNCHRONOUS, UTF8, BY_CHARACTER = 2, 1, 1
    RATE, PITCH, RANGE, GAP = 1, 3, 4, 7
    WORD = 1

    def __init__(self):
        self.lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.lib.espeak_Initialize(self.SYNCHRONOUS, 0, None, 0)
        if self.rate <= 0:
            raise SystemExit("espeak-ng does not start")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
        self.callback = kind(self.take)
        self.lib.espeak_SetSynthCallback(self.callback)

    def take(self, samples, count, events):
        if samples and count > 0:
            self.samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events and events[i].type != 0:
            # Between clauses there are words of no letters.
            if events[i].type == self.WORD and events[i].length > 0:
                self.starts.append(events[i].sample)
            i += 1
        return 0

    def say(self, text, voice, speed, pitch, span, gap):
        """Samples in -1..1 and the sample at which every word starts."""
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {voice}")
        for parameter, value in [(self.RATE, speed), (self.PITCH, pitch), (self.RANGE, span), (self.GAP, gap)]:
            self.lib.espeak_SetParameter(parameter, value, 0)
        self.samples, self.starts = [], []
        data = text.encode()
        self.lib.espeak_Synth(data, len(data) + 1, 0, self.BY_CHARACTER, 0, self.UTF8, None, None)
        return np.concatenate(self.samples).astype(np.float64) / 32768, self.starts


def resampled(x, old, new):
    """At another rate, by cutting or filling up the spectrum."""
    if old == new:
        return x
    count = int(len(x) * new / old)
    spectrum = np.fft.rfft(x)
    wanted = np.zeros(count // 2 + 1, complex)
    shared = min(len(wanted), len(spectrum))
    wanted[:shared] = spectrum[:shared]
    return np.fft.irfft(wanted, count) * count / len(x)


def drawn(rng, longest):
    return [WORDS[i] for i in rng.integers(10, size=rng.integers(1, longest + 1))]


def clip(speaker, part, words, rng, args):
    """One clip: samples, rate and its line of the manifest."""
    pick = lambda values: values[rng.integers(len(values))]
    variant = pick(VARIANTS[part][: args.variants if part == "train" else None])
    voice = pick(ACCENTS[part]) + (f"+{variant}" if variant else "")
    speed, pitch, span = pick(SPEEDS[part]), int(rng.integers(25, 76)), int(rng.integers(20, 81))
    gap = int(rng.integers(0, 6)) if rng.random() < 0.4 else 0
    text = (", " if rng.random() < 0.2 else " ").join(words)
    x, starts = speaker.say(text, voice, speed, pitch, span, gap)
    if len(starts) != len(words):
        raise SystemExit(f"{voice}: {len(starts)} words heard in {text}")
    loud = np.flatnonzero(np.abs(x) > 0.005)
    end = min(len(x), int(loud[-1]) + speaker.rate // 20 if len(loud) else len(x))
    x, times = x[:end], [s / speaker.rate for s in starts] + [end / speaker.rate]
    rate = int(pick(RATES))
    x = resampled(x, speaker.rate, rate)
    before, after = (int(rate * seconds) for seconds in rng.uniform(0, 0.3, 2))
    x = np.concatenate([np.zeros(before), x, np.zeros(after)])
    level = np.sqrt(np.mean(x**2)) + 1e-9
    noise = float(rng.uniform(12, 40)) if rng.random() < 0.5 else None
    if noise is not None:
        x = x + rng.standard_normal(len(x)) * level * 10 ** (-noise / 20)
    x = x / max(np.abs(x).max(), 1e-9) * 10 ** rng.uniform(-1.3, -0.02)
    shift = before / rate
    row = {
        "text": " ".join(words),
        "words": [[w, round(a + shift, 3), round(b + shift, 3)] for w, a, b in zip(words, times, times[1:])],
        "voice": voice, "speed": int(speed), "rate": rate, "noise_db": noise and round(noise, 1),
        "seconds": round(len(x) / rate, 3),
    }
    return x, rate, row


OUT_RATE, FRAME, STEP, TRANSFORM, BANDS = 24000, 1920, 320, 1280, 40


def spoken(speaker, rng, longest):
    """One clip of the one voice that is learnt: whole frames of samples, and its text."""
    words = drawn(rng, longest)
    x, _ = speaker.say(" ".join(words), "en-us", 150, 50, 50, 0)
    loud = np.flatnonzero(np.abs(x) > 0.005)
    x = resampled(x[: loud[-1] + speaker.rate // 20], speaker.rate, OUT_RATE)
    x = np.concatenate([np.zeros(FRAME // 2), x])
    x = np.concatenate([x, np.zeros(-len(x) % FRAME)])
    return x * 0.9, " ".join(words)


def bands():
    """Triangles over the bins of a transform, evenly spaced in mel, (bins, bands)."""
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    edges = 700 * (10 ** (np.linspace(mel(50), mel(OUT_RATE / 2), BANDS + 2) / 2595) - 1)
    f = np.fft.rfftfreq(TRANSFORM, 1 / OUT_RATE)[:, None]
    low, top, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((f - low) / (top - low), (high - f) / (high - top)))


def features(x, filters):
    """Log-mel energies of the steps of every frame, (frames, steps * bands)."""
    side = (TRANSFORM - STEP) // 2
    padded = np.pad(x, side)
    steps = np.lib.stride_tricks.sliding_window_view(padded, TRANSFORM)[::STEP]
    power = np.abs(np.fft.rfft(steps * np.hanning(TRANSFORM + 1)[:-1])) ** 2
    return np.log(power @ filters + 1e-2).reshape(len(x) // FRAME, -1).astype(np.float32)


def nearest(x, means):
    """The number of the nearest mean of every row."""
    return np.concatenate([np.argmin((means**2).sum(1) - 2 * part @ means.T, 1) for part in np.array_split(x, len(x) // 4096 + 1)])


def residual_means(x, codebooks, size, rng):
    """Codes (rows, codebooks), and the share of the variance they leave."""
    codes, rest = [], x - x.mean(0)
    whole = (rest**2).sum()
    for _ in range(codebooks):
        means = rest[rng.choice(len(rest), size, replace=False)]
        for _ in range(25):
            own = nearest(rest, means)
            counts = np.bincount(own, minlength=size)
            used = np.flatnonzero(counts)
            starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
            sums = np.add.reduceat(rest[np.argsort(own, kind="stable")], starts)
            means[used] = sums / counts[used, None]
            # A mean that nobody is near goes where one is needed.
            far = np.argsort(-((rest - means[own]) ** 2).sum(1))[: (counts == 0).sum()]
            means[counts == 0] = rest[far]
        own = nearest(rest, means)
        codes.append(own)
        rest = rest - means[own]
    return np.stack(codes, 1), (rest**2).sum() / whole


def speak(args, speaker):
    clips = [spoken(speaker, np.random.default_rng([args.seed, 2, i]), args.longest) for i in range(args.speak)]
    filters = bands()
    frames = [features(x, filters) for x, _ in clips]
    codes, left = residual_means(np.concatenate(frames), args.codebooks, args.size, np.random.default_rng([args.seed, 3]))
    at = 0
    with open(args.folder / "speak.jsonl", "w") as manifest:
        for i, ((x, text), own) in enumerate(zip(clips, frames)):
            name = f"wav/speak-{i:05}.wav"
            write(args.folder / name, x, OUT_RATE)
            row = {"audio": name, "text": text, "codes": codes[at : at + len(own)].tolist()}
            if i < args.questions:
                asked, rate, _ = clip(speaker, "train", text.split(), np.random.default_rng([args.seed, 4, i]), args)
                row["question"] = f"wav/ask-{i:05}.wav"
                write(args.folder / row["question"], asked, rate)
            manifest.write(json.dumps(row) + "\n")
            at += len(own)
    print(f"speak: {len(clips)} clips, {at * FRAME / OUT_RATE / 60:.1f} minutes, codes leave {100 * left:.1f} % of the variance")


def write(path, x, rate):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(x * 32767), -32768, 32767).astype("<i2").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--longest", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variants", type=int, default=None, help="only so many of the trained variants")
    parser.add_argument("--speak", type=int, default=0)
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--codebooks", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    (args.folder / "wav").mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    for part, count in [("train", args.train), ("test", args.test)]:
        seconds = 0.0
        with open(args.folder / f"{part}.jsonl", "w") as manifest:
            for i in range(count):
                # A stream of its own for every clip: more clips leave the first ones as they were.
                rng = np.random.default_rng([args.seed, part == "test", i])
                x, rate, row = clip(speaker, part, drawn(rng, args.longest), rng, args)
                name = f"wav/{part}-{i:05}.wav"
                write(args.folder / name, x, rate)
                seconds += row["seconds"]
                manifest.write(json.dumps({"audio": name, **row}) + "\n")
        print(f"{part}: {count} clips, {seconds / 60:.1f} minutes")
    if args.speak:
        speak(args, speaker)


if __name__ == "__main__":
    main()

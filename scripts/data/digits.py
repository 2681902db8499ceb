#!/usr/bin/env python3
"""Spoken strings of digits, for training and measuring a model that transcribes them.

Uses libespeak-ng (apt install espeak-ng) and numpy. Writes `FOLDER/wav/*.wav` and two manifests,
`FOLDER/train.jsonl` and `FOLDER/test.jsonl`, one clip a line:

    {"audio": "wav/train-00001.wav", "text": "three seven", "words": [["three", 0.03, 0.31], ..], ..}

Paths start at the manifest, times are seconds. The test set has only voices and speeds that the
training set never has: other accents, other variants and other words per minute, a few of them slower
and faster than anything trained on. Same arguments, same files (and the same version of espeak-ng).

usage: digits.py FOLDER [--train 8000] [--test 400] [--longest 8] [--seed 1]
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
              "travis", "victor"],
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


def clip(speaker, part, rng, longest):
    """One clip: samples, rate and its line of the manifest."""
    pick = lambda values: values[rng.integers(len(values))]
    words = [WORDS[i] for i in rng.integers(10, size=rng.integers(1, longest + 1))]
    variant = pick(VARIANTS[part])
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
    args = parser.parse_args()
    (args.folder / "wav").mkdir(parents=True, exist_ok=True)
    speaker = Speaker()
    for part, count in [("train", args.train), ("test", args.test)]:
        seconds = 0.0
        with open(args.folder / f"{part}.jsonl", "w") as manifest:
            for i in range(count):
                # A stream of its own for every clip: more clips leave the first ones as they were.
                rng = np.random.default_rng([args.seed, part == "test", i])
                x, rate, row = clip(speaker, part, rng, args.longest)
                name = f"wav/{part}-{i:05}.wav"
                write(args.folder / name, x, rate)
                seconds += row["seconds"]
                manifest.write(json.dumps({"audio": name, **row}) + "\n")
        print(f"{part}: {count} clips, {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()

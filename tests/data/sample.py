#!/usr/bin/env python3
"""Writes sample.ndjson beside itself: made-up events, always the same, with what real ones surprise with.

Names that URLs, JSON and XML find hard; late, early and equal times in every accepted form; missing, empty and odd
members; the same event again, byte for byte. Some events are refused, and are meant to be.
"""

import json
import pathlib
import random

USERS = [
    "ann", "ann", "ann", "ann", "ann",  # busy: more edits than a feed keeps
    "Ünïcödé 猫", "a/b", "a//b/", "#hash", "50% off", "%2F", "%", "dot.name", "...", ".", "..", "with space", "q?x=1&y=2",
    "quote\"back\\slash", "emoji 🦆", "plus+semi;comma,", "~tilde_-", "<b>&amp;</b>", "tab\there", "'", "{key}", "İi",
    "x" * 180, 42, -7, True, " lead and trail ", "e\u0301 combining", "\u202eright to left", "ANN", "Ann",
]
CHANNELS = ["#en.wikipedia"] * 6 + ["#zh.wikipedia", "de/at", "100%", "..", "", "日本", 7]
PAGES = [
    "Main", "Main", "Talk:Ä/b#c", "100% of ?&=", "", ".", "..", "...", "<![CDATA[x]]>", "猫", "a\u0000b", "\ud7ff\ufffe",
    "  padded\u00a0 ", "   ", "line\r\nbreak\ttab", "\\", "'\"", "]]>", 5, 1.5, False, ["a", {"b": 1}], "%41", "A",
]
COMMENTS = [
    "fixed a typo", "", "R&D <script>alert(1)</script>", "zero\u0000bell\u0007", "one\r\ntwo\rthree\nfour", " spaces ",
    "emoji 🦆🦆", "\ud7ff\ue000\uffff", None, 3, "&#0; &amp; ]]> <!-- -->", "tab\tend\t",
]
BAD_TIMES = ["yesterday", "", None, "2015-09-31T00:00:00Z", "1500-01-01T00:00:00Z", [1], True]


def time(chance, step):
    """Around one moment, forward with `step` but often late or early, in one of the forms that are times."""
    ms = 1442016000000 + step * 997 + chance.choice([0, 0, 0, -3_600_000, 3_600_000, -86_400_000])
    if chance.random() < 0.3:
        ms = 1442016000000  # the same for many
    seconds, rest = divmod(ms, 1000)
    hour, minute, second = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    day = 12 + (seconds - 1442016000) // 86400
    clock = lambda hours: f"2015-09-{day:02}T{hours:02}:{minute:02}:{second:02}"
    forms = [f"{clock(hour)}.{rest:03}Z", f"{clock(hour)}.{rest:03}000000Z", f"{clock(hour)}.{rest:03}+00:00", ms]
    if hour < 22:
        forms.append(f"{clock(hour + 2)}.{rest:03}+02:00")
    if rest == 0:
        forms += [f"{clock(hour)}Z", seconds, f"{clock(hour).lower()}z"]
    return chance.choice(forms)


def event(chance, step):
    made = {
        "time": time(chance, step),
        "channel": chance.choice(CHANNELS),
        "page": chance.choice(PAGES),
        "user": chance.choice(USERS),
        "comment": chance.choice(COMMENTS),
        "isRobot": chance.choice([False, False, False, True, None, "false", 0]),
        "delta": chance.choice([step, -step, 0, 1e3, 0.5, None, "3", 9007199254740993, [1, None]]),
    }
    odd = chance.random()
    if odd < 0.1:
        made.pop(chance.choice(list(made)))
    elif odd < 0.13:
        made["user"] = chance.choice(["", None, [], {}])
    elif odd < 0.16:
        made["time"] = chance.choice(BAD_TIMES)
    members = list(made.items())
    chance.shuffle(members)
    escape = chance.random() < 0.5
    separators = chance.choice([(",", ":"), (", ", ": "), (" ,  ", " : ")])
    return json.dumps(dict(members), ensure_ascii=escape, separators=separators)


def main():
    chance = random.Random(7)
    lines = []
    for step in range(640):
        lines.append(event(chance, step))
        if step % 11 == 10:
            lines.append(chance.choice(lines))
    # White space around an event is not part of it.
    lines = [f"  {line}\t" if step % 50 == 49 else line for step, line in enumerate(lines)]
    target = pathlib.Path(__file__).with_name("sample.ndjson")
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogatepass", newline="\n")


main()

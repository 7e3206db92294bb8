"""The lessons in other languages: complete, current, with the terms, numbers, code and links of the English."""

import json
import re
import sys
import zlib
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import handout  # noqa: E402
import language  # noqa: E402

from minst.visualize import fonts  # noqa: E402

FILES = [
    pytest.param(name, said, id=f"{said}-{Path(name).stem}")
    for said in language.LANGUAGES
    for name in [f"{p.stem}.md" for p in sorted((NOTEBOOKS / "source").glob("*.py"))] + language.DOCUMENTS
    if language.source(name, said).exists()
]
TEXTS = FILES + [pytest.param("words.json", said, id=f"{said}-words") for said in language.LANGUAGES]
FENCE = re.compile(r"```.*?```", re.DOTALL)
CODE = re.compile(r"(`+)([^`]+)\1")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MONTHS = "January February March April May June July August September October November December".split()
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
POLITE = re.compile(r"(?:해요|예요|이에요|네요|어요|아요|죠|군요)[.?!]")


def pairs(name, said):
    """(English, translated) texts."""
    if name == "words.json":  # of the hand-out and the slides
        return [pair for part in ("handout", "slides") for pair in language.words(said)[part].items()]
    known = language.translated(name, said)
    return [(text, known[language.digest(text)]) for text in language.english(name) if language.digest(text) in known]


def bare(text):
    """Without code, links and their targets."""
    return re.sub(r"\]\([^)]*\)", "]", CODE.sub(" ", FENCE.sub(" ", text)))


def numbers(text):
    """Digits of the words, none of names such as X3 or P5, sorted."""
    for number, month in enumerate(MONTHS, 1):  # Korean counts its months
        text = re.sub(rf"\b{month}\b(?= \d)|(?<=\d ){month}\b", str(number), text)
    text = re.sub(r"[A-Za-z_][A-Za-z_]*\d+\w*", " ", bare(text))
    return sorted(NUMBER.findall(text))


@pytest.mark.parametrize(("name", "said"), FILES)
def test_every_text_is_translated_and_its_english_unchanged(name, said):
    assert not language.missing(name, said), "python notebooks/language.py shows what is to do"
    known, now = language.translated(name, said), {language.digest(text) for text in language.english(name)}
    assert set(known) == now, "python notebooks/language.py takes out what is no longer asked for"


@pytest.mark.parametrize(("name", "said"), TEXTS)
def test_code_links_and_numbers_are_those_of_the_english(name, said):
    for text, other in pairs(name, said):
        where = text.splitlines()[0]
        codes = [sorted(body.strip() for _, body in CODE.findall(FENCE.sub(" ", one))) for one in (text, other)]
        assert codes[0] == codes[1], where
        assert sorted(LINK.findall(text)) == sorted(LINK.findall(other)), where
        assert numbers(text) == numbers(other), where
        assert text.count("<details>") == other.count("<details>"), where
        # `text` blocks may hold words; blocks of commands and code stay as they are
        blocks = [[b for b in FENCE.findall(one) if not b.startswith("```text")] for one in (text, other)]
        assert blocks[0] == blocks[1], where
        assert len(FENCE.findall(text)) == len(FENCE.findall(other)), where


@pytest.mark.parametrize(("name", "said"), TEXTS)
def test_a_term_is_said_with_its_own_word(name, said):
    decided = language.terms(said)
    for text, other in pairs(name, said):
        words = bare(text).lower()
        for term, allowed in decided.items():
            if re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", words):
                found = any(one in other for one in allowed)
                assert found, f"{text.splitlines()[0]}: {term} is {' or '.join(allowed)}"


@pytest.mark.parametrize(("name", "said"), [f for f in TEXTS if f.values[1] == "ko"])
def test_korean_keeps_one_tone(name, said):
    for text, other in pairs(name, said):
        found = POLITE.findall(bare(other))
        assert not found, f"{text.splitlines()[0]}: write 합니다체, not {found}"
        letters = re.findall(r"[가-힣]", other)
        wordy = len(re.findall(r"[A-Za-z]{3,}", bare(text))) > 8
        assert letters or not wordy, f"{text.splitlines()[0]}: is not Korean"


@pytest.mark.parametrize("said", language.LANGUAGES)
def test_a_translated_lesson_was_run_as_the_english_one(said):
    for path in sorted((NOTEBOOKS / said).glob("*.ipynb")):
        mine, theirs = (
            [cell.execution_count for cell in nbformat.read(one, 4).cells if cell.cell_type == "code"]
            for one in (path, NOTEBOOKS / path.name)
        )
        assert mine == theirs and None not in mine, path.name


@pytest.mark.parametrize("said", language.LANGUAGES)
def test_the_builder_has_its_words(said):
    lessons = {path.stem for path in (NOTEBOOKS / "source").glob("*.py")}
    assert set(language.words(said)["lessons"]) == lessons
    assert json.dumps(language.words(said))


def objects_of(path):
    """{number: (its dictionary, its stream unpacked)} of a PDF."""
    found = {}
    for number, body in re.findall(rb"(?s)(\d+) 0 obj\n(.*?)\nendobj", path.read_bytes()):
        head, _, stream = body.partition(b"stream\n")
        found[int(number)] = head, zlib.decompress(stream) if b"Flate" in head and b"/Image" not in head else b""
    return found


def reference(head, key):
    return int(re.search(rb"/%s (\d+) 0 R" % key, head)[1])


def read_pdf(path):
    """The text of a page by matplotlib, and {(font, character): its outline}; its fonts are of type 3."""
    objects, meaning, outlines = objects_of(path), {}, {}
    for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", b"".join(head for head, _ in objects.values())):
        font = objects[int(number)][0]
        shapes = dict(re.findall(rb"/(\S+) (\d+) 0 R", objects[reference(font, b"CharProcs")][0]))
        code = 0
        for word in re.search(rb"(?s)/Differences \[(.*?)\]", font)[1].split():
            code = int(word) if word.isdigit() else code + 1
            if not word.isdigit():
                outlines[name, code - 1] = objects[int(shapes[word[1:]])][1]
        table = objects[reference(font, b"ToUnicode")][1]
        for first, codes in re.findall(rb"<(\w+)> <\w+> \[(.*?)\]", table):
            for i, point in enumerate(re.findall(rb"<(\w+)>", codes)):
                meaning[name, int(first, 16) + i] = bytes.fromhex(point.decode()).decode("utf-16-be")
    (page,) = (head for head, _ in objects.values() if b"/Type /Page " in head)
    text, font = "", b""
    for name, shown in re.findall(rb"(?s)/(F\d+) \S+ Tf|\(((?:\\.|[^\\)])*)\)", objects[reference(page, b"Contents")][1]):
        font = name or font
        codes = re.sub(rb"(?s)\\(.)", lambda m: {b"n": b"\n", b"r": b"\r"}.get(m[1], m[1]), shown)
        text += "".join(meaning[font, code] for code in codes)
    return text, {(font, meaning[font, code]): shape for (font, code), shape in outlines.items()}


@pytest.mark.parametrize("said", ["en", *language.LANGUAGES])
def test_the_hand_out_says_all_its_words_and_each_letter_has_its_own_outline(said):
    text, outlines = read_pdf(NOTEBOOKS / ("" if said == "en" else said) / "handout.pdf")
    words = language.words("ko")["handout"]
    expected = words if said == "en" else language.words(said)["handout"].values()
    assert [word for word in expected if "".join(word.split()) not in "".join(text.split())] == []
    hangul = {letter: shape for letter, shape in outlines.items() if "가" <= letter[1] <= "힣"}
    assert {letter for _, letter in hangul} == set(re.findall("[가-힣]", "".join(expected)))  # each embedded
    assert len(set(hangul.values())) == len(hangul)  # and no two alike, as boxes would be


def test_every_word_of_the_hand_out_is_translated_and_its_equations_stay():
    english = [text.get_text() for text in handout.handout().texts]
    for said in language.LANGUAGES:
        words = language.words(said)["handout"]
        assert set("\n".join(english).splitlines()) == set(words)
        assert [text for text in words if "√" in text or " = " in text or "+ 2" in text] == [text for text in words if text == words[text]]


def test_without_a_font_for_hangul_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(fonts, "_font_with", lambda wanted: None)
    with pytest.raises(SystemExit, match=r"\.\[fonts\]") as said:
        handout.handout("ko")
    assert "\n" not in str(said.value)
    assert handout.handout("en").texts  # which needs none


def test_words_that_were_changed_are_asked_for_again():
    word = language.say("slides", "ko")
    assert word("Next") == "다음" and language.say("slides", "en")("Next!") == "Next!"
    with pytest.raises(SystemExit, match=r"source/ko/words.json, 'slides': there is no 'Next!'"):
        word("Next!")


def test_a_changed_text_is_to_do_again(tmp_path, monkeypatch):
    monkeypatch.setattr(language, "HERE", tmp_path)
    (tmp_path / "source" / "ko").mkdir(parents=True)
    lesson = tmp_path / "source" / "00_a.py"
    lesson.write_text("# %% [markdown]\n# One.\n\n# %%\nx = 1\n\n# %% [markdown]\n# Two.\n")
    assert language.update("00_a.md", "ko") == "00_a.md: 2 of 2 to do"
    path = language.source("00_a.md", "ko")
    path.write_text(path.read_text().replace("todo ", "").replace("\nOne.", "\n하나.").replace("\nTwo.", "\n둘."))
    assert language.missing("00_a.md", "ko") == []
    assert list(language.translated("00_a.md", "ko").values()) == ["하나.", "둘."]
    lesson.write_text(lesson.read_text().replace("One.", "One more."))
    assert language.missing("00_a.md", "ko") == ["One more."]
    assert language.update("00_a.md", "ko") == "00_a.md: 1 of 2 to do"
    assert "One more.\n\n<!-- was -->\n하나." in path.read_text() and "둘." in path.read_text()
    assert list(language.translated("00_a.md", "ko").values()) == ["둘."]
    once = path.read_text()
    assert language.update("00_a.md", "ko") == "00_a.md: 1 of 2 to do" and path.read_text() == once  # nothing is lost


def test_a_document_is_cut_at_its_headings_and_without_what_is_generated():
    text = "# A\n\n| no | lesson |\n|---|---|\n| 00 | x |\n\nend\n\n## B\n\n```\n## no heading\n```\n"
    first, second = language.sections(text)
    assert first == "# A\n\n<!-- table of lessons -->\n\nend"
    assert second == "## B\n\n```\n## no heading\n```"

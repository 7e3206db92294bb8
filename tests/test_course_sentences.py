"""What checks say can be translated: whole sentences, written as plain literals, all through `say`."""

import ast
import inspect
import re
import string
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_course import LESSONS, each_exercise

from minst.course import lesson00, verdict

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
import language  # noqa: E402
from test_language import POLITE  # noqa: E402

WORDS = re.compile(r"[a-z]{3}")
PLACES = re.compile(r"(value|\w*\[)[^⟦⟧]*: (?=⟦)")  # "value[1]: " in front of a sentence


def literals(module) -> set[str]:
    """The texts of a module as they stand in its source; of a docstring its first line as well."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts | {text.splitlines()[0] for text in texts if text}


def plain(node: ast.AST):
    """The sentences in a value, those of functions in it left out."""
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        if WORDS.search(text) and " " in text and re.search("[.:?{]", text):
            yield text
    elif not isinstance(node, (ast.Lambda, ast.JoinedStr, ast.Compare, ast.Subscript)):
        called = isinstance(node, ast.Call)
        for part in node.args if called and called_name(node) in SAYERS else [] if called else ast.iter_child_nodes(node):
            yield from plain(part)


def called_name(node: ast.Call) -> str:
    return getattr(node.func, "id", "")


SAYERS = {"say": 0, "wrong": 0, "judge": 3, "examine": 3}  # the first argument that may be a sentence
KNOWN = {"SAID", "INSTEAD", "RUNNING", "mistakes", "hints", "itself"}  # names whose sentences are said by another name


def sentences(module) -> list[str]:
    """All sentences that a module may say, in its order: given to SAYERS as they are, or by a name; and what `examine` expects."""
    found = {}
    for top in ast.parse(inspect.getsource(module)).body:
        calls = [node for node in ast.walk(top) if isinstance(node, ast.Call) and called_name(node) in SAYERS]
        given = [arg for call in calls for arg in call.args[SAYERS[called_name(call)] :]]
        given += [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "praise"]
        names = KNOWN | {n.id for arg in given for n in ast.walk(arg) if isinstance(n, ast.Name)}
        for node in ast.walk(top):
            if isinstance(node, ast.Assign) and names & {n.id for of in node.targets for n in ast.walk(of) if isinstance(n, ast.Name)}:
                found |= {text: node.lineno for text in plain(node.value) if text not in found}
        found |= {text: arg.lineno for arg in given for text in plain(arg) if text not in found}
        if "examine" in map(called_name, calls) and module is not verdict:
            found.setdefault(ast.get_docstring(top).splitlines()[0], top.lineno)
    return sorted(found, key=found.get)


KOREAN = language.verdicts("ko")
LITERALS = [literals(verdict) | literals(lesson) for lesson in LESSONS]


def stub(*given):
    raise NotImplementedError


ANSWERS = [
    stub,
    3,
    lambda *given: None,
    lambda *given: 1 / 0,
    lambda *given: given[0],
    lambda *given: torch.zeros(2, 1),
    lambda *given: np.zeros(3),
    lambda *given: "agrees",
    lambda *given: (1, [2, 3]),
    lambda *given: {"a": 1},
]


def unsaid(reason: str) -> str:
    """What is left of a reason without all that went through `say`."""
    while "⟦" in reason:
        reason, count = re.subn(r"⟦[^⟦⟧]*⟧", "", PLACES.sub("", reason))
        assert count, reason
    return reason.strip()


@each_exercise
def test_a_check_says_nothing_but_sentences_of_its_source(number, name, monkeypatch):
    heard = []

    def bracketed(*sentences, **values):
        heard.extend(sentences)
        return " ".join(f"⟦{sentence.format(**values)}⟧" for sentence in sentences if sentence)

    for module in (verdict, LESSONS[number]):
        monkeypatch.setattr(module, "say", bracketed, raising=False)
    check = getattr(LESSONS[number], name)
    for answer in ANSWERS:
        reason = check(answer).reason
        assert reason and not unsaid(reason), reason
    assert check(check(stub).or_ours), "ours is right, and its praise may be a sentence, too"
    said = {sentence for sentence in heard if WORDS.search(sentence)}
    assert said <= LITERALS[number] and said <= set(KOREAN)


@pytest.mark.parametrize("number", range(12))
def test_every_sentence_of_a_fault_is_a_literal_that_is_said(number):
    """Also those that no answer above provokes."""
    functions = [n for n in ast.walk(ast.parse(inspect.getsource(LESSONS[number]))) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        if function.name not in ("fault", "_trouble"):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.JoinedStr):
                assert not WORDS.search("".join(p.value for p in node.values if isinstance(p, ast.Constant)))
            if isinstance(node, ast.Return) and not isinstance(node.value, (ast.Call, ast.Compare)):
                said = node.value.body if isinstance(node.value, ast.IfExp) else node.value
                assert ast.unparse(said) == "''" or isinstance(said, ast.Call), ast.unparse(node)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                assert not any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in ast.walk(node))


def test_the_listed_hints_and_the_praise_are_plain_literals():
    for lesson in LESSONS:
        for node in ast.walk(ast.parse(inspect.getsource(lesson))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("mistakes", "praise", "hint", "wrong"):
                values = node.value.elts if isinstance(node.value, ast.List) else [node.value]
                assert not any(isinstance(value, (ast.JoinedStr, ast.BinOp)) for value in values), ast.unparse(node)
            assert not isinstance(node, ast.AugAssign) or getattr(node.target, "id", "") not in ("hint", "wrong", "praise")


def test_say_fills_in_values_and_joins_sentences():
    assert verdict.say("it is {n:.1f}.", "", "Is that {{much}}?", n=2) == "it is 2.0. Is that {much}?"


def test_every_sentence_has_its_korean_and_none_is_left_over():
    asked = list(dict.fromkeys(text for module in (verdict, *LESSONS) for text in sentences(module)))
    assert len(asked) > 400
    assert [text for text in asked if text not in KOREAN] == [], "write them in minst/course/ko.json"
    assert list(KOREAN) == asked, "in the order of the modules, none of them twice, none that nobody says"


def fields(text):
    return sorted((name, how, kind or "") for _, name, how, kind in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("text", KOREAN)
def test_the_korean_has_the_fields_numbers_code_and_terms_of_the_english(text):
    other = KOREAN[text]
    assert fields(text) == fields(other)
    bare = [re.sub(r"{[^}]*}", " ", one) for one in (text, other)]
    digits, code = re.compile(r"\d+(?:\.\d+)?"), re.compile(r"`[^`]*`")
    assert set(digits.findall(bare[0])) <= set(digits.findall(bare[1]))
    assert sorted(code.findall(text)) == sorted(code.findall(other))
    words = re.sub(r"^\w+\(.*?\) ->|`[^`]*`|\w+\.\w[\w.]*|\w+\(", " ", bare[0]).lower()
    for term, allowed in language.terms("ko").items():
        if re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", words):
            assert any(one in other for one in allowed), f"{term} is {' or '.join(allowed)}"


@pytest.mark.parametrize("text", KOREAN)
def test_the_korean_keeps_one_tone(text):
    other = KOREAN[text]
    assert re.search("[가-힣]", other) or not WORDS.search(re.sub(r"{[^}]*}", "", text))
    assert not POLITE.findall(other)
    for end in re.findall(r"([가-힣]+)[.?](?=\s|$)", "" if ") ->" in other else other):  # what is expected is no sentence
        assert end.endswith(("니다", "세요", "까요", "니까", "나요")), end


def test_a_verdict_is_korean_where_the_lesson_asks_for_it(monkeypatch):
    def sums(scores):
        return [sum(scores[: t + 1]) for t in range(len(scores))]

    monkeypatch.setenv("MINST_LANGUAGE", "ko")
    said = str(lesson00.running_mean(sums))
    assert re.match(r"✘ running_mean: 틀렸습니다\. value\[1\]: 결과는 [\d.]+, 기댓값은 [\d.]+입니다\. 이것은 합입니다\. ", said)
    assert "지금까지 본 프레임의 수로 나누세요. 이렇게 호출했습니다: running_mean([" in said
    assert verdict.say("nobody has {n} of it.", n=1) == "nobody has 1 of it."  # no entry
    for other in (None, "", "en", "fr", "KO"):
        monkeypatch.delenv("MINST_LANGUAGE") if other is None else monkeypatch.setenv("MINST_LANGUAGE", other)
        said = str(lesson00.running_mean(sums))
        assert re.match(r"✘ running_mean: wrong, because .*These are sums; divide by the number of frames", said)


def test_the_tutors_list_and_the_outputs_of_a_lesson_are_korean():
    import build

    hints = re.findall(r"^  - (.*)", build.mistakes("ko"), re.MULTILINE)
    assert len(hints) == len(re.findall(r"^  - ", build.mistakes(), re.MULTILINE)) and set(hints) <= set(KOREAN.values())
    assert "### 01 과제와 데이터" in build.mistakes("ko")
    book = build.notebook(1)
    build.keep_outputs(book, build.HERE / "01_task_and_data.ipynb")
    build.translate_verdicts(book, "ko")
    shown = [output.get("data", {}).get("text/plain", "") for cell in book.cells for output in cell.get("outputs", [])]
    said = "○ tube_iou: 아직 풀지 않았습니다. NotImplementedError를 일으키는 줄을 여러분의 답으로 바꾸고, 두 셀을 다시 실행하세요."
    assert said in shown and sum(text.startswith("○ ") for text in shown) == 5
    assert not any("not attempted" in text for text in shown)

"""What checks say can be translated: whole sentences, written as plain literals, all through `say`."""

import ast
import inspect
import re

import numpy as np
import pytest
import torch
from test_course import LESSONS, each_exercise

from minst.course import verdict

WORDS = re.compile(r"[a-z]{3}")
PLACES = re.compile(r"(value|\w*\[)[^⟦⟧]*: (?=⟦)")  # "value[1]: " in front of a sentence


def literals(module) -> set[str]:
    """The texts of a module as they stand in its source; of a docstring its first line as well."""
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts | {text.splitlines()[0] for text in texts if text}


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
    assert {sentence for sentence in heard if WORDS.search(sentence)} <= LITERALS[number]


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

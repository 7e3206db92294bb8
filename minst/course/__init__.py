"""Verdicts for the exercises of the lessons: `from minst.course import lesson01 as check`, then `check.tube_iou(tube_iou)`.

    verdict.py      judge(answer, reference, draw, mistakes) -> Verdict: not attempted | wrong, because ... | correct
    lesson00.py ..  one function an exercise; what students get wrong is written down there as code, beside its hint

Lesson: notebooks/00_start_here.ipynb
"""

"""Verdicts on the exercises: `from minst.course import lesson01 as check`, `check.tube_iou(mine)`.

    verdict.py      judge(answer, reference, draw, mistakes) -> not attempted | wrong | correct
    lesson00.py ..  one function an exercise; what students get wrong is code, below its hint

Lesson: notebooks/00_start_here.ipynb
"""

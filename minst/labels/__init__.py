"""Data sets of your own: converted from what annotation tools write, checked, split.

    minst data convert   `convert`   labelme, CVAT, COCO, MOTS, DAVIS -> YouTube-VIS form, and back
    minst data check     `check`     every problem of a data set, named with file and entry
    minst data split     `split`     a local split that anybody can make again

Lesson: notebooks/10_capstone.ipynb
"""

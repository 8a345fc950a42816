"""x"""
from pathlib import Path
from energydiff.report.memorisation import write_study
def test_all(make_record, tmp_path):
    r = make_record(shape=(1, 8, 8))
    for s in write_study(r, tmp_path): print(s)

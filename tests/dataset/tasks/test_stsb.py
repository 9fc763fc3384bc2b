"""STS-B is a regression from 0 to 5."""

import pytest

from dataset.task import LabelFault
from dataset.tasks.stsb import TASK

ROWS = [
    {"sentence1": "A man runs.", "sentence2": "A man is running.", "label": 4.8},
    {"sentence1": "A dog.", "sentence2": "A plane.", "label": 0.0},
]
HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
LABELLED = (
    f"{HEADER}\tscore\n"
    "0\tmain\tx\t2012\t1\tnone\tnone\tA man runs.\tA man is running.\t4.800\n"
    "1\tmain\tx\t2012\t2\tnone\tnone\tA dog.\tA plane.\t0.000\n"
)
TEST = f"{HEADER}\n0\tmain\tx\t2012\t1\tnone\tnone\tA cat.\tA car.\n"
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": TEST}


@pytest.mark.parametrize("label", ["5.1", "-0.1", "nan", "inf", "1_0", "four", True, 10**400])
def test_score_outside_0_to_5_is_refused(label):
    task = TASK.build(TASK.options())
    with pytest.raises(LabelFault, match="allowed are 0 to 5"):
        task.example({"sentence1": "a", "sentence2": "b", "label": label})

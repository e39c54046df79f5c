"""Tasks and protocols: predictions, and numbers from predictions. One path for fit, validate, test and reload."""

from viker_lightning.metrics.prediction import Prediction

from .answering import in_order, largest_pass, predict
from .fluency import note_form, score_texts
from .knowledge import Knowledge, measure_health, measure_knowledge
from .protocols import CORRECTED, ClosedTask, FewShotQuestion, Protocol, Task
from .summary import SummaryMetric, by_person, by_request, distances, person_sums, summarise

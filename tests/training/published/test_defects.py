"""Every known defect of the published code, and the test that shows what it changes.

Numbered by where they are: P in several papers' code, M in MLLMU-Bench's, C in CLEAR's, U in MMUnlearner's, of which
only what concerns code that we have, too (the learning rate of its masks does not); O in open-unlearning's, J in
JensUn's, S in SCRUB's; W in the code of methods that read hidden states, edit weights or shape gradients: RMU,
MMUnlearner, GRU, KVW, MANU, task vectors, SAM.

P1   truth ratio: one mean for all questions      training/published/test_clear.py::test_truth_ratio_over_the_whole_task
P2   CLEAR's NPO reads no answer training/published/test_objectives.py::test_npo_of_clear_does_not_read_the_answer
P3   CLEAR's DPO is refusal training        training/published/test_objectives.py::test_dpo_of_clear_is_refusal_training
P4   KL over padding and image     training/published/test_objectives.py::test_published_kl_depends_on_padding_and_image
P5   MLLMU's KL is summed over tokens       training/published/test_objectives.py::test_kl_minimization_sums_over_tokens
P5   and comes in a pass of its own                  training/published/test_runs.py::test_two_passes_equal_a_plain_loop
P6   prompt in the loss                   training/published/test_labels.py::test_published_labels_give_the_scripts_loss
P6   image placeholders in the loss    training/published/test_labels.py::test_image_labels_give_the_scripts_other_loss
P7   NPO against a gold model                            training/published/test_runs.py::test_npo_with_a_gold_reference
P8   adapters in the vision tower      training/published/test_runs.py::test_suffixes_put_adapters_into_the_vision_tower
P9   examples without seed        training/published/test_mllmu.py::test_examples_are_seeded_and_their_people_not_scored
P9   prompt and answer decoded together, then split            models/test_mllm.py::test_generation_equals_transformers
P10  extraction strength never 0    evaluation/test_evaluation.py::test_extraction_strength_of_an_answer_without_its_end
P11  ICD is gradient ascent            training/published/test_objectives.py::test_icd_without_its_kl_is_gradient_ascent
P12  an AUC near 0 called success      evaluation/test_summary.py::test_over_unlearned_is_as_far_from_gold_as_untouched

M1   no seed                                                       data/test_sampling.py::test_epochs_differ_and_repeat
M2   adapters in the vision tower      training/published/test_runs.py::test_suffixes_put_adapters_into_the_vision_tower
M3   labels on the whole sequence                           training/published/test_runs.py::test_finetuning_on_all_text
M4   examples overflow the context      training/published/test_few_shot.py::test_overflow_drops_examples_from_the_front
M5   turns that nobody answers    training/published/test_mllmu.py::test_examples_are_seeded_and_their_people_not_scored
M6   examples looked up among other people          training/published/test_few_shot.py::test_real_people_of_the_same_id
M7   false is true                                               training/published/test_defects.py::test_false_is_false
M8   pickled splits                                 training/published/test_defects.py::test_pickled_splits_are_not_read
M9   NPO on a batch's mean                                    training/published/test_objectives.py::test_npo_of_a_batch
M9   KL grows with length                   training/published/test_objectives.py::test_kl_minimization_sums_over_tokens
M10  two passes, not a sum                                                  data/test_passes.py::test_passes_take_turns
M11  fixed cache folders                   training/published/test_defects.py::test_caches_are_where_the_user_wants_them
M11  training in half precision                                        training/test_engine.py::test_every_lora_b_moves

C1   answers without the image                    training/published/test_clear.py::test_clear_answers_without_the_image
C2   ROUGE of nothing                                      evaluation/test_evaluation.py::test_summary_in_plain_numbers
C3   refusals replaced by the truth        training/published/test_runs.py::test_idk_trains_on_refusals_not_on_the_truth
C4   nothing is frozen                 training/published/test_runs.py::test_suffixes_put_adapters_into_the_vision_tower
C5   different questions for one caption            training/published/test_clear.py::test_clear_mixes_caption_questions
C6   truth ratio: one mean for all questions      training/published/test_clear.py::test_truth_ratio_over_the_whole_task
C7   NPO                               training/published/test_objectives.py::test_npo_of_clear_does_not_read_the_answer
C7   DPO                                    training/published/test_objectives.py::test_dpo_of_clear_is_refusal_training
C8   image placeholder of Qwen alone training/published/test_labels.py::test_image_tokens_do_not_count_unless_asked
C9   prediction fails                                           cli/test_fit.py::test_validate_equals_the_end_of_fit
C10  README names files that are not there           training/published/test_defects.py::test_readme_names_what_is_there

U1   a stale answer is scored                      evaluation/test_evaluation.py::test_answers_do_not_depend_on_company
U2   case decides                                                      metrics/test_metric_text.py::test_choice_correct
U3   failed steps are hidden                                                   cli/test_fit.py::test_non_finite_loss
U4   a second epoch finds no data                      training/published/test_runs.py::test_turns_log_what_they_measure

O1   UNDIAL over prompt and padding          methods/test_undial.py::test_the_published_mean_is_over_prompt_and_padding
O2   a model that nobody asks                            methods/test_satimp.py::test_no_model_is_kept_that_nobody_asks
O3   SatImp's class and YAML disagree                       methods/test_satimp.py::test_defaults_are_those_of_the_yaml
O4   CE-U of answers of one token is nan                                 methods/test_ceu.py::test_answers_of_one_token
O5   PDU flattens one token too late                      methods/test_pdu.py::test_the_published_mask_is_one_token_off
O6   PDU's weight lost when resumed         methods/test_pdu.py::test_a_run_that_is_resumed_finds_its_dual_weight_again

J1   a target that is no distribution        methods/test_jensun.py::test_the_first_published_target_is_no_distribution

S1   the optimizer has another model     methods/test_scrub.py::test_the_first_step_moves_a_student_that_is_its_teacher
S2   one turn too many                                                     methods/test_scrub.py::test_whose_turn_it_is
W1   RMU: divided by the length of all questions     methods/test_rmu.py::test_a_question_is_divided_by_its_own_length
W2   RMU: states one token late                   methods/test_rmu.py::test_states_are_those_that_predict_the_answer
W3   MMUnlearner: squares of batches, not of questions          methods/test_mmunlearner.py::test_fisher_is_of_questions
W4   MMUnlearner: clipped, then masked     methods/test_mmunlearner.py::test_a_masked_weight_takes_nothing_of_the_norm
W5   GRU: the retain term of NPO is lost       methods/test_gru.py::test_the_retain_term_of_the_method_inside_stays
W6   KVW: an edit that fails is passed over                 methods/test_kvw.py::test_an_edit_that_fails_is_no_edit
W7   KVW: edits depend on the batch size           methods/test_contract.py::test_an_edit_in_parts_is_the_whole_edit
W8   MANU: padding and images are counted     methods/test_neurons.py::test_activations_are_those_of_each_question_alone
W9   MANU: means of batches' standard deviations                       methods/test_manu.py::test_parts_add_up
W10  task vectors: differences of bf16 weights      methods/test_task_vector.py::test_small_changes_are_not_rounded_away
W11  SAM: of accumulated batches the last counts              methods/test_sam.py::test_all_parts_of_a_step_count
W12  SAM: weights are not moved back exactly                   methods/test_sam.py::test_weights_come_back_exactly
W13  SAM: NPO does not read the answer                            methods/test_sam.py::test_a_loss_with_a_reference
"""

import argparse
import ast
import os
import pickle
import re
from pathlib import Path

import pytest
import yaml

from viker_lightning.cli.main import main
from viker_lightning.data.datasets import MLLMU
from viker_lightning.errors import UserError
from viker_lightning.storage.cache import cache_folder

ROOT = Path(__file__).parents[3]
NUMBERS = {"P": 12, "M": 11, "C": 10, "U": 4, "O": 6, "J": 1, "S": 2, "W": 13}


def rows():
    found = re.findall(r"^([A-Z])(\d+) +\S.* (\S+\.py)::(\w+)$", __doc__, re.MULTILINE)
    assert len(found) == __doc__.count("::")
    return found


def functions(file):
    return {
        node.name for node in ast.parse((ROOT / "tests" / file).read_text()).body if isinstance(node, ast.FunctionDef)
    }


def test_every_defect_has_its_test():
    numbered = {group: {int(n) for g, n, _, _ in rows() if g == group} for group in NUMBERS}
    assert numbered == {group: set(range(1, last + 1)) for group, last in NUMBERS.items()}
    missing = [f"{file}::{name}" for _, _, file, name in rows() if name not in functions(file)]
    assert not missing


def test_false_is_false(capsys):
    """M7: ``type=bool`` makes any word true; here a word is read as what it says, or refused."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=bool)
    assert parser.parse_args(["--before", "False"]).before is True
    command = ["fit", "--config", str(ROOT / "configs/mini/viker.yaml"), "--print_config"]
    with pytest.raises(SystemExit):
        main([*command, "--evaluation.before=False"])
    assert yaml.safe_load(capsys.readouterr().out)["evaluation"]["before"] is False
    with pytest.raises(SystemExit) as stop:
        main([*command, "--evaluation.before=perhaps"])
    assert stop.value.code != 0


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_pickled_splits_are_not_read(tmp_path):
    """M8: a split that is a pickle runs whatever its author wished; here it is no split."""
    for name in ("forget_10.pt", "retain_90.pt", "ft_Data.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(UserError, match="no split 'forget_10'"):
        MLLMU(str(tmp_path)).setup()
    assert not (tmp_path / "trapped").exists()


def test_caches_are_where_the_user_wants_them(monkeypatch, tmp_path):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    assert cache_folder("ideal").is_relative_to(tmp_path)
    sources = [p.read_text() for p in (ROOT / "src").rglob("*.py")]
    assert not any("cache_dir=" in text for text in sources)


def test_readme_names_what_is_there():
    """C10: every path in README and docs that has a folder of this repository in it exists."""
    others = {ROOT / "docs/methods.md", ROOT / "docs/attacks.md"}  # which name files of other repositories
    docs = {*(ROOT / "docs").glob("*.md")} - others
    pages = "".join(page.read_text() for page in [ROOT / "README.md", *docs])
    pages = pages.replace("src/trainer/", "")  # open-unlearning's
    named = set(re.findall(r"(?<![\w./-])(?:configs|src|experiments|benchmarks)/[\w./*-]+", pages))
    assert len(named) > 20
    assert not [name for name in named if not any(ROOT.glob(name))]

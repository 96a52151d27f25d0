"""Tasks of lm-evaluation-harness whose data are JSON files in a folder: no network."""

import json
from pathlib import Path
from typing import Any

CHOICE = [
    {"question": "a cat sat", "gold": 0, "choices": ["on", "mat"]},
    {"question": "two is", "gold": 1, "choices": ["one", "2", "three"]},
    {"question": "", "gold": 0, "choices": ["no", "go"]},
    {"question": "a question longer than a row of the model", "gold": 1, "choices": ["ab", "cd"]},
]
CLOZE = [{"text": "see the dog"}, {"text": "go up"}]
ROLLING = [{"page": "one page of text, longer than a row"}, {"page": "größe λ"}, {"page": "a"}]

METRIC = "{{metric: {}, aggregation: {}, higher_is_better: {}}}"
BODIES = {
    "local_choice": (
        "output_type: multiple_choice",
        'doc_to_text: "{{question}}"',
        "doc_to_target: gold",
        "doc_to_choice: choices",
        f"metric_list: [{METRIC.format('acc', 'mean', 'true')}, {METRIC.format('acc_norm', 'mean', 'true')}]",
    ),
    "local_cloze": (
        "output_type: loglikelihood",
        "doc_to_text: \"{{text.split(' ')[:-1]|join(' ')}}\"",
        "doc_to_target: \"{{' '+text.split(' ')[-1]}}\"",
        f"metric_list: [{METRIC.format('perplexity', 'perplexity', 'false')}, {METRIC.format('acc', 'mean', 'true')}]",
    ),
    "local_rolling": (
        "output_type: loglikelihood_rolling",
        'doc_to_text: ""',
        'doc_to_target: "{{page}}"',
        f"metric_list: [{METRIC.format('bits_per_byte', 'bits_per_byte', 'false')}, "
        f"{METRIC.format('byte_perplexity', 'weighted_perplexity', 'false')}]",
    ),
    "local_writing": (
        "output_type: generate_until",
        'doc_to_text: "{{text}}"',
        'doc_to_target: "{{text}}"',
        "generation_kwargs: {until: ['.']}",
        f"metric_list: [{METRIC.format('exact_match', 'mean', 'true')}]",
    ),
}
DOCUMENTS = {"local_choice": CHOICE, "local_cloze": CLOZE, "local_rolling": ROLLING, "local_writing": CLOZE}


def write_tasks(folder: Path, documents: dict[str, list[dict[str, Any]]] | None = None) -> str:
    """The folder, with the four tasks `local_*`; `documents` replaces the documents of some."""
    for task, rows in {**DOCUMENTS, **(documents or {})}.items():
        data = folder / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {folder / 'cache'}}}"
        head = (f"task: {task}", "dataset_path: json", files, "test_split: test")
        (folder / f"{task}.yaml").write_text("\n".join([*head, *BODIES[task], "metadata: {version: 1.0}", ""]))
    return str(folder)

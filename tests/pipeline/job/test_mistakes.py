"""The line that each mistake in a job file gets."""

from __future__ import annotations

import pickle

import pytest

from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from tests.job_desk import JOB, Desk

SHAPE = [
    # unknown fields, and where they may belong
    ("decoder.temprature=1", "decoder.temprature: unknown field (value 1); did you mean 'temperature'?"),
    ("temperature=1", "temperature: unknown field (value 1); did you mean decoder.temperature?"),
    ("zzz=1", "zzz: unknown field (value 1); choose from name, model, attributes,"),
    ("personas={kind: one-hot, steps: 2}", "personas.steps: unknown field (value 2); choose from control, s"),
    ("attributes=[{name: E, adaptor: x}]", "attributes[0].adaptor: unknown field (value 'x'); did you mean"),
    ("decoder={1: 2}", "decoder: the key 1 is a whole number; a field's name is text"),
    # missing ones
    ("personas={kind: simplex}", "personas.steps: nothing given; add it (1 is one-hot"),
    ("personas={steps: 2}", "personas.kind: nothing given; choose from cover, dirichlet, explicit, file, mbti,"),
    # wrong types
    ("seed=true", "seed: true is a truth value; give a whole number"),
    ("seed=1.5", "seed: 1.5 is a number with decimals; give a whole number"),
    ("batch_size='3'", "batch_size: '3' is text; give a whole number"),
    ("decoder.top_p=x", "decoder.top_p: 'x' is text; give a number"),
    ("decoder.temperature=.nan", "decoder.temperature: nan is a number with decimals; give a finite number"),
    ("decoder.salvage=1", "decoder.salvage: 1 is a whole number; give true or false"),
    ("name=3", "name: 3 is a whole number; give text (quotes make text of anything)"),
    ("model=foo", "model: 'foo' is text; give a mapping"),
    ("attributes=E", "attributes: 'E' is text; give a list"),
    ("attributes=[3]", "attributes[0]: 3 is no attribute; give a name, or {name: ..., adapter: ...}"),
    ("output=", "output: null is nothing; give text"),
    ("personas=[1]", "personas: [1] is a list; give a mapping"),
    # ranges and choices
    ("decoder.temperature=-1", "decoder.temperature: -1 is out of range; give a number at least 0"),
    ("decoder.top_p=0", "decoder.top_p: 0 is out of range; give a number above 0"),
    ("decoder.top_p=1.1", "decoder.top_p: 1.1 is out of range; give a number at most 1"),
    ("decoder.top_k=-1", "decoder.top_k: -1 is out of range; give a number at least 0"),
    ("decoder.chunk_len=0", "decoder.chunk_len: 0 is out of range; give a number at least 1"),
    ("decoder.chunk_len=65", "decoder.chunk_len: 65 is out of range; give a number at most 64"),
    ("decoder.horizon=0", "decoder.horizon: 0 is out of range; give a number at least 1"),
    ("decoder.max_new_tokens=0", "decoder.max_new_tokens: 0 is out of range"),
    ("decoder.window=0", "decoder.window: 0 is out of range"),
    ("decoder.max_tries=0", "decoder.max_tries: 0 is out of range"),
    ("decoder.strength=0", "decoder.strength: 0 is out of range; give a number above 0"),
    ("decoder.strength={E: -1}", "decoder.strength: E: -1 is out of range; give a number above 0"),
    ("decoder.strength={E: x}", "decoder.strength: {E: 'x'} is no number"),
    ("decoder.strength=1e308", "decoder.strength: 1e+308 is out of range; give a number above 0, at most 1e+06"),
    ("decoder.strength={E: 1000001}", "decoder.strength: E: 1000001 is out of range; give a number above 0, at"),
    ("personas={kind: one-hot, strengths: [1e30]}", "personas.strengths[0]: 1e+30 is out of range; give a number at"),
    ("model.date='2025-3-9'", "model.date: '2025-3-9' is no day of the calendar as YYYY-MM-DD; give one, e.g. 2024"),
    ("model.date=today", "model.date: 'today' is no day of the calendar as YYYY-MM-DD; give one"),
    ("model.date=''", "model.date: '' is no day of the calendar as YYYY-MM-DD; give one"),
    ("model.date=2025-02-30", "model.date: '2025-02-30' is no day of the calendar as YYYY-MM-DD; give one"),
    ("model.date=2025-W10-7", "model.date: '2025-W10-7' is no day of the calendar as YYYY-MM-DD; give one"),
    ("model.template_arguments={a: .nan}", "model.template_arguments: a: nan is no number that JSON has; give a fini"),
    ("model.template_arguments={a: [{b: -.inf}]}", "model.template_arguments: a[0].b: -inf is no number that JSON"),
    ("model.template_arguments={'': 1}", "model.template_arguments: the key '' is no name that a template could read"),
    ("model.template_arguments={a b: 1}", "model.template_arguments: the key 'a b' is no name that a template could"),
    ("samples_per_cell=0", "samples_per_cell: 0 is out of range"),
    ("rows_per_shard=0", "rows_per_shard: 0 is out of range"),
    ("max_rejected_fraction=1.5", "max_rejected_fraction: 1.5 is out of range; give a number at most 1"),
    ("seed=-1", "seed: -1 is out of range; give a number at least 0"),
    ("decoder.name=scrx", "decoder.name: 'scrx' is not one of its values; did you mean 'scr'?"),
    ("decoder.aggregate=mean", "decoder.aggregate: 'mean' is not one of its values; choose from sum, produc"),
    ("model.dtype=fp16", "model.dtype: 'fp16' is not one of its values; choose from auto, float32, bfloat16"),
    ("judges=[{kind: llm}]", "judges[0].kind: 'llm' is not one of its kinds; choose from classifier, enc"),
    ("judges=[{kind: openai}]", "judges[0].model: nothing given; add it"),
    ("judges=[{kind: openai, model: m, budget: 1}]", "judges[0].budget: 1 needs prompt_price or completion"),
    ("judges=[{kind: openai, model: m, in_flight: 0}]", "judges[0].in_flight: 0 is out of range"),
    ("panel=best", "panel: 'best' is not one of its values; choose from mean, median, majority"),
    ("judges=[{kind: classifier, abstain: .5}]", "judges[0].abstain: 0.5 is out of range; give a number below 0.5"),
    ("personas.kind=simplx", "personas.kind: 'simplx' is not one of its kinds; did you mean 'simplex'?"),
    ("attributes=[]", "attributes: [] is empty; give at least one entry"),
    ("output=''", "output: '' is empty; give at least one character"),
    ("name=a b", "name: 'a b' is no plain name; use letters and digits"),
    ("personas={kind: mbti, type: entj}", "personas.type: 'entj' is not an MBTI type; give one letter each"),
    # the test split
    ("split={}", "split.by: nothing given; add it"),
    ("split=prompt", "split: 'prompt' is text; give a mapping"),
    ("split={by: persona}", "split.by: 'persona' is not one of its values; choose from prompt, weights"),
    ("split={by: prompt, fraction: .1}", "split.fraction: unknown field (value 0.1); did you mean 'test_fraction'?"),
    ("split={by: prompt, test_fraction: 0}", "split.test_fraction: 0 is out of range; give a number above 0"),
    ("split={by: prompt, test_fraction: 1}", "split.test_fraction: 1 is out of range; give a number below 1"),
    ("split={by: prompt, seed: -1}", "split.seed: -1 is out of range; give a number at least 0"),
    ("split={by: prompt, region: {E: [0, 1]}}", "split: region {E: [0.0, 1.0]} belongs to by: weights; remove it, or"),
    ("split={by: weights}", "split: by: weights needs a region; add one, e.g. region: {E: [0.4, 0.6]}"),
    ("split={by: weights, region: {}}", "split.region: {} names no attribute; give {attribute: [least, greatest]}"),
    ("split={by: weights, region: [E]}", "split.region: ['E'] is no mapping; give {attribute: [least, greatest]}"),
    ("split={by: weights, region: {E: .5}}", "split.region: E: 0.5 is no range of weights; give [least, greatest]"),
    ("split={by: weights, region: {E: [.6, .4]}}", "split.region: E: [0.6, 0.4] is no range of weights; give [least"),
    ("split={by: weights, region: {E: [0, 1.1]}}", "split.region: E: [0, 1.1] is no range of weights; give [least"),
    ("split={by: weights, region: {E: [.nan, 1]}}", "split.region: E: [nan, 1] is no range of weights; give [least"),
    ("split={by: weights, region: {E: [true, 1]}}", "split.region: E: [true, 1] is no range of weights; give [least"),
    ("split={by: weights, region: {E: [0, 1, 1]}}", "split.region: E: [0, 1, 1] is no range of weights; give [leas"),
    # prompts from one place
    ("prompts={}", "prompts: {file: null, dataset: null} names neither; give either prompts.file or"),
    ("prompts.dataset=a/b", "prompts: {file: 'prompts.jsonl', dataset: 'a/b'} names both; give either"),
    ("prompts.split=test", "prompts: split 'test' belongs to a data set; remove it"),
    ("prompts.data_files=a", "prompts: data_files ['a'] belongs to a data set; remove it"),
    ("prompts.streaming=true", "prompts: streaming true belongs to a data set; remove it"),
    ("prompts={dataset: a/b, encoding: latin-1}", "prompts: encoding 'latin-1' belongs to a file; remove it"),
    ("prompts.encoding=rot13", "prompts.encoding: 'rot13' is no encoding of text; give one like utf-8"),
    ("prompts.encoding=utf-9", "prompts.encoding: 'utf-9' is no encoding of text"),
    ("model.id=no", "model.id: false is a truth value; give text (quotes make text of yes, no, on, off)"),
]
BETWEEN = [
    ("split={by: weights, region: {Q: [0, 1]}}", "split.region.Q: [0.0, 1.0] is for 'Q', not an attribute of this job"),
    ("attributes=[E, Q]", "attributes[1]: 'Q' is not a shipped attribute; choose from E, J, N, T or give {n"),
    ("attributes=[unfinished]", "attributes[0]: 'unfinished' is not a shipped attribute"),
    ("attributes=[E, N, E]", "attributes[2]: 'E' is attributes[0] already; remove or rename it"),
    ("attributes=[{name: X, adapter: ./no}]", "attributes[0].adapter: './no' is no folder in "),
    ("attributes=[{name: X, adapter: shipped}]", "attributes[0].adapter: 'shipped' is no folder with adapte"),
    (
        "attributes=[{name: X, adapter: shipped, subfolder: x}]",
        "attributes[0].adapter: 'shipped' is no folder with x/a",
    ),
    (
        "attributes=[{name: X, adapter: shipped/E, revision: v1}]",
        "attributes[0].revision: 'v1' is a revision on the",
    ),
    ("attributes=[{name: X, adapter: a/b, subfolder: ../c}]", "attributes[0].subfolder: '../c' leads out of 'a/b'"),
    ("attributes=[{name: E, revision: v1}]", "attributes[0].revision: 'v1' is of no adapter, as none is named"),
    ("attributes=[{name: E, reference_revision: v1}]", "attributes[0].reference_revision: 'v1' is of no reference"),
    ("control_tokens=keep", "control_tokens: 'keep' is not one of its values; choose from text, reject, allow"),
    ("attributes=[{name: E, reference: /no}]", "attributes[0].reference: '/no' is no folder in "),
    ("decoder.strength={Q: 2}", "decoder.strength.Q: 2.0 is for 'Q', not an attribute of this job (E, N, T,"),
    ("personas={kind: mbti, type: ESFJ}", "personas.type: 'ESFJ' needs S, F; add to attributes"),
    ("personas.steps=1000", "personas.steps: 1000 makes 167,668,502 personas, more than 100,000; lower it"),
    ("personas={kind: dirichlet, n: 9, concentration: 1e-12}", "personas.n: 9 distinct weight vectors over"),
    ("personas={kind: cover, n: 2, method: grid}", "personas.method: 'grid' is not one of its values; choose"),
    ("personas={kind: one-hot, strengths: [1, 1]}", "personas.strengths: [1.0, 1.0] has one twice; remove it"),
    ("personas={kind: one-hot, strengths: [0]}", "personas.strengths[0]: 0 is out of range"),
    ("model.system='{name}'", "model.system: '{name}' names {name}; choose from {profile}, {personality}"),
    ("model.system='{profile'", "model.system: '{profile': "),
    ("attributes=[{name: E, system: '{age}'}]", "attributes[0].system: '{age}' names {age}; choose from {prof"),
    (
        "attributes=[{name: E, system: 'You: {personality}'}]",
        "personas.personality: 'E1.00' has none, and E reads it; give the persona one, or personas.personality for",
    ),
    ("model.system='{profile}'", "personas.profile: 'E1.00' has none, and the reference (model.system) reads it"),
    ("personas.profile={age: 200}", "personas.profile: profile.age: 200 is no age"),
    ("personas.profile=''", "personas.profile: profile: '' is no profile; give text, or {age, gender"),
    ("personas={kind: file, file: no.yaml}", "personas.file: 'no.yaml' (in "),
    ("personas={kind: file, file: prompts.jsonl}", "personas.file: 'prompts.jsonl' (in "),
    ("model.id=embedded/smollm", "model.id: 'embedded/smollm' is not an embedded model; did you mean 'embed"),
    ("model.id=./no", "model.id: './no' is no folder in "),
    ("model.id=shipped", "model.id: 'shipped' is no folder with config.json"),
    ("prompts={dataset: ../no}", "prompts.dataset: '../no' is no folder in "),
    ("prompts={dataset: prompts.jsonl}", "prompts.dataset: 'prompts.jsonl' is a file; give it as prompts.file"),
    (
        "prompts={dataset: shipped, revision: main}",
        "prompts.revision: 'main' is for a data set of the Hub",
    ),
    ("prompts.file=no.jsonl", "prompts.file: 'no.jsonl' (in "),
    ("judges=[{kind: log-ratio}, {kind: log-ratio}]", "judges[1]: 'log-ratio' is judges[0] already; remove one"),
    ("prompts.skip=2", "prompts.file: 'prompts.jsonl' (in "),
    ("output={job}", "output: '{job}' is a file; name a folder"),
    ("output=$HOME/x", "output: '$HOME/x': variables are not filled in; write the path, or give it with --output"),
    ("output=~nobody-of-that-name/x", "output: '~nobody-of-that-name/x': nobody of that name has a home here; write"),
    (f"output={'x' * 300}", f"output: '{'x' * 37}...{'x' * 37}' is no name that a folder can have; give another"),
    ('output="a\\0b"', "output: 'a\\x00b' is no name that a folder can have; give another"),
    ("deadline=2020-01-01T00:00", "deadline: '2020-01-01T00:00' has passed; give a later one, or a duration"),
    ("decoder={horizon: 4}", "decoder.horizon: 4 is of the sum, and the product is the default; add aggregate: sum,"),
    ("decoder={name: scr, horizon: null}", "decoder.horizon: null is of the sum, and the product is the default"),
    ("decoder.temperature=1e-9", "decoder.temperature: 1e-09 must be 0 (greedy) or at least 1e-06"),
]
WEIGHTS = [
    ("{weights: {E: .5, N: .4}}", "[0]: {E: 0.5, N: 0.4} sums to 0.9, not to 1; make it 1, or set personas."),
    ("{weights: {E: .5, N: .500002}}", "[0]: {E: 0.5, N: 0.500002} sums to 1.000002, not to 1"),
    ("{weights: {}}", "[0]: {} sums to 0, not to 1"),
    ("{weights: {E: 1.5, N: -.5}}", "[0].weights.N: -0.5 is out of range; give a number at least 0"),
    ("{weights: {E: .nan}}", "[0].weights.E: nan is a number with decimals; give a finite number"),
    ("{weights: {E: .5, F: .5}}", "[0].weights.F: 0.5 is for 'F', not an attribute of this job (E, N, T, J)"),
    ("{weights: {E: 1}, strengths: {F: 2}}", "[0].strengths.F: 2.0 is for 'F', not an attribute of this job"),
    ("{weights: {E: 1}, strengths: {E: 0}}", "[0].strengths.E: 0 is out of range; give a number above 0"),
    ("{weights: {E: 1}, strengths: {E: 1e7}}", "[0].strengths.E: 10000000.0 is out of range; give a number at most"),
    ("{E: 1, weights: {E: 1}}", "[0].E: unknown field (value 1); choose from name, weights"),
    ("{weights: {E: 1}}, {weights: {E: 1, N: 0}}", "[1]: {E: 1.0, N: 0.0} is personas.weights[0] again; rem"),
    ("{weights: {E: 1}}, {name: E1.00, weights: {N: 1}}", "[1]: the name 'E1.00' is taken; give another nam"),
    ("{name: reference, weights: {N: 1}}", "[0]: the name 'reference' is taken; give another name"),
    ("", ": [] is empty; give at least one entry"),
]


@pytest.mark.parametrize(("override", "start"), SHAPE + BETWEEN)
def test_each_mistake_has_its_line(desk: Desk, override: str, start: str) -> None:
    job_file = str(desk.folder / "job.yaml")
    line = desk.line(override.replace("{job}", job_file))
    assert line.startswith(start.replace("{job}", job_file))


@pytest.mark.parametrize(("entries", "start"), WEIGHTS)
def test_each_mistake_in_weights_has_its_line(desk: Desk, entries: str, start: str) -> None:
    line = desk.line(f"personas={{kind: explicit, control: true, weights: [{entries}]}}")
    assert line.startswith(f"personas.weights{start}")


@pytest.mark.parametrize("name", ["scr", "sequence-rejection", "best-of-n"])
def test_a_decoder_that_accepts_by_chance_is_not_greedy(desk: Desk, name: str) -> None:
    line = desk.line("decoder.temperature=0", f"decoder.name={name}")
    assert line.startswith(f"decoder.temperature: 0 is greedy, which {name!r} can't be: it accepts by chance; give one")


def test_texts_that_a_greedy_decoder_would_write_twice(desk: Desk) -> None:
    greedy = "decoder.temperature=0"
    desk.load(greedy)
    assert desk.line(greedy, "samples_per_cell=3").startswith(
        "samples_per_cell: 3: each sample is the same text again at decoder.temperature 0 (greedy); make it 1, or raise"
    )
    accept = "accept={min_score: .5, rows_per_cell: 1, max_candidates: %d}"
    assert desk.line(greedy, accept % 4).startswith(
        "accept.max_candidates: 4: each candidate is the same text again at"
    )
    desk.load(greedy, accept % 1)  # one text a cell, kept or not
    desk.load("decoder.temperature=0.1", "samples_per_cell=3")


def test_weights_that_cannot_be_normalised(desk: Desk) -> None:
    line = desk.line("personas={kind: explicit, normalize: true, weights: [{weights: {E: 0}}]}")
    assert line.startswith("personas.weights[0]: {E: 0.0} sums to 0; give at least one weight above 0")


def test_strengths_of_a_file_have_the_same_bounds(desk: Desk) -> None:
    (desk.folder / "p.yaml").write_text("personas: [{name: loud, weights: {E: 1}, strengths: {E: 1.0e+7}}]")
    line = desk.line("personas={kind: file, file: p.yaml}")
    assert line.startswith("personas.file: 'p.yaml' (in ")
    assert "'loud': the strength of E, 1e+07, is out of range; give one above 0, at most 1e+06" in line


def test_no_adapter_is_shipped(desk: Desk) -> None:
    with pytest.raises(JobError, match=r"attributes\[0\]: 'E' is not a shipped attribute; none is shipped here"):
        load_job(desk.folder / "job.yaml", shipped={})


PROMPT_FILES = [
    ('{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON (Expecting value at column 12)"),
    ("\n", "holds no prompt; give it rows with a prompt"),
    ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', "line 2: id 'x' is taken by line 1"),
]


@pytest.mark.parametrize(("text", "what"), PROMPT_FILES)
def test_a_prompt_file_that_does_not_work(desk: Desk, text: str, what: str) -> None:
    (desk.folder / "prompts.jsonl").write_text(text)
    assert desk.line().startswith(f"prompts.file: 'prompts.jsonl' (in {str(desk.folder)!r}): {what}")


def test_a_missing_prompt_file_names_where_it_was_sought(desk: Desk) -> None:
    (desk.folder / "prompts.jsonl").unlink()
    expected = f"prompts.file: 'prompts.jsonl' (in {str(desk.folder)!r}): no such file; check the path"
    assert desk.line() == expected


def test_a_line_says_what_came_from_set(desk: Desk) -> None:
    desk.write(JOB.replace("seed: 0", "seed: x"))
    lines = desk.lines("decoder.chunk_len=0")
    assert lines == [
        "decoder.chunk_len: 0 is out of range; give a number at least 1 (from --set)",
        "seed: 'x' is text; give a whole number",
    ]


def test_all_problems_are_told_and_one_line_counts_them(desk: Desk) -> None:
    with pytest.raises(JobError) as caught:
        desk.load("attributes=[E, Q, Z]", "prompts.file=no.jsonl")
    error = caught.value
    assert [problem.field for problem in error.problems] == ["attributes[1]", "attributes[2]", "prompts.file"]
    assert str(error) == f"{error.lines[0]} (+2 more)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_or_broken_value_stays_one_short_line(desk: Desk) -> None:
    (line,) = desk.lines(f"seed={'x' * 500}")
    assert len(line) < 200 and "..." in line
    assert "\n" not in desk.line('seed="a\\nb"')

"""The page that asks people about segments: one file, which works without a server and keeps answers over a reload."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tqdm import tqdm

from debugging.annotation import DESCRIPTION, KIND, KINDS, LEAST_RATING, RATING, TOP_RATING
from imagexplain.vision.html_page import document, picture

STYLE = """
.bar { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  padding: .7rem 0; background: var(--paper); border-bottom: 1px solid var(--line); }
.bar progress { flex: 1 1 10rem; height: .7rem; accent-color: var(--bar); }
button { font: inherit; padding: .4rem .9rem; border: 1px solid var(--accent); border-radius: .4rem; cursor: pointer;
  background: var(--accent); color: var(--paper); }
.task { display: grid; grid-template-columns: minmax(10rem, 16rem) 1fr; gap: 1rem 1.4rem; }
.task h2 { margin: 0 0 .6rem; padding: 0; border: 0; font-size: 1.1rem; }
.task img { width: 100%; height: auto; }
.task.done { border-color: var(--accent); }
fieldset { border: 0; margin: 0 0 .7rem; padding: 0; }
legend, .field { padding: 0; font-weight: 600; }
fieldset label { display: inline-flex; gap: .3rem; align-items: center; margin: .2rem 1rem .2rem 0; padding: .15rem 0; }
input[type=radio] { width: 1.15rem; height: 1.15rem; accent-color: var(--accent); }
input[type=text] { font: inherit; font-weight: 400; width: 100%; max-width: 26rem; padding: .35rem .5rem;
  border: 1px solid var(--area);
  border-radius: .3rem; background: var(--paper); color: var(--ink); display: block; margin-top: .2rem; }
@media (max-width: 40rem) { .task { grid-template-columns: 1fr; } }
"""

SCRIPT = """
"use strict";
const tasks = JSON.parse(document.getElementById("tasks").textContent);
const place = document.body.dataset.place;
const names = JSON.parse(document.body.dataset.names);
let answers = {};
let kept = true;
try { answers = JSON.parse(localStorage.getItem(place)) || {}; } catch (error) { kept = false; }

const forms = [...document.querySelectorAll("form.task")];

function read(form) {
  const data = new FormData(form);
  return {kind: data.get("kind") || "", description: (data.get("description") || "").trim(),
    rating: data.get("rating") || ""};
}

function show() {
  const rated = tasks.filter(task => (answers[task.task_id] || {}).rating).length;
  document.getElementById("rated").textContent = rated + " of " + tasks.length + " rated";
  document.getElementById("progress").value = rated;
  for (const form of forms) form.classList.toggle("done", Boolean((answers[form.dataset.task] || {}).rating));
}

function keep() {
  try { localStorage.setItem(place, JSON.stringify(answers)); } catch (error) { kept = false; }
  document.getElementById("lost").hidden = kept;
}

function answered() {
  return tasks.map(task => {
    const answer = answers[task.task_id];
    if (!answer || !answer.rating) return task;
    const annotations = {};
    annotations[names.kind] = answer.kind;
    annotations[names.description] = answer.description;
    annotations[names.rating] = answer.rating;
    return {...task, status: "completed", response: {annotations}};
  });
}

for (const form of forms) {
  const answer = answers[form.dataset.task];
  if (answer) {
    for (const name of ["kind", "rating"]) {
      for (const input of form.elements[name]) input.checked = input.value === answer[name];
    }
    form.elements.description.value = answer.description;
  }
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", () => { answers[form.dataset.task] = read(form); keep(); show(); });
}

document.getElementById("download").addEventListener("click", () => {
  const content = new Blob([JSON.stringify(answered(), null, 1) + "\\n"], {type: "application/json"});
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = "answered.json";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

document.getElementById("lost").hidden = kept;
show();
"""


def annotation_page(tasks: Sequence[Mapping[str, Any]], results: Path) -> str:
    """The page: a form for each task, the number of those that are rated, and a button that downloads the answers.

    Answers are kept in the browser under a name that goes with the tasks, so that other tasks begin without answers.

    Args:
        tasks: Tasks of :func:`debugging.annotation.tasks_of`.
        results: Folder that the pictures' paths begin at.
    """
    content = json.dumps(list(tasks), ensure_ascii=False)
    place = hashlib.sha256(content.encode()).hexdigest()[:16]
    names = json.dumps({"kind": KIND, "description": DESCRIPTION, "rating": RATING})
    shown = tqdm(tasks, desc="pictures", unit="task")
    forms = "\n".join(_form(number, task, results) for number, task in enumerate(shown, 1))
    body = f"""<header>
<h1>What matters in these pictures?</h1>
<p>A model named each picture wrongly, and the outlined part is what drove it. Say what the part shows, and how much it
matters for the picture's true class: {LEAST_RATING} for not at all, {TOP_RATING} for decisive. Answers stay in this
browser; download them when you are done.</p>
<p class="quiet">An attribute is written as (red,hydrant), a relationship as (people,on,street).</p>
<p id="lost" role="alert" hidden><strong>This browser does not keep answers for this page: download them before you
leave it.</strong></p>
</header>
<div class="bar"><span id="rated" role="status">0 of {len(tasks)} rated</span>
<progress id="progress" max="{max(1, len(tasks))}" value="0" aria-label="Rated tasks"></progress>
<button id="download" type="button">Download answers</button></div>
<main>
{forms}
</main>
<script type="application/json" id="tasks">{_in_script(content)}</script>"""
    attributes = f' data-place="debug-annotate-{place}" data-names="{escape(names)}"'
    return document("What matters in these pictures?", STYLE, body, SCRIPT).replace("<body>", f"<body{attributes}>", 1)


def _form(number: int, task: Mapping[str, Any], results: Path) -> str:
    metadata = task["metadata"]
    shown = picture(results / metadata["picture"], f"Picture {number}: the part in question outlined, the rest faded")
    kinds = "".join(_radio("kind", kind, kind) for kind in KINDS)
    ratings = "".join(_radio("rating", str(value), str(value)) for value in range(LEAST_RATING, TOP_RATING + 1))
    return f"""<form class="card task" data-task="{escape(task["task_id"])}" aria-labelledby="task-{number}">
<div>{shown}</div>
<div><h2 class="quiet" id="task-{number}">{number}. {escape(metadata["truth"])}</h2>
<fieldset><legend>{escape(metadata["question"])}</legend>{ratings}</fieldset>
<fieldset><legend>The part shows an</legend>{kinds}</fieldset>
<label class="field">Description <input type="text" name="description" maxlength="200" autocomplete="off"></label>
</div>
</form>"""


def _radio(name: str, value: str, label: str) -> str:
    return f'<label><input type="radio" name="{name}" value="{value}">{label}</label>'


def _in_script(content: str) -> str:
    """JSON that ends no script element and begins no comment in one."""
    return content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

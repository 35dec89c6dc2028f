// The script of the page of questions on a stand-in for the browser's document: what is clicked, kept and downloaded.
// Reads {script, tasks, stored, place, names, inputs: [[task, field, value], …]} from standard input.
"use strict";
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const stored = given.stored === null ? {} : {[given.place]: given.stored};
const listeners = {};
const forms = given.tasks.map(task => {
  const radios = values => values.map(value => ({value, checked: false}));
  const form = {
    dataset: {task: task.task_id},
    marks: {},
    classList: {toggle: (name, on) => { form.marks[name] = on; }},
    elements: {rating: radios(["1", "2", "3", "4", "5"]), kind: radios(["object", "attribute", "relationship"]),
      description: {value: ""}},
    listeners: {},
    addEventListener: (name, call) => { form.listeners[name] = call; },
  };
  return form;
});
const elements = {
  tasks: {textContent: JSON.stringify(given.tasks)},
  rated: {}, progress: {}, lost: {},
  download: {addEventListener: (name, call) => { listeners[name] = call; }},
};
const downloads = [];
globalThis.localStorage = {
  getItem: name => { if (given.blocked) throw new Error("blocked"); return stored[name] ?? null; },
  setItem: (name, value) => { if (given.blocked) throw new Error("blocked"); stored[name] = value; },
};
globalThis.document = {
  body: {dataset: {place: given.place, names: given.names}, append: () => {}},
  getElementById: name => elements[name],
  querySelectorAll: () => forms,
  createElement: () => ({click() { downloads.push({name: this.download, content: this.href}); }, remove() {}}),
};
globalThis.FormData = class {
  constructor(form) { this.form = form; }
  get(name) {
    const field = this.form.elements[name];
    return Array.isArray(field) ? (field.find(one => one.checked) || {value: null}).value : field.value;
  }
};
globalThis.Blob = class { constructor(parts) { this.text = parts.join(""); } };
globalThis.URL = {createObjectURL: blob => blob.text, revokeObjectURL: () => {}};
globalThis.setTimeout = () => {};
(0, eval)(given.script);
for (const [task, field, value] of given.inputs) {
  const form = forms[task];
  const element = form.elements[field];
  if (Array.isArray(element)) for (const one of element) one.checked = one.value === value;
  else element.value = value;
  form.listeners.input();
}
listeners.click();
console.log(JSON.stringify({
  stored: stored[given.place] ?? null,
  rated: elements.rated.textContent,
  lost: !elements.lost.hidden,
  done: forms.map(form => form.marks.done),
  checked: forms.map(form => (form.elements.rating.find(one => one.checked) || {value: ""}).value),
  name: downloads[0].name,
  downloaded: JSON.parse(downloads[0].content),
}));

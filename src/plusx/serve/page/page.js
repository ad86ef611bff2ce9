// The page for people: send images one by one, show what the model says of each. No library.
"use strict";

const AT_ONCE = 3; // requests in flight
const TOGETHER = 4; // images in one request, while they are small
const BYTES = 16 * 1024 * 1024;
const byId = (id) => document.getElementById(id);
const rows = []; // one per image: {file, name, model, state, result, card}
const waiting = [];
let running = 0;
let key = null;

function headers() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

function percent(share) {
  const value = 100 * share;
  return value > 99.95 && share < 1 ? ">99.9%" : `${value.toFixed(1)}%`;
}

function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

async function start() {
  const models = await fetch("/v1/models", { headers: headers() }).catch(() => ({ ok: false }));
  byId("key-form").hidden = models.status !== 401;
  if (!models.ok) {
    return;
  }
  const names = (await models.json()).models;
  const select = byId("model");
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  byId("model-line").hidden = names.length < 2;
  select.onchange = describe;
  await describe();
  rows.filter((row) => row.state === "locked").forEach(again);
  next();
}

async function describe() {
  const name = encodeURIComponent(byId("model").value);
  const answer = await fetch(`/v1/model?name=${name}`, { headers: headers() }).catch(() => null);
  if (!answer || !answer.ok) {
    return;
  }
  const card = await answer.json();
  byId("kind").textContent = card.task === "multi" ? "any" : "one";
  byId("count").textContent = count(card.classes.length, "class").replace("classs", "classes");
  const shown = card.classes.slice(0, 12).join(", ");
  byId("classes").textContent = shown + (card.classes.length > 12 ? ", …" : "");
}

function add(files) {
  for (const file of files) {
    const card = byId("card").content.firstElementChild.cloneNode(true);
    const name = file.name || "pasted image";
    const row = { file, name, model: byId("model").value, state: "waiting", result: null, card };
    card.querySelector(".name").textContent = row.name;
    card.querySelector(".verdict").textContent = "Waiting …";
    preview(row);
    card.querySelector(".heat").onclick = () => heat(row);
    byId("list").append(card);
    rows.push(row);
    waiting.push(row);
  }
  byId("tools").hidden = rows.length === 0;
  summarise();
  next();
}

function preview(row) {
  const picture = row.card.querySelector("img");
  row.url = URL.createObjectURL(row.file);
  picture.alt = row.name;
  picture.onerror = () => {
    picture.hidden = true;
    row.card.querySelector(".no-picture").hidden = false;
  };
  picture.src = row.url;
}

function next() {
  while (running < AT_ONCE && waiting.length > 0) {
    running += 1;
    classify(group()).finally(() => {
      running -= 1;
      summarise();
      next();
    });
  }
}

function group() {
  const taken = [waiting.shift()];
  let bytes = taken[0].file.size;
  const fits = (row) => !taken[0].alone && !row.alone && row.model === taken[0].model &&
    bytes + row.file.size <= BYTES;
  while (waiting.length > 0 && taken.length < TOGETHER && fits(waiting[0])) {
    bytes += waiting[0].file.size;
    taken.push(waiting.shift());
  }
  return taken;
}

function again(row) {
  row.state = "waiting";
  row.why = "";
  row.card.classList.remove("bad");
  row.card.querySelector(".verdict").textContent = "Waiting …";
  row.card.querySelector(".why").textContent = "";
  waiting.push(row);
}

function oneByOne(group) {
  for (const row of group) {
    row.alone = true;
    again(row);
  }
}

async function send(group, query) {
  const body = new FormData();
  for (const row of group) {
    body.append("files", row.file, row.name);
  }
  const model = group[0].model === "" ? "" : `model=${encodeURIComponent(group[0].model)}&`;
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`/v1/predict?${model}top=5${query}`, {
      method: "POST", body, headers: headers(),
    });
    if (answer.status !== 503 || attempt === 20) {
      return answer;
    }
    const pause = Number(answer.headers.get("Retry-After")) || 1;
    await new Promise((done) => setTimeout(done, 1000 * pause));
  }
}

async function classify(group) {
  try {
    const answer = await send(group, "");
    const said = await answer.json();
    if (answer.status === 413 && group.length > 1) {
      oneByOne(group);
    } else if (said.error) {
      group.forEach((row) => failed(row, said.error.message));
      if (answer.status === 401) {
        group.forEach((row) => { row.state = "locked"; });
        byId("key-form").hidden = false;
        byId("key").focus();
      }
    } else {
      group.forEach((row, i) => show(row, said.results[i]));
    }
  } catch (error) {
    if (group.length > 1) { // one of them may be a folder, which no browser can send
      oneByOne(group);
      return;
    }
    const there = await group[0].file.slice(0, 1).arrayBuffer().then(() => true, () => false);
    failed(group[0], there ? "The server cannot be reached. Is it still running?"
      : "This browser cannot read it. Is it a folder?");
  }
}

function failed(row, why) {
  row.state = "error";
  row.why = why;
  row.card.classList.add("bad");
  row.card.querySelector(".verdict").textContent = "No answer";
  row.card.querySelector(".why").textContent = why;
}

function show(row, result) {
  row.result = result;
  if (result.error && !result.top && !result.labels) {
    failed(row, `This file ${result.error.message}.`);
    return;
  }
  row.state = "done";
  const [verdict, why, kind] = words(result);
  row.card.classList.add(kind);
  row.card.querySelector(".verdict").textContent = verdict;
  row.card.querySelector(".why").textContent = why;
  const shares = result.top || ranked(result.probabilities);
  row.card.querySelector(".bars").replaceChildren(...shares.map(bar));
  row.card.querySelector(".heat").hidden = false;
}

function ranked(probabilities) {
  return Object.entries(probabilities)
    .map(([label, probability]) => ({ label, probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, 5);
}

function words(result) {
  if (result.labels) {
    return [result.labels.join(", ") || "None of its classes", "It may have several.", "answer"];
  }
  const set = result.set && result.set.length > 1 ? `It may be ${result.set.join(" or ")}.` : "";
  if (result.decision === "unknown") {
    const guess = `If it had to choose: ${result.label}.`;
    return ["Unknown", `This is like nothing the model was trained on. ${guess}`, "unknown"];
  }
  if (result.decision === "unsure") {
    return [`Perhaps ${result.label}`, `Not sure enough for an answer. ${set}`, "unsure"];
  }
  return [result.label, set, "answer"];
}

function bar({ label, probability }) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = label;
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "0 0 100 6");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  for (const [kind, width] of [["track", 100], ["part", 100 * probability]]) {
    const box = document.createElementNS(space, "rect");
    box.setAttribute("class", kind);
    box.setAttribute("width", width);
    box.setAttribute("height", 6);
    picture.append(box);
  }
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(probability);
  item.append(name, picture, share);
  return item;
}

async function heat(row) {
  const button = row.card.querySelector(".heat");
  const picture = row.card.querySelector("img");
  if (row.heat && picture.src === row.heat) {
    picture.src = row.url;
    button.textContent = "Show where it looked";
    return;
  }
  if (!row.heat) {
    button.disabled = true;
    button.textContent = "Looking …";
    const answer = await send([row], "&explain=true").catch(() => null);
    const said = answer && answer.ok ? (await answer.json()).results[0] : {};
    button.disabled = false;
    if (!said.heat_map) {
      button.hidden = true;
      const why = said.error ? said.error.message : "The server did not answer.";
      row.card.querySelector(".why").textContent = `No heat map: ${why}`;
      return;
    }
    row.heat = `data:image/png;base64,${said.heat_map.png}`;
    row.heatLabel = said.heat_map.label;
  }
  picture.hidden = false;
  row.card.querySelector(".no-picture").hidden = true;
  picture.src = row.heat;
  picture.alt = `${row.name}, brighter where the network saw ${row.heatLabel}`;
  button.textContent = "Show the image";
}

function summarise() {
  const done = rows.filter((row) => row.state === "done").length;
  const bad = rows.filter((row) => row.state === "error" || row.state === "locked").length;
  const open = rows.length - done - bad;
  const parts = [`${count(done, "image")} classified`];
  if (bad > 0) {
    parts.push(`${bad} without an answer`);
  }
  if (open > 0) {
    parts.push(`${open} waiting`);
  }
  byId("summary").textContent = parts.join(", ");
}

function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text)) {
    text = `'${text}`; // no spreadsheet takes it for a formula
  }
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const lines = [["name", "label", "probability", "decision", "set", "error"]];
  for (const { name, result, state, why } of rows) {
    const said = result || {};
    const label = said.labels ? said.labels.join(";") : said.label;
    const set = said.set ? said.set.join(";") : "";
    const share = said.labels
      ? said.labels.map((name) => said.probabilities[name]).join(";") : said.probability;
    const decision = state === "done" ? said.decision || "answer" : "";
    lines.push([name, state === "done" ? label : "", share, decision, set, why || ""]);
  }
  const text = lines.map((line) => line.map(cell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text + "\r\n"], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function clear() {
  for (const row of rows) {
    URL.revokeObjectURL(row.url);
  }
  rows.length = 0;
  waiting.length = 0;
  byId("list").replaceChildren();
  byId("tools").hidden = true;
  byId("files").focus();
}

function pick(event) {
  add(event.target.files);
  event.target.value = "";
}

byId("files").onchange = pick;
byId("camera").onchange = pick;
byId("csv").onclick = csv;
byId("clear").onclick = clear;
byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  key = byId("key").value;
  start();
};
document.addEventListener("paste", (event) => {
  if (event.clipboardData !== null) {
    add(event.clipboardData.files);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
start();

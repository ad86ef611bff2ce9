// Renders /openapi.json as a page; nothing is loaded from elsewhere.
"use strict";

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) {
    made.textContent = text;
  }
  if (kind) {
    made.className = kind;
  }
  return made;
}

function table(caption, heads, lines) {
  const made = element("table");
  made.append(element("caption", caption, "soft small"));
  const head = element("tr");
  for (const text of heads) {
    const cell = element("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  const body = element("tbody");
  for (const line of lines) {
    const row = element("tr");
    row.append(...line.map((text) => element("td", text)));
    body.append(row);
  }
  const top = element("thead");
  top.append(head);
  made.append(top, body);
  const box = element("div", undefined, "scroll");
  box.tabIndex = 0;
  box.append(made);
  return box;
}

function kindOf(schema) {
  if (schema.anyOf) {
    return schema.anyOf.map(kindOf).filter((kind) => kind !== "null").join(" or ");
  }
  return schema.type || "any";
}

function endpoint(path, method, said) {
  const part = element("section", undefined, "endpoint");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), ` ${path}`);
  part.append(title, element("p", said.description || said.summary));
  const asked = (said.parameters || []).map((one) => [
    one.name, kindOf(one.schema), one.schema.default === undefined ? "" : String(one.schema.default),
    one.description || one.schema.description || "",
  ]);
  if (asked.length > 0) {
    part.append(table("Query parameters", ["name", "kind", "default", "meaning"], asked));
  }
  if (said.requestBody) {
    const kinds = Object.keys(said.requestBody.content).map((kind) => [kind]);
    part.append(table("Bodies it takes", ["Content-Type"], kinds));
  }
  const answers = Object.entries(said.responses).map(([status, one]) => [status, one.description]);
  part.append(table("Answers", ["status", "meaning"], answers));
  return part;
}

async function start() {
  const base = window.location.origin;
  document.getElementById("example").textContent = [
    `curl -F files=@photo.jpg ${base}/v1/predict`,
    `curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' ${base}/v1/predict?top=3`,
    "",
    "import plusx",
    `plusx.Client("${base}").predict(["photo.jpg", "other.jpg"])`,
  ].join("\n");
  const described = await (await fetch("/openapi.json")).json();
  const box = document.getElementById("endpoints");
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const [method, said] of Object.entries(methods)) {
      box.append(endpoint(path, method, said));
    }
  }
}

start();

// A blind battle: both answers at one pace, a vote by keys, five seconds to undo it, then the names.
const $ = (id) => document.getElementById(id);
const ask = $("ask"), duel = $("duel"), ballot = $("ballot"), said = $("said");
const votes = [...document.querySelectorAll("[data-vote]")];
const chips = [...document.querySelectorAll("[data-reason]")];
let texts = { a: [], b: [] };
let round = null, stream = null, vote = null, timer = null, left = 0;
let isStarting = false, asked = null; // asked: the prompt of the round that is shown

async function post(path, fields = []) {
  const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields), headers: { "HX-Request": "true" } });
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    const page = new DOMParser().parseFromString(text, "text/html");
    said.textContent = page.querySelector(".problem")?.textContent.trim() ?? text.slice(0, 300);
    said.className = "problem";
    return null;
  }
}
function tell(text) {
  said.textContent = text;
  said.className = "soft";
}
function allow(on) {
  for (const each of votes) each.disabled = !on;
}

async function start() {
  const prompt = ask.elements.prompt.value;
  if (!prompt.trim() || isStarting || (stream && prompt === asked)) return; // a double click asks once
  isStarting = true;
  try {
    stop();
    tell("Both models read the prompt …");
    const made = await post("/arena/rounds", [["prompt", prompt]]);
    if (made) begin(made.round, prompt);
  } finally {
    isStarting = false;
  }
}
function begin(made, prompt) {
  stop(); // a vote on the round before may have come meanwhile
  round = made;
  asked = prompt;
  vote = null;
  texts = { a: [], b: [] };
  $("name-a").textContent = "Model A";
  $("name-b").textContent = "Model B";
  $("text-a").textContent = $("text-b").textContent = "";
  duel.hidden = ballot.hidden = false;
  $("reasons").hidden = $("again").hidden = true;
  for (const each of [...votes, ...chips]) each.setAttribute("aria-pressed", "false");
  allow(false);
  ask.elements.prompt.blur();
  const its = (stream = new EventSource(`/arena/rounds/${made}/events`));
  its.onmessage = (event) => (its === stream ? hear(JSON.parse(event.data)) : its.close());
}
function stop() {
  stream?.close();
  clearInterval(timer);
  stream = timer = null;
}
async function hear(news) {
  if (news.side) {
    const shown = $(`text-${news.side}`);
    texts[news.side] = [...texts[news.side].slice(0, news.from), ...news.text]; // by characters, as the server counts
    shown.textContent = texts[news.side].join("");
    tell("Both answers are on their way …");
  } else if (news.ready) {
    stop();
    allow(true);
    tell("Which answer is better?");
  } else if (news.problem) {
    const its = round;
    stop();
    await reveal();
    if (its !== round) return;
    said.textContent = news.problem;
    said.className = "problem";
  }
}
async function cast(winner) {
  if (!round || votes[0].disabled) return;
  const its = round; // another may be shown when the answer comes
  const reasons = chips.filter((each) => each.getAttribute("aria-pressed") === "true");
  const taken = await post(`/arena/rounds/${its}/vote`, [["winner", winner], ...reasons.map((each) => ["reason", each.dataset.reason])]);
  if (!taken || its !== round) return;
  vote = winner;
  for (const each of votes) each.setAttribute("aria-pressed", String(each.dataset.vote === winner));
  $("reasons").hidden = false;
  clearInterval(timer);
  left = taken.undo_s;
  const count = () => {
    tell(`The vote is kept in ${Math.ceil(left)} s: u undoes it, r shows the names.`);
    if (left <= 0) reveal();
    left -= 1;
  };
  count();
  timer = setInterval(count, 1000);
}
async function undo() {
  if (!vote || $("reasons").hidden) return;
  const its = round;
  clearInterval(timer);
  if (!(await post(`/arena/rounds/${its}/undo`)) || its !== round) return;
  vote = null;
  for (const each of [...votes, ...chips]) each.setAttribute("aria-pressed", "false");
  $("reasons").hidden = true;
  tell("The vote was taken back. Which answer is better?");
}
async function reveal() {
  const its = round;
  clearInterval(timer);
  const names = await post(`/arena/rounds/${its}/reveal`);
  if (!names || its !== round) return;
  allow(false);
  $("reasons").hidden = true;
  $("again").hidden = false;
  $("name-a").textContent = `A: ${names.a}`;
  $("name-b").textContent = `B: ${names.b}`;
  if (names.winner) tell(names.void ? `The vote does not count, because ${names.void}.` : "The vote is kept.");
}
function again() {
  ask.elements.prompt.focus();
  ask.elements.prompt.select();
}

if (ask) {
  ask.addEventListener("submit", (event) => { event.preventDefault(); start(); });
  ask.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); start(); } });
  for (const each of votes) each.addEventListener("click", () => cast(each.dataset.vote));
  for (const each of chips) each.addEventListener("click", () => {
    each.setAttribute("aria-pressed", String(each.getAttribute("aria-pressed") !== "true"));
    if (vote) cast(vote);
  });
  $("undo").addEventListener("click", undo);
  $("reveal").addEventListener("click", reveal);
  $("again").addEventListener("click", again);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
    const button = ballot.querySelector(`[data-hit="${CSS.escape(event.key)}"]:not(:disabled)`);
    if (!button || ballot.hidden || button.closest("[hidden]")) return;
    event.preventDefault();
    button.click();
  });
  ask.elements.prompt.focus();
}

const by = id => document.getElementById(id);
const drawing = by("drawing"), small = document.createElement("canvas"), width = 30;
small.width = small.height = 280; // what is read: large enough, and fast

// ── drawing ──
let strokes = [], stroke = null, cursor = null, penDown = false, changes = 0;
function drawOn(canvas) {
  const pen = canvas.getContext("2d", {willReadFrequently: true}), scale = canvas.width / drawing.width;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, drawing.width, drawing.height);
  pen.strokeStyle = "#111";
  pen.lineWidth = width;
  pen.lineCap = pen.lineJoin = "round";
  for (const points of strokes) {
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : [[points[0][0] + .1, points[0][1]]]) pen.lineTo(...point);
    pen.stroke();
  }
  return canvas;
}
function redraw() {
  const pen = drawOn(drawing).getContext("2d");
  if (!cursor || document.activeElement !== drawing) return;
  pen.lineWidth = 3;
  pen.strokeStyle = penDown ? "#c22" : "#3b6ea5";
  pen.beginPath();
  pen.arc(...cursor, width / 2, 0, 7);
  pen.stroke();
}
const at = event => {
  const box = drawing.getBoundingClientRect();
  return [(event.clientX - box.left) * drawing.width / box.width, (event.clientY - box.top) * drawing.height / box.height];
};
drawing.addEventListener("pointerdown", event => {
  if (event.button || !event.isPrimary) return;
  drawing.setPointerCapture(event.pointerId);
  cursor = null;
  penDown = false;
  strokes.push(stroke = [at(event)]);
  changed();
});
drawing.addEventListener("pointermove", event => {
  // A stroke that was cleared or undone does not continue.
  if (!drawing.hasPointerCapture(event.pointerId) || !event.isPrimary || strokes.at(-1) !== stroke) return;
  const parts = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(parts.length ? parts : [event]).map(at));
  changed();
});
drawing.addEventListener("keydown", event => {
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const limit = value => Math.min(drawing.width - width, Math.max(width, value));
  if (moves[event.key]) {
    cursor ??= [drawing.width / 2, drawing.height / 4];
    cursor = cursor.map((value, axis) => limit(value + 20 * moves[event.key][axis]));
    if (penDown) { strokes.at(-1).push(cursor); changed(); }
  } else if (event.key === " ") {
    cursor ??= [drawing.width / 2, drawing.height / 4];
    penDown = !penDown;
    if (penDown) { strokes.push([cursor]); changed(); }
  } else return;
  event.preventDefault();
  redraw();
  const [right, low] = cursor.map(value => Math.round(100 * value / drawing.width));
  by("pen").textContent = `Pen ${penDown ? "down" : "up"}, ${right} % from the left, ${low} % from the top.`;
});
for (const kind of ["focus", "blur"]) drawing.addEventListener(kind, redraw);
const clear = () => { strokes = []; penDown = false; changed(); };
const undo = () => { strokes.pop(); penDown = false; changed(); };
by("clear").onclick = clear;
by("undo").onclick = undo;
addEventListener("keydown", event => {
  if (event.key === "Escape") clear();
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); undo(); }
});

// ── one question at a time; the next one has what was drawn meanwhile. Each page has its own answerTo ──
let asking = false, answered = 0;
function changed() { redraw(); changes++; ask(); }
async function ask() {
  if (asking || answered === changes) return;
  asking = true;
  const asked = changes;
  try {
    show(strokes.length ? await answerTo("digit", drawOn(small)) : {digits: []});
    by("problem").textContent = "";
  } catch (error) { by("problem").textContent = error.message; }
  answered = asked;
  asking = false;
  ask();
}
// ── answers ──
const bars = Array.from({length: 10}, (_, digit) => {
  const item = document.createElement("li");
  item.innerHTML = `<span>${digit}</span><span class="bar"><i></i></span><span></span>`;
  by("bars").append(item);
  return item;
});
function show({digits}, isPicture = false) {
  const found = digits.at(-1); // the one that was drawn last, usually
  const isDigit = digits.some(({digit, sure, probabilities}) => sure || probabilities[digit] >= .5);
  by("digit").textContent = isDigit ? digits.map(({digit, sure}) => sure ? digit : digit + "?").join("") : "–";
  by("verdict").hidden = isDigit || !(strokes.length || isPicture);
  if (by("wrong")) by("wrong").hidden = !strokes.length;
  bars.forEach((item, digit) => {
    const percent = found ? 100 * found.probabilities[digit] : 0;
    item.classList.toggle("most", found?.digit === digit);
    item.querySelector("i").style.width = percent + "%";
    item.lastElementChild.textContent = found ? percent.toFixed(1) + " %" : "";
  });
  const seen = by("seen").getContext("2d"), image = seen.createImageData(28, 28);
  for (let i = 0; i < 784; i++) {
    image.data.fill(255 - (found ? found.pixels[i] : 0), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  if (found?.why) {
    const most = Math.max(.05, ...found.why.map(Math.abs));
    found.why.forEach((value, i) => {
      const colour = value > 0 ? [213, 94, 0] : [0, 114, 178], share = .85 * Math.abs(value) / most;
      for (let band = 0; band < 3; band++) {
        const paper = 255 - .45 * found.pixels[i];
        image.data[4 * i + band] = paper * (1 - share) + colour[band] * share;
      }
    });
  }
  by("why").disabled = !found || isPicture;
  by("reasons").hidden = !found?.why;
  seen.putImageData(image, 0, 0);
}
by("why").onclick = async () => {
  const asked = changes;
  try {
    const answer = await answerTo("why", drawOn(small));
    if (asked === changes) show(answer);
  } catch (error) { by("problem").textContent = error.message; }
};
// ── pictures: chosen, dropped, pasted, taken. Each page has its own read ──
let latest = null;
async function decoded(file) { // an image element turns a phone's picture the right way up in every browser
  const picture = Object.assign(new Image(), {src: URL.createObjectURL(file)});
  try { await picture.decode(); } finally { URL.revokeObjectURL(picture.src); }
  return picture;
}
function tell(message) {
  by("problem").textContent = message;
  if (message) by("problem").scrollIntoView({block: "nearest"});
}
by("choose").onclick = () => by("file").click();
for (const input of [by("file"), by("capture")])
  input.onchange = () => { if (input.files[0]) read(input.files[0]); input.value = ""; };
addEventListener("dragover", event => { event.preventDefault(); by("drop").classList.add("over"); });
addEventListener("dragleave", () => by("drop").classList.remove("over"));
addEventListener("drop", event => {
  event.preventDefault();
  by("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
});
addEventListener("paste", event => { if (event.clipboardData.files[0]) read(event.clipboardData.files[0]); });
let stream = null;
function stop() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  by("viewfinder").hidden = true;
}
by("camera").onclick = async () => {
  // A phone's own camera takes better pictures. Also, a browser gives video only to pages from its own computer.
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices) return by("capture").click();
  stop();
  try {
    const started = await navigator.mediaDevices.getUserMedia({video: {width: 1920, height: 1080}});
    stop();
    stream = started;
    by("video").srcObject = stream;
    by("viewfinder").hidden = false;
    by("take").focus();
  } catch { tell("There is no camera, or the browser may not use it. Choose a picture instead."); }
};
by("stop").onclick = stop;
by("take").onclick = () => {
  const video = by("video"), shot = document.createElement("canvas");
  if (!video.videoWidth) return; // the camera is still starting
  shot.width = video.videoWidth;
  shot.height = video.videoHeight;
  shot.getContext("2d").drawImage(video, 0, 0);
  stop();
  shot.toBlob(read, "image/jpeg", .92);
};
redraw();

// ── the networks compute in a worker, so that drawing never waits for them ──
const engine = new Worker(URL.createObjectURL(new Blob([by("engine").textContent], {type: "text/javascript"})));
const waiting = new Map();
engine.onerror = () => {
  for (const [, reject] of waiting.values()) reject(new Error("The browser does not run this page's worker. Try another one."));
  waiting.clear();
};
engine.onmessage = ({data: {id, digits, error}}) => {
  const [resolve, reject] = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve({digits});
};
function askEngine(question) {
  const id = askEngine.asked = (askEngine.asked ?? 0) + 1;
  return new Promise((...settle) => {
    waiting.set(id, settle);
    engine.postMessage({id, ...question});
  });
}
function greyOf(canvas) {
  const {width, height} = canvas, {data} = canvas.getContext("2d", {willReadFrequently: true}).getImageData(0, 0, width, height);
  const grey = new Float32Array(width * height);
  for (let i = 0; i < grey.length; i++) grey[i] = (.299 * data[4 * i] + .587 * data[4 * i + 1] + .114 * data[4 * i + 2]) / 255;
  return {width, height, data: grey};
}
const answerTo = (what, canvas) => askEngine({what, drawing: greyOf(canvas)});

async function read(file) {
  if (!file) return;
  latest = file;
  try {
    const picture = await decoded(file).catch(() => {
      throw new Error("The browser cannot show this file. Expected a picture, such as a JPEG or a PNG.");
    });
    const {naturalWidth: wide, naturalHeight: high} = picture, scale = Math.min(1, 400 / Math.max(wide, high));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(wide * scale)),
      height: Math.max(1, Math.round(high * scale)),
    });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    clear();
    const answer = await askEngine({what: "photo", drawing: greyOf(canvas)});
    if (file !== latest || strokes.length) return;
    show(answer, true);
    by("problem").textContent = "";
    by("digit").scrollIntoView({block: "nearest"});
  } catch (error) { if (file === latest) tell(error.message); }
}

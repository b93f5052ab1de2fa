// Strokes as lists of [x, y] between 0 and 1. The template is drawn anew when the grid changes, so the canvas is looked
// up at every use, and the listeners sit on the component itself.
let strokes = [];
let current = null;
let grid = props.base;

const canvas = () => element.querySelector("canvas");

function paint() {
  const board = canvas();
  const pen = board.getContext("2d");
  pen.clearRect(0, 0, board.width, board.height);
  pen.fillStyle = "#808080";
  for (const stroke of strokes) {  // a digit takes the place of what was in its cell
    const middle = (axis) => (Math.min(...stroke.map((p) => p[axis])) + Math.max(...stroke.map((p) => p[axis]))) / 2;
    const [column, row] = [0, 1].map((axis) => Math.min(2, Math.floor(3 * middle(axis))));
    const side = board.width / 3;
    pen.fillRect(column * side + 8, row * side + 8, side - 8, side - 8);
  }
  pen.lineWidth = board.width / 30;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#fafafa";
  for (const stroke of strokes) {
    pen.beginPath();
    stroke.forEach(([x, y], index) => pen[index ? "lineTo" : "moveTo"](x * board.width, y * board.height));
    if (stroke.length === 1) pen.lineTo(stroke[0][0] * board.width + 0.1, stroke[0][1] * board.height);
    pen.stroke();
  }
}

function place(event) {
  const box = canvas().getBoundingClientRect();
  const inside = (value) => Math.min(1, Math.max(0, Math.round(value * 1000) / 1000));
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

function tell() {
  props.value = JSON.stringify(strokes);
  trigger("input");
}

element.addEventListener("pointerdown", (event) => {
  if (event.target.tagName !== "CANVAS") return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  current = [place(event)];
  strokes.push(current);
  paint();
});
element.addEventListener("pointermove", (event) => {
  if (!current) return;
  current.push(place(event));
  paint();
});
for (const name of ["pointerup", "pointercancel"]) {
  element.addEventListener(name, () => {
    if (!current) return;
    current = null;
    tell();
  });
}
element.addEventListener("click", (event) => {
  if (!event.target.classList.contains("rv-clear")) return;
  strokes = [];
  paint();
  tell();
});
watch(["value", "base"], () => {
  if (grid !== props.base) strokes = [];
  grid = props.base;
  paint();
});

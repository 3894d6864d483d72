// Tells the values of a chart's lines at the pointer; they are read from the drawn lines.
const told = value => String(+value.toPrecision(4));
const parsed = text => text.trim().split(/\s+/).map(pair => pair.split(",").map(Number));

for (const figure of document.querySelectorAll(".chart")) {
  const plot = figure.querySelector(".plot"), output = figure.querySelector("output");
  const box = plot.querySelector("svg").viewBox.baseVal;
  const at = plot.appendChild(document.createElement("i"));
  at.className = "at";
  let lines;
  const read = () => [
    ...[...plot.querySelectorAll("polyline")].filter(line => line.dataset.name).map(line =>
      [line.dataset.name, parsed(line.getAttribute("points")), false]),
    ...[...plot.querySelectorAll(".dots")].map(dots => [dots.dataset.name,
      [...dots.children].map(dot => dot.getAttribute("d").slice(1, -2).split(" ").map(Number)), true]),
  ];
  const move = event => {
    lines = lines || read();
    const area = plot.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - area.left) / area.width, 0), 1);
    const x = box.x + share * box.width;
    const rows = [];
    for (const [name, points, dots] of lines) {
      if (!dots && (x < points[0][0] || x > points[points.length - 1][0])) continue;
      const near = points.reduce((best, one) =>
        Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best, points[0]);
      if (dots && Math.abs(near[0] - x) > box.width / 40) continue;
      // Level stretches have no points in between, so the value is that on the way to the next one.
      const next = points.findIndex(one => one[0] >= x);
      const [a, b] = [points[Math.max(next - 1, 0)], points[Math.max(next, 0)]];
      const value = dots || a[0] === b[0] ? near[1]
        : a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]);
      rows.push(`${name}: ${told(value)}` + (dots ? ` at ${told(near[0])}` : ""));
    }
    for (const mark of plot.querySelectorAll(".mark"))  // a finger cannot rest on one
      if (Math.abs(parseFloat(mark.style.left) - 100 * share) < 1.2) rows.push(mark.title);
    output.textContent = [`${figure.querySelector(".x").textContent}: ${told(x)}`, ...rows].join("\n");
    output.style.display = "block";
    output.className = share > 0.5 ? "left" : "";
    at.style.display = "block";
    at.style.left = `${100 * share}%`;
  };
  const leave = () => { output.style.display = at.style.display = "none"; };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", leave);
}

"use strict";
// Collects what is unticked, and saves it as a file that `fasttriplet clean` reads.
const saving = document.getElementById("decisions");
if (saving) {
  const boxes = [...document.querySelectorAll("input[data-finding]")];
  let saved = true;

  const decisions = () =>
    boxes
      .filter((box) => box.checked !== box.defaultChecked)
      .map((box) => ({ finding: Number(box.dataset.finding), action: box.dataset.other }));

  const count = () => {
    const changed = decisions().length;
    const applied = boxes.filter((box) => box.checked).length;
    document.getElementById("changed").textContent =
      `${applied} of ${boxes.length} findings are ticked, ${changed} decided otherwise than proposed.`;
    for (const box of boxes) box.closest("article").classList.toggle("off", !box.checked);
  };

  const tick = (kind, checked) => {
    for (const box of boxes) if (box.dataset.kind === kind) box.checked = checked;
    saved = false;
    count();
  };

  document.addEventListener("change", () => {
    saved = false;
    count();
  });
  document.addEventListener("click", (event) => {
    const { all, none } = event.target.dataset;
    if (all) tick(all, true);
    if (none) tick(none, false);
  });
  document.getElementById("save").addEventListener("click", () => {
    const content = { ...JSON.parse(saving.dataset.decisions), decisions: decisions() };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
    link.download = "decisions.json";
    link.click();
    URL.revokeObjectURL(link.href);
    saved = true;
  });
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
  count(); // a browser may have kept boxes over a reload
}

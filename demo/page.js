// Replays: every token waits for its own time, so many times slower than it was.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".rv-replay");
  if (!button) return;
  const race = document.querySelector("#rv-answers .rv-race");
  race.querySelectorAll("details").forEach((details) => { details.open = true; });
  race.classList.remove("rv-slow");
  void race.offsetWidth; // lets the browser see that the class went, so that the animation starts over
  race.classList.add("rv-slow");
});
// On a narrow page the answers lie below the question: go there.
document.addEventListener("click", (event) => {
  if (!event.target.closest("#rv-ask") || window.innerWidth > 760) return;
  document.querySelector("#rv-answers").scrollIntoView({ behavior: "smooth", block: "start" });
});

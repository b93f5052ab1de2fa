// Replays: every token waits for its own time, so many times slower than it was.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".rv-replay");
  if (!button) return;
  const race = button.closest(".rv-answers, body").querySelector(".rv-race");
  race.querySelectorAll("details").forEach((details) => { details.open = true; });
  race.classList.remove("rv-slow");
  void race.offsetWidth; // lets the browser see that the class went, so that the animation starts over
  race.classList.add("rv-slow");
});

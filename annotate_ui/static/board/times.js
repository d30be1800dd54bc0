// Moments in the zone of this browser and the language of the page; the server cannot know the zone.

const SHOWN = { time: { timeStyle: "short" }, both: { dateStyle: "medium", timeStyle: "short" } };

export function showTimes(root) {
  for (const time of root.querySelectorAll("time[data-shows]")) {
    time.textContent = new Date(time.dateTime).toLocaleString(document.documentElement.lang, SHOWN[time.dataset.shows]);
  }
}

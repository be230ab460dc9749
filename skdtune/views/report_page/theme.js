"use strict";
// Runs before anything is painted: a remembered theme, or one that the address asks for.
(() => {
  const asked = /[?&#]theme=(light|dark)\b/.exec(location.search + location.hash);
  let theme = asked && asked[1];
  try {
    theme = theme || localStorage.getItem("skdtune-report-theme");
  } catch {
    // Without storage the page follows the system.
  }
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
})();

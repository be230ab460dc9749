"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll(".figure")];
  const config = {
    responsive: true,
    displaylogo: false,
    // The default button would send the data away.
    showSendToCloud: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  const visible = new Set();
  let queue = [];

  function themeNow() {
    return root.dataset.theme || (system.matches ? "dark" : "light");
  }

  // The style sheet is the one place where colours of the theme stand.
  function template() {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      gridcolor: color("--grid"),
      zerolinecolor: color("--grid"),
      linecolor: color("--line"),
      zeroline: false,
    };
    return {
      layout: {
        font: { color: color("--text"), family: style.fontFamily, size: 12 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        xaxis: axis,
        yaxis: axis,
        legend: { bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: {
          bgcolor: color("--surface"),
          bordercolor: color("--line"),
          font: { color: color("--text") },
          align: "left",
        },
        modebar: {
          bgcolor: "rgba(0,0,0,0)",
          color: color("--muted"),
          activecolor: color("--text"),
        },
      },
    };
  }

  function draw(place) {
    if (place.dataset.state !== "waiting") {
      return;
    }
    const figure = JSON.parse(document.getElementById(`${place.id}-data`).textContent);
    const layout = { ...figure.layout, template: template(), autosize: true };
    place.dataset.state = "drawing";
    const isSmall = Boolean(place.closest(".slices"));
    const settings = isSmall ? { ...config, displayModeBar: false } : config;
    Plotly.newPlot(place, figure.data, layout, settings).then(
      () => { place.dataset.state = "drawn"; },
      (error) => {
        place.dataset.state = "failed";
        place.textContent = `This figure cannot be drawn: ${error}`;
      },
    );
  }

  // One figure per frame: the page answers while it fills.
  function drawNext() {
    const place = queue.shift();
    if (place) {
      draw(place);
      requestAnimationFrame(drawNext);
    }
  }

  function enqueue(places) {
    const idle = queue.length === 0;
    queue.push(...places.filter((place) => !queue.includes(place)));
    if (idle && queue.length) {
      requestAnimationFrame(drawNext);
    }
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          visible.add(entry.target);
        } else {
          visible.delete(entry.target);
        }
      }
      queue = queue.filter((place) => visible.has(place));
      enqueue(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target));
    },
    { rootMargin: "400px" },
  );

  function showTheme() {
    const isDark = themeNow() === "dark";
    button.textContent = isDark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use the ${isDark ? "light" : "dark"} theme`);
    const now = template();
    for (const place of figures) {
      if (place.dataset.state === "drawn") {
        Plotly.relayout(place, { template: now });
      }
    }
  }

  button.addEventListener("click", () => {
    root.dataset.theme = themeNow() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("skdtune-report-theme", root.dataset.theme);
    } catch {
      // Not remembered, but shown.
    }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  addEventListener("beforeprint", () => figures.forEach(draw));
  showTheme();
  figures.forEach((place) => observer.observe(place));
})();
